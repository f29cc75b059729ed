//! What a form may ask of this plugin. Every text costs one run of the encoder (3 to 15 ms) the first time it is seen.

/// Most labels: beyond it, similarities of a small encoder no longer tell them apart.
pub(crate) const MAX_LABELS: usize = 64;
/// Most examples of one label: more than this does not change the score, which looks at the best three.
pub(crate) const MAX_EXAMPLES: usize = 32;
/// Most examples of all labels together: the host embeds at most 1,024 texts in one call.
pub(crate) const MAX_ALL_EXAMPLES: usize = 512;
/// Longest description or example in characters: the encoder reads about 1,000 and cuts the rest.
pub(crate) const MAX_LABEL_TEXT: usize = 1_000;
/// Longest name of a label in characters.
pub(crate) const MAX_NAME: usize = 100;
/// Most pointers to fields.
pub(crate) const MAX_FIELDS: usize = 64;
/// Most sentences of a submission that are looked at alone; in a longer text neighbours are taken together.
pub(crate) const MAX_SENTENCES: usize = 48;
/// Most words of a window: the encoder reads 256 word pieces, about 180 words.
pub(crate) const MAX_WINDOW_WORDS: usize = 160;
/// A sentence of fewer words is joined to its neighbour: alone it means nothing.
pub(crate) const MIN_SENTENCE_WORDS: usize = 3;
/// Most characters of a submission's texts that are read: about ten pages. `details` says when it was cut.
pub(crate) const MAX_CHARACTERS: usize = 40_000;

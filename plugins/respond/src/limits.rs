//! What a form may ask of this plugin, and how much text the model reads.

/// Longest instruction or fixed text in characters.
pub(crate) const MAX_TEXT: usize = 4_000;
/// Most pointers to fields.
pub(crate) const MAX_FIELDS: usize = 64;
/// Most results of earlier steps.
pub(crate) const MAX_RESULTS: usize = 16;
/// Longest response in tokens: half of the context of the smallest generators.
pub(crate) const MAX_TOKENS: u32 = 1_024;
/// Tokens of a response when the form does not say: a short letter.
pub(crate) const TOKENS: u32 = 160;
/// Most characters of the submission's texts that the model reads: with instruction and response they stay within 2,048
/// tokens. `characters_read` in the output says when it was cut.
pub(crate) const MAX_CHARACTERS: usize = 3_000;
/// Most characters of one result of an earlier step.
pub(crate) const MAX_RESULT: usize = 300;
/// Most texts that end a response, and their length in characters.
pub(crate) const MAX_STOPS: usize = 8;
pub(crate) const MAX_STOP: usize = 100;

//! What a form may ask of this plugin, and how much text it reads.

/// Most entities of one step: each may cost a part of a generation.
pub(crate) const MAX_ENTITIES: usize = 64;
/// Longest name of an entity in characters: it becomes a column's name and a part of the prompt.
pub(crate) const MAX_NAME: usize = 64;
/// Longest description, example or enum value in characters.
pub(crate) const MAX_TEXT: usize = 300;
/// Most examples of an entity: the first two stand in the prompt.
pub(crate) const MAX_EXAMPLES: usize = 16;
/// Most values of an `enum`.
pub(crate) const MAX_ENUM: usize = 500;
/// Longest `pattern` in bytes.
pub(crate) const MAX_PATTERN: usize = 500;
/// Largest compiled `pattern` in bytes: `\w{1000}` in Unicode would be megabytes.
pub(crate) const MAX_PATTERN_COMPILED: usize = 256 * 1024;
/// Most pointers to fields.
pub(crate) const MAX_FIELDS: usize = 64;
/// Most characters of a submission's texts that the rules read: about 25 pages. `details` says when it was cut.
pub(crate) const MAX_CHARACTERS: usize = 100_000;
/// Most occurrences of one entity in the answer.
pub(crate) const MAX_OCCURRENCES: usize = 200;
/// Most entities the model is asked for in one call; the rest are missing, and `details` says so.
pub(crate) const MAX_MODEL_ENTITIES: usize = 12;
/// Most characters of the texts that the model reads: with prompt and answer they stay within 2,048 tokens.
pub(crate) const MAX_MODEL_CHARACTERS: usize = 3_000;
/// Most phrases the model may choose from for one entity.
pub(crate) const MAX_PHRASES: usize = 150;
/// Bytes of all phrases together: the host takes JSON Schemas of 16 KiB.
pub(crate) const MAX_PHRASE_BYTES: usize = 10_000;
/// Most words of a phrase.
pub(crate) const MAX_PHRASE_WORDS: usize = 5;
/// Tokens for one value in the answer.
pub(crate) const VALUE_TOKENS: u32 = 32;
/// How far a cue word reaches, in bytes before the value; after it, half of that.
pub(crate) const CUE_REACH: usize = 48;

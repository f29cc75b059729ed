//! Every fixed bound of this crate, with its reason. What an operator may want to change is in
//! [`crate::Options`] or the model's declaration; what is here protects the native libraries.

/// Cores left to the rest of the host when `threads` is not configured: validation and HTTP must
/// stay quick while a model runs.
pub const RESERVED_CORES: usize = 1;
/// Native threads one call may use. Small models gain little beyond; lock-step threads on a busy
/// machine lose a lot (2 threads on a busy 2-core machine: 3-18 tokens/s instead of about 100).
pub const MAX_THREADS_PER_CALL: usize = 8;

/// Texts in one `embed` call.
pub const MAX_TEXTS: usize = 1_024;
/// Bytes of all texts of one `embed` call.
pub const MAX_EMBED_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of one text that are looked at per token of the encoder's window. WordPiece spends one token
/// on words up to 100 bytes; longer text is cut before tokenising because tokenising costs memory
/// and time even for what is thrown away.
pub const TEXT_BYTES_PER_TOKEN: usize = 100;
/// Largest `max_tokens` of an encoder: BERT-like encoders have 512 positions.
pub const MAX_ENCODER_TOKENS: usize = 512;
/// Texts in one native run; bigger batches only cost memory.
pub const MAX_BATCH_TEXTS: usize = 32;

/// Inputs of one `run` call.
pub const MAX_TENSORS: usize = 16;
/// Dimensions of one tensor.
pub const MAX_RANK: usize = 8;

/// Bytes of a generation's system and user text together. A tokenizer is run over it before the
/// context size can be checked.
pub const MAX_PROMPT_BYTES: usize = 256 * 1024;
/// Hottest temperature; above it the output is noise.
pub const MAX_TEMPERATURE: f32 = 2.0;
/// When sampling, tokens less likely than this share of the likeliest are not drawn (min-p; the
/// default of llama.cpp).
pub const MIN_P: f32 = 0.05;
/// Stop strings of one generation.
pub const MAX_STOP_STRINGS: usize = 8;
/// Bytes of one stop string; text is held back for as long as it may become one.
pub const MAX_STOP_BYTES: usize = 64;
/// Smallest context a generator may be declared with, tokens.
pub const MIN_CONTEXT_TOKENS: u32 = 64;
/// Largest context a generator may be declared with, tokens (about 23 KiB each for a 135M model).
pub const MAX_CONTEXT_TOKENS: u32 = 131_072;
/// Most prompt prefixes a generator may keep.
pub const MAX_PREFIX_SLOTS: u32 = 16;
/// Prompt tokens evaluated between two looks at deadline and cancellation. About 0.2 s of work on
/// one slow thread; larger batches are hardly faster on few threads.
pub const PROMPT_BATCH_TOKENS: usize = 64;
/// A kept prefix is reused in place if it covers at least one in this many tokens of the new prompt;
/// else the least recently used one is overwritten.
pub const PREFIX_MATCH_DIVISOR: usize = 10;
/// Likeliest tokens tried against a grammar before the whole vocabulary is.
pub const GRAMMAR_SHORTLIST: usize = 64;

/// Bytes of a JSON schema for constrained output.
pub const MAX_SCHEMA_BYTES: usize = 16 * 1024;
/// Nesting of a JSON schema.
pub const MAX_SCHEMA_DEPTH: usize = 12;
/// Subschemas in a JSON schema.
pub const MAX_SCHEMA_NODES: usize = 512;
/// Properties of one object in a JSON schema.
pub const MAX_SCHEMA_PROPERTIES: usize = 64;
/// Values of one `enum`.
pub const MAX_SCHEMA_ENUM: usize = 256;
/// Largest single `minLength`, `maxLength`, `minItems`, `maxItems` or `{n}` in a pattern
/// (llama.cpp refuses repetitions above 2,000).
pub const MAX_SCHEMA_REPETITION: u64 = 1_000;
/// Sum of all repetitions of a schema, nested ones multiplied: each becomes a grammar rule.
pub const MAX_SCHEMA_REPETITIONS: u64 = 20_000;
/// Bytes of one `pattern`.
pub const MAX_SCHEMA_PATTERN: usize = 128;
/// Largest absolute integer bound in a schema: 10^15, what a double holds exactly.
pub const MAX_SCHEMA_INTEGER: i64 = 1_000_000_000_000_000;

/// Key-value pairs in a GGUF header. Real files have tens.
pub const MAX_GGUF_KEYS: u64 = 65_536;
/// Tensors in a GGUF file. Real files have hundreds to some thousands.
pub const MAX_GGUF_TENSORS: u64 = 65_536;
/// Bytes of an ONNX file: protobuf cannot carry more than 2 GiB.
pub const MAX_ONNX_BYTES: u64 = 2 * 1024 * 1024 * 1024 - 1;
/// Bytes of a tokenizer file.
pub const MAX_TOKENIZER_BYTES: u64 = 64 * 1024 * 1024;

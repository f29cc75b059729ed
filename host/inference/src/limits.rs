//! Every fixed bound of this crate, with its reason. What an operator may want to change is in
//! [`crate::Options`] or the model's declaration; what is here protects the native libraries.

use std::time::Duration;

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
/// Parts of a text (words, marks, ideographs) that are given to the tokenizer beyond the encoder's window. One would do;
/// more keep the cut away from the tokens that count, whatever a tokenizer does at a text's end.
pub const WINDOW_MARGIN_PARTS: usize = 16;
/// Largest `max_tokens` of an encoder: BERT-like encoders have 512 positions.
pub const MAX_ENCODER_TOKENS: usize = 512;
/// Texts in one native run; bigger batches only cost memory.
pub const MAX_BATCH_TEXTS: usize = 32;
/// Embed calls that are worked on at the same time; more wait in the queue. As many as can share a run.
pub const MAX_BATCH_CALLS: usize = MAX_BATCH_TEXTS;
/// Longest time that a run is put off for calls that are on their way: half of what the shortest run takes.
pub const BATCH_WINDOW: Duration = Duration::from_millis(1);
/// How often it is looked whether such calls are still on their way.
pub const BATCH_LOOK: Duration = Duration::from_micros(100);
/// Bytes of text tokenised between two runs: about 10 ms.
pub const TOKENISE_STEP_BYTES: usize = 64 * 1024;
/// A text is padded by at most one in this many tokens of the longest in its run. A padded token costs as much as a real
/// one, another run about as much as three.
pub const PADDING_DIVISOR: usize = 8;
/// A text may always be padded by so many tokens.
pub const MIN_PADDING_TOKENS: usize = 2;
/// What an encoder is warmed up with.
pub const WARM_UP_TEXT: &str = "warm up";

/// Memory that loads may use when `memory_bytes` is not configured: one in this many parts of the machine's (or cgroup's),
/// so that sandboxes, store and the page cache keep the rest.
pub const MEMORY_SHARE: u64 = 2;
/// That memory where the system does not tell how much it has.
pub const MEMORY_FALLBACK: u64 = 2 << 30;
/// What an ONNX model takes for each byte of its file, in tenths, at the worst moment of its load: as read, as parsed, as
/// copied and packed. Half of that once it is loaded.
pub const ONNX_MEMORY_TENTHS: u64 = 60;
/// What a generator takes besides its file and its cache: compute buffers, vocabulary, tokens.
pub const GENERATOR_OVERHEAD_BYTES: u64 = 96 << 20;
/// Cache memory of a generator for each token of its contexts when nothing better is known (a 135M model takes 23 KiB).
pub const CACHE_BYTES_PER_TOKEN: u64 = 24 << 10;
/// What an encoder takes for each byte of its tokenizer's file: vocabulary tables.
pub const TOKENIZER_MEMORY_FACTOR: u64 = 12;
/// What a run of an encoder takes for each token of `batch_tokens`.
pub const RUN_BYTES_PER_TOKEN: u64 = 64 << 10;
/// What a plain graph may take for its runs when its declaration does not say: unknown, so generous.
pub const GRAPH_RUN_BYTES: u64 = 64 << 20;
/// A model that takes more than what it was reckoned to is reckoned with that, up to so many tenths: beyond, something
/// else in the process grew at the same time.
pub const MEASURED_TENTHS: u64 = 15;

/// A call for a model that finds no memory, because all that is loaded is in use or pinned, hears so after this time.
pub const MEMORY_WAIT: Duration = Duration::from_secs(10);
/// After this time of that, a loaded model takes no new calls until it has made room: else models in constant use would
/// never make room.
pub const MAKE_ROOM_AFTER: Duration = Duration::from_millis(200);
/// A model is left to itself for so long after it was loaded, before it is asked to make room.
pub const MIN_STAY: Duration = Duration::from_secs(1);
/// How soon a load that failed is tried again, by the next call; doubled with every failure.
pub const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest such time.
pub const RETRY_MOST: Duration = Duration::from_secs(300);
/// Forms that have metrics of their own; later ones are counted together as `other`. A form has three series a model.
pub const FORM_LABELS: usize = 50;

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
/// Prompt tokens of one step, between which other texts get their turn. Larger ones are hardly faster
/// on few threads.
pub const PROMPT_BATCH_TOKENS: usize = 128;
/// The same while other texts are running: about the time of ten of their tokens.
pub const SHARED_PROMPT_BATCH_TOKENS: usize = 32;
/// Nodes of a model's graph between two looks at deadline and cancellation within a step. Small models
/// have about 30 nodes a layer.
pub const NODES_PER_LOOK: u32 = 4;
/// A kept prefix is reused in place if it covers at least one in this many tokens of the new prompt;
/// else the least recently used one is overwritten.
pub const PREFIX_MATCH_DIVISOR: usize = 10;
/// Shortest prefix that is kept beyond its sequence: evaluating fewer takes about as long as a copy.
pub const MIN_PREFIX_TOKENS: usize = 32;
/// Prefixes kept per model, in memory and on disk; each look-up compares with all of them.
pub const MAX_PREFIXES: usize = 256;
/// Age at which an unfinished prefix file is taken for a killed process's; writing one takes milliseconds.
pub const UNFINISHED_FILE_AGE: Duration = Duration::from_secs(600);
/// Tokens that a text may write before it can be set aside for one that has no sequence: setting aside
/// and putting back takes about as long as two tokens.
pub const TURN_TOKENS: u32 = 32;
/// Texts of one model that are set aside at the same time, if memory (`prefix_memory_bytes`) does not end it sooner.
pub const MAX_SET_ASIDE: usize = 8;
/// How much more of a model's time high priority gets than low, where both want it.
pub const HIGH_PRIORITY_WEIGHT: f64 = 16.0;
/// The same for normal priority.
pub const NORMAL_PRIORITY_WEIGHT: f64 = 4.0;
/// Callers whose share is remembered; owners are a handful of pools.
pub const MAX_FLOWS: usize = 64;
/// Likeliest tokens shown to a grammar at once, before more are.
pub const GRAMMAR_SHORTLIST: usize = 64;
/// How far below the likeliest token's logit to look for tokens that a grammar allows, step by step.
pub const GRAMMAR_DEPTHS: [f32; 4] = [4.0, 8.0, 16.0, f32::INFINITY];
/// Compiled grammars kept per model. The largest that are allowed take some megabytes.
pub const KEPT_GRAMMARS: usize = 32;

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

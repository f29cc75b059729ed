//! Generation with llama.cpp: one actor thread per GGUF model.

mod actor;
mod chat_prompt;
pub(crate) mod completion;
pub(crate) mod cpu_variant;
pub(crate) mod generator;
pub(crate) mod gguf_header;
mod grammar_cache;
mod metrics;
mod native;
mod pattern_guard;
pub(crate) mod prefix_cache;
mod prefix_files;
pub(crate) mod quantise;
mod sampling;
pub(crate) mod schema_guard;
mod sequence;
mod slots;
mod text_stream;
mod turns;

//! Generation with llama.cpp: one actor thread per GGUF model.

pub(crate) mod chat_prompt;
pub(crate) mod completion;
pub(crate) mod generator;
pub(crate) mod gguf_header;
pub(crate) mod pattern_guard;
pub(crate) mod prefix_slots;
pub(crate) mod sampling;
pub(crate) mod schema_guard;
pub(crate) mod text_stream;

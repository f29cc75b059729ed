//! Encoders and graphs with ONNX Runtime: one worker thread per ONNX model.

pub(crate) mod embedding_cache;
pub(crate) mod encoder;
pub(crate) mod graph;
pub(crate) mod onnx_header;
pub(crate) mod runtime;
pub(crate) mod session_worker;

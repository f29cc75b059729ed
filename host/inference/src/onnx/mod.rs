//! Encoders and graphs with ONNX Runtime: one worker thread per ONNX model.

pub(crate) mod batch;
pub(crate) mod embedding_cache;
pub(crate) mod encoder;
pub(crate) mod graph;
pub(crate) mod onnx_header;
mod operators;
mod protobuf;
pub(crate) mod rewrite;
pub(crate) mod running;
pub(crate) mod runtime;
pub(crate) mod session_worker;
#[cfg(test)]
mod test_files;

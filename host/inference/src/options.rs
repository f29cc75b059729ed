//! What an operator chooses. Problem: native libraries take every core and unbounded queues unless
//! told otherwise. Promise: each knob has a unit, a default and its reason. Rejected: per-model
//! thread counts, because their sum would not be bounded by the machine.

use std::path::PathBuf;

use serde::Deserialize;

use crate::limits;

/// Bounds of the inference service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The ONNX Runtime library (1.24 or newer). Only touched if an encoder or graph is declared.
    /// Default: `libonnxruntime.so`, found by the system's loader.
    pub onnxruntime: PathBuf,
    /// Native threads in all, llama.cpp and ONNX Runtime together. Default: the cores this process may
    /// use less [`limits::RESERVED_CORES`], at least 1. Values above the cores are lowered to them:
    /// oversubscribed native threads are many times slower than too few.
    pub threads: usize,
    /// Native steps (one batch, one prompt part, one token) that may run at the same time, over all
    /// models. Default: `threads`, so that each step has a thread of its own.
    pub concurrency: usize,
    /// Calls that may wait for one model. Default 64: about a minute of short generations; beyond it a
    /// caller should hear `busy` and not wait.
    pub queue: usize,
    /// Embeddings kept in memory, over all encoders. Default 16,384: 25 MB at 384 dimensions. 0 turns
    /// the cache off.
    pub embedding_cache_entries: usize,
    /// Padded tokens in one native encoder run. Default 2,048: 32 short texts, or 8 full windows of
    /// 256 tokens (about 0.4 s on one thread, the longest that a cancellation waits).
    pub batch_tokens: usize,
    /// Bytes of all input tensors of one `run` call, and again of all its outputs. Default 16 MiB.
    pub tensor_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        let threads = cores().saturating_sub(limits::RESERVED_CORES).max(1);
        Self {
            onnxruntime: PathBuf::from("libonnxruntime.so"),
            threads,
            concurrency: threads,
            queue: 64,
            embedding_cache_entries: 16_384,
            batch_tokens: 2_048,
            tensor_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Options {
    /// How many native steps run at once, and with how many threads each, for so many models.
    /// Their product never exceeds `threads` nor the machine.
    pub(crate) fn share(&self, models: usize) -> (usize, usize) {
        let threads = self.threads.clamp(1, cores());
        let steps = self.concurrency.clamp(1, threads).min(models.max(1));
        (steps, (threads / steps).clamp(1, limits::MAX_THREADS_PER_CALL))
    }
}

/// Cores this process may use (affinity and cgroup quota respected).
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

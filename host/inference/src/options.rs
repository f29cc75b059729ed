//! What an operator chooses. Problem: native libraries take every core and unbounded queues unless
//! told otherwise. Promise: each knob has a unit, a default and its reason. Rejected: per-model
//! thread counts, because their sum would not be bounded by the machine.

use std::path::PathBuf;

use serde::Deserialize;

use crate::limits;
use crate::llama::cpu_variant;
use crate::llama::prefix_cache::PrefixBounds;
use crate::memory;
use crate::onnx::rewrite;

/// Bounds of the inference service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The ONNX Runtime library (1.24 or newer). Only touched when an encoder or graph is loaded.
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
    /// Bytes of embeddings kept in memory, over all encoders. Default 32 MiB: about 19,000 at 384 dimensions. 0 turns the
    /// cache off.
    pub embedding_cache_bytes: usize,
    /// Padded tokens in one native encoder run. Default 256: 16 texts of 16 tokens or one full window of 256, about 50 ms on
    /// one thread, which is also the longest that others and a cancellation wait. Larger runs are not faster by the token,
    /// and from 512 on slower: their states do not fit into the cache of a core.
    pub batch_tokens: usize,
    /// Whether graphs with int8 weights are computed with int8 arithmetic, on CPUs that have instructions for it (AVX-512
    /// VNNI, AVX-VNNI, ARM's dot product): twice as fast, a third of the memory, vectors that differ by about 0.001 in
    /// cosine from those of float arithmetic over the same weights. Default true.
    pub integer_arithmetic: bool,
    /// Which build of llama.cpp's arithmetic runs: `auto`, the best that the CPU can run; a name of those that this machine can
    /// have, which an error lists; or `baseline`, the one that was compiled for every CPU that the program runs on. One for the
    /// whole process. Default `auto`; another one gives the same texts on machines that differ, and comparisons.
    pub cpu_variant: String,
    /// Bytes that loaded models may take together: weights, contexts and what their runs need. 0, the default: half of the
    /// machine's memory, or of the cgroup's if that is less; the rest is for sandboxes, store and page cache.
    pub memory_bytes: u64,
    /// Bytes that each generator keeps in memory besides its sequences: evaluated prompt prefixes, and texts that were set
    /// aside for others. Default 64 MiB: seven prefixes of 400 tokens for SmolLM2-135M.
    pub prefix_memory_bytes: u64,
    /// Where evaluated prompt prefixes are kept across restarts and evictions; a folder of the host's own
    /// (it is made with mode 0700). Empty or absent: not kept.
    pub prefix_folder: Option<PathBuf>,
    /// Bytes of all files in `prefix_folder`. Default 1 GiB.
    pub prefix_disk_bytes: u64,
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
            embedding_cache_bytes: 32 * 1024 * 1024,
            batch_tokens: 256,
            integer_arithmetic: true,
            cpu_variant: cpu_variant::AUTO.to_owned(),
            memory_bytes: 0,
            prefix_memory_bytes: 64 * 1024 * 1024,
            prefix_folder: None,
            prefix_disk_bytes: 1024 * 1024 * 1024,
            tensor_bytes: 16 * 1024 * 1024,
        }
    }
}

impl Options {
    /// Whether int8 weights are computed with as int8 on this machine.
    pub(crate) fn computes_integers(&self) -> bool {
        self.integer_arithmetic && rewrite::pays()
    }

    /// Bytes that models may take, and where that comes from.
    pub(crate) fn budget(&self) -> (u64, &'static str) {
        match self.memory_bytes {
            0 => memory::default_budget(),
            bytes => (bytes, "inference.memory_bytes"),
        }
    }

    pub(crate) fn prefixes(&self) -> PrefixBounds {
        PrefixBounds {
            memory_bytes: self.prefix_memory_bytes,
            folder: self
                .prefix_folder
                .clone()
                .filter(|folder| !folder.as_os_str().is_empty()),
            disk_bytes: self.prefix_disk_bytes,
        }
    }

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

//! Turns a declaration into a loaded model, and says beforehand what memory that takes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::file_check;
use crate::limits;
use crate::llama::generator;
use crate::memory;
use crate::model::{FileSpec, ModelId, ModelSpec, ModelTask};
use crate::onnx::runtime;
use crate::onnx::session_worker::{self, EncoderSettings};
use crate::options::Options;
use crate::permits::Permits;
use crate::worker::Worker;

/// A model in memory.
pub(crate) struct Loaded {
    pub(crate) id: ModelId,
    pub(crate) task: &'static str,
    pub(crate) engine: Engine,
    pub(crate) file_bytes: u64,
    /// By how much the process grew.
    pub(crate) measured_bytes: u64,
    pub(crate) took: Duration,
}

/// What works on calls.
pub(crate) enum Engine {
    Generator(Worker<generator::Job>),
    Session {
        worker: Worker<session_worker::Job>,
        dimensions: Arc<OnceLock<usize>>,
        /// Calls that are about to be queued.
        arriving: Arc<AtomicUsize>,
    },
}

impl Loaded {
    pub(crate) fn is_alive(&self) -> bool {
        match &self.engine {
            Engine::Generator(worker) => worker.is_alive(),
            Engine::Session { worker, .. } => worker.is_alive(),
        }
    }

    /// Ends the worker after its current step and frees the model.
    pub(crate) fn stop(&self) {
        match &self.engine {
            Engine::Generator(worker) => worker.stop(),
            Engine::Session { worker, .. } => worker.stop(),
        }
    }
}

/// Loads models, one at a time.
pub(crate) struct Loader {
    pub(crate) options: Options,
    /// Native threads of one step.
    pub(crate) threads: usize,
    pub(crate) permits: Arc<Permits>,
    pub(crate) shutdown: CancellationToken,
}

impl Loader {
    /// Verifies, loads and warms up.
    pub(crate) fn load(&self, spec: &ModelSpec) -> Result<Loaded, Error> {
        let begun = Instant::now();
        let before = memory::resident_bytes();
        let (engine, file_bytes) = match &spec.task {
            ModelTask::Generator {
                context_tokens,
                prefix_slots,
            } => self.generator(spec, *context_tokens, *prefix_slots)?,
            ModelTask::Encoder { tokenizer, max_tokens } => {
                let encoder = EncoderSettings {
                    tokenizer_path: tokenizer.path.clone(),
                    tokenizer: file_check::read_verified(tokenizer, limits::MAX_TOKENIZER_BYTES)?,
                    max_tokens: *max_tokens,
                    batch_tokens: self.options.batch_tokens,
                };
                self.session(spec, Some(encoder))?
            }
            ModelTask::Graph {} => self.session(spec, None)?,
        };
        // What the load itself needed is of no use any more.
        memory::give_back();
        Ok(Loaded {
            id: spec.id(),
            task: spec.task.kind(),
            engine,
            file_bytes,
            measured_bytes: memory::resident_bytes().saturating_sub(before),
            took: begun.elapsed(),
        })
    }

    /// Bytes the model will take when loaded, from its files' sizes; 0 for files that are not there, whose load will fail.
    pub(crate) fn estimate(&self, spec: &ModelSpec) -> u64 {
        if spec.memory_bytes > 0 {
            return spec.memory_bytes;
        }
        let size = |file: &FileSpec| std::fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
        let weights = size(&spec.file);
        let onnx = weights * limits::ONNX_MEMORY_TENTHS / 10;
        match &spec.task {
            ModelTask::Generator {
                context_tokens,
                prefix_slots,
            } => {
                let cells = u64::from(*context_tokens) * u64::from(*prefix_slots);
                weights
                    + cells * limits::CACHE_BYTES_PER_TOKEN
                    + self.options.prefix_memory_bytes
                    + limits::GENERATOR_OVERHEAD_BYTES
            }
            ModelTask::Encoder { tokenizer, .. } => {
                let run = self.options.batch_tokens as u64 * limits::RUN_BYTES_PER_TOKEN;
                onnx + size(tokenizer) * limits::TOKENIZER_MEMORY_FACTOR + run
            }
            ModelTask::Graph {} => onnx + limits::GRAPH_RUN_BYTES,
        }
    }

    fn generator(&self, spec: &ModelSpec, context_tokens: u32, prefix_slots: u32) -> Result<(Engine, u64), Error> {
        let (file, size) = file_check::verify(&spec.file)?;
        let worker = generator::start(generator::Settings {
            id: spec.id(),
            path: same_file(&file, &spec.file.path),
            context_tokens,
            prefix_slots,
            threads: self.threads,
            queue: self.options.queue,
            prefixes: self.options.prefixes(),
            permits: Arc::clone(&self.permits),
            shutdown: self.shutdown.clone(),
        });
        // The file is open until llama.cpp has opened it for itself.
        let worker = worker.map_err(|error| match error {
            Error::BadModelFile { reason, .. } => Error::BadModelFile {
                path: spec.file.path.clone(),
                reason,
            },
            other => other,
        });
        drop(file);
        Ok((Engine::Generator(worker?), size))
    }

    fn session(&self, spec: &ModelSpec, encoder: Option<EncoderSettings>) -> Result<(Engine, u64), Error> {
        let bytes = file_check::read_verified(&spec.file, limits::MAX_ONNX_BYTES)?;
        let size = bytes.len() as u64;
        let dimensions = Arc::new(OnceLock::new());
        let arriving = Arc::new(AtomicUsize::new(0));
        let worker = session_worker::start(session_worker::Settings {
            id: spec.id(),
            path: spec.file.path.clone(),
            bytes,
            encoder,
            environment: runtime::environment(&self.options.onnxruntime, self.threads)?,
            threads: self.threads,
            integer_arithmetic: self.options.computes_integers(),
            queue: self.options.queue,
            tensor_bytes: self.options.tensor_bytes,
            permits: Arc::clone(&self.permits),
            shutdown: self.shutdown.clone(),
            dimensions: Arc::clone(&dimensions),
            arriving: Arc::clone(&arriving),
        })?;
        Ok((
            Engine::Session {
                worker,
                dimensions,
                arriving,
            },
            size,
        ))
    }
}

/// Another name for an open file, so that what is loaded is what was verified, also if the path was given to another file
/// meanwhile.
fn same_file(file: &File, path: &Path) -> PathBuf {
    let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // Where there is no /proc, the path must do.
    if std::fs::metadata(&name).is_ok() {
        name
    } else {
        path.to_path_buf()
    }
}

//! The one handle behind which both native libraries lie.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ort::session::RunOptions;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::call::CallContext;
use crate::error::Error;
use crate::file_check;
use crate::limits;
use crate::llama::completion::{Completion, GenerationRequest};
use crate::llama::{generator, schema_guard};
use crate::metrics;
use crate::model::{ModelId, ModelSpec, ModelState, ModelStatus, ModelTask};
use crate::onnx::embedding_cache::{Embedded, EmbeddingCache, Key};
use crate::onnx::session_worker::{self, EncoderSettings, Work};
use crate::onnx::{graph, runtime};
use crate::options::Options;
use crate::permits::Permits;
use crate::tensor::Tensor;
use crate::worker::Worker;

/// Vectors of some texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// Which model answered.
    pub model: ModelId,
    /// Numbers per vector.
    pub dimensions: usize,
    /// One vector of length 1 per text, in the order of the texts, one after the other.
    pub vectors: Vec<f32>,
    /// How many of the texts were longer than the model reads; their vectors stand for their start.
    pub truncated: usize,
}

/// The inference service. Cloning gives another handle to the same service; it stops when the last
/// handle is dropped or [`Inference::shutdown`] is called.
#[derive(Clone)]
pub struct Inference {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Inference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inference")
            .field("models", &self.inner.models.keys())
            .finish()
    }
}

struct Inner {
    models: BTreeMap<String, Loaded>,
    cache: EmbeddingCache,
    tensor_bytes: usize,
    shutdown: CancellationToken,
}

struct Loaded {
    id: ModelId,
    task: &'static str,
    engine: Engine,
    file_bytes: u64,
    memory_bytes: u64,
    load: Duration,
}

enum Engine {
    Generator(Worker<generator::Job>),
    Session {
        worker: Worker<session_worker::Job>,
        dimensions: Arc<OnceLock<usize>>,
        /// What besides the weights decides a vector: tokenizer and window.
        variant: String,
    },
}

impl Inference {
    /// Verifies, loads and warms up the declared models, one after the other. Without a declared
    /// encoder or graph the ONNX Runtime library is not touched, without a generator llama.cpp is not.
    /// Blocks for as long as loading takes (SmolLM2-135M and MiniLM together: about a second).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a malformed declaration, [`Error::File`], [`Error::Checksum`],
    /// [`Error::BadModelFile`] or [`Error::Library`] for what lies behind it. Nothing keeps running
    /// after an error.
    pub fn start(options: Options, models: Vec<ModelSpec>) -> Result<Self, Error> {
        for (index, spec) in models.iter().enumerate() {
            spec.validate()?;
            if models[..index].iter().any(|earlier| earlier.name == spec.name) {
                return Err(Error::InvalidArgument(format!("model {} is declared twice", spec.name)));
            }
        }
        let (steps, threads) = options.share(models.len());
        let mut inner = Inner {
            models: BTreeMap::new(),
            cache: EmbeddingCache::new(options.embedding_cache_entries),
            tensor_bytes: options.tensor_bytes,
            shutdown: CancellationToken::new(),
        };
        let loader = Loader {
            options: &options,
            threads,
            permits: Arc::new(Permits::new(steps)),
            shutdown: inner.shutdown.clone(),
        };
        for spec in models {
            let loaded = loader.load(&spec)?;
            tracing::info!(
                model = spec.name,
                version = spec.version,
                task = loaded.task,
                load_ms = loaded.load.as_millis(),
                memory_bytes = loaded.memory_bytes,
                threads,
                "model ready"
            );
            inner.models.insert(spec.name, loaded);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Vectors of texts, for comparing meanings by dot product.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`]; [`Error::TooLarge`] for more than
    /// [`limits::MAX_TEXTS`] texts or [`limits::MAX_EMBED_BYTES`] bytes; [`Error::Busy`],
    /// [`Error::DeadlineExceeded`], [`Error::Cancelled`], [`Error::ShuttingDown`], [`Error::Native`].
    pub async fn embed(&self, model: &str, texts: Vec<String>, call: &CallContext) -> Result<Embeddings, Error> {
        let loaded = self.inner.find(model)?;
        let Engine::Session {
            worker,
            dimensions,
            variant,
        } = &loaded.engine
        else {
            return Err(loaded.wrong("embed"));
        };
        let dimensions = *dimensions.get().ok_or_else(|| loaded.wrong("embed"))?;
        at_most("texts of one call", limits::MAX_TEXTS, texts.len())?;
        at_most(
            "bytes of all texts",
            limits::MAX_EMBED_BYTES,
            texts.iter().map(String::len).sum(),
        )?;
        self.inner.check(call)?;

        let keys: Vec<Key> = texts
            .iter()
            .map(|text| EmbeddingCache::key(&loaded.id, variant, text))
            .collect();
        let mut known: HashMap<Key, Embedded> = HashMap::new();
        let mut missing: Vec<(Key, String)> = Vec::new();
        for (key, text) in keys.iter().zip(texts) {
            if known.contains_key(key) || missing.iter().any(|(other, _)| other == key) {
                continue;
            }
            match self.inner.cache.get(key) {
                Some(embedded) => drop(known.insert(*key, embedded)),
                None => missing.push((*key, text)),
            }
        }
        let count = |source: &str| metrics::TEXTS.with_label_values(&[model, source]);
        count("model").inc_by(missing.len() as u64);
        count("cache").inc_by((keys.len() - missing.len()) as u64);
        if !missing.is_empty() {
            let (missing_keys, texts): (Vec<Key>, Vec<String>) = missing.into_iter().unzip();
            let embedded = ask(worker, call, |reply| Work::Embed { texts, reply }).await?;
            for (key, embedded) in missing_keys.into_iter().zip(embedded) {
                self.inner.cache.put(key, embedded.clone());
                known.insert(key, embedded);
            }
        }
        let mut vectors = Vec::with_capacity(keys.len() * dimensions);
        let mut truncated = 0;
        for key in &keys {
            let embedded = known
                .get(key)
                .ok_or_else(|| Error::Native("a text was not embedded".to_owned()))?;
            vectors.extend_from_slice(&embedded.vector);
            truncated += usize::from(embedded.truncated);
        }
        Ok(Embeddings {
            model: loaded.id.clone(),
            dimensions,
            vectors,
            truncated,
        })
    }

    /// Starts a generation; answers when the model begins to work on it.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`]; [`Error::InvalidArgument`] and
    /// [`Error::TooLarge`] for a bad request, schema or a prompt that does not fit; [`Error::Busy`],
    /// [`Error::DeadlineExceeded`], [`Error::Cancelled`], [`Error::ShuttingDown`], [`Error::Native`].
    pub async fn generate(
        &self,
        model: &str,
        mut request: GenerationRequest,
        call: &CallContext,
    ) -> Result<Completion, Error> {
        let loaded = self.inner.find(model)?;
        let Engine::Generator(worker) = &loaded.engine else {
            return Err(loaded.wrong("generate"));
        };
        request.validate()?;
        if let Some(schema) = &request.json_schema {
            request.json_schema = Some(schema_guard::admit(schema)?);
        }
        self.inner.check(call)?;
        call.credit().await?;
        let (events, receiver) = mpsc::unbounded_channel();
        let (started, answer) = oneshot::channel();
        // Dropped on every early return, which cancels the queued job.
        let completion = Completion {
            events: receiver,
            call: call.child(),
            summary: None,
            failed: None,
        };
        let job = generator::Job {
            request,
            call: completion.call.clone(),
            events,
            started,
            queued: Instant::now(),
        };
        worker.submit(job, &call.owner)?;
        tokio::select! {
            biased;
            error = call.given_up() => Err(error),
            answer = answer => match answer {
                Ok(answer) => answer.map(|()| completion),
                Err(_) => Err(self.inner.gone(worker)),
            },
        }
    }

    /// Runs a graph (or an encoder's graph) on tensors; answers all its outputs.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`]; [`Error::InvalidArgument`] and
    /// [`Error::TooLarge`] for tensors that do not fit the graph or the limits; [`Error::Busy`],
    /// [`Error::DeadlineExceeded`], [`Error::Cancelled`], [`Error::ShuttingDown`], [`Error::Native`].
    pub async fn run(
        &self,
        model: &str,
        inputs: Vec<(String, Tensor)>,
        call: &CallContext,
    ) -> Result<(ModelId, Vec<(String, Tensor)>), Error> {
        let loaded = self.inner.find(model)?;
        let Engine::Session { worker, .. } = &loaded.engine else {
            return Err(loaded.wrong("run"));
        };
        graph::check_sizes(&inputs, self.inner.tensor_bytes)?;
        self.inner.check(call)?;
        let outputs = ask(worker, call, |reply| Work::Run { inputs, reply }).await?;
        Ok((loaded.id.clone(), outputs))
    }

    /// The declared models as they are now, by name.
    #[must_use]
    pub fn models(&self) -> Vec<ModelStatus> {
        let stopped = self.inner.shutdown.is_cancelled();
        self.inner
            .models
            .values()
            .map(|loaded| loaded.status(stopped))
            .collect()
    }

    /// Stops: running work ends at its next step, waiting calls hear [`Error::ShuttingDown`], the
    /// worker threads are joined and the models freed from memory. Blocks for one native step at most.
    /// Harmless when repeated.
    pub fn shutdown(&self) {
        self.inner.stop();
    }
}

struct Loader<'a> {
    options: &'a Options,
    threads: usize,
    permits: Arc<Permits>,
    shutdown: CancellationToken,
}

impl Loader<'_> {
    fn load(&self, spec: &ModelSpec) -> Result<Loaded, Error> {
        let begun = Instant::now();
        let before = resident_bytes();
        let (engine, file_bytes) = match &spec.task {
            ModelTask::Generator {
                context_tokens,
                prefix_slots,
            } => {
                let size = file_check::verify(&spec.file)?;
                let worker = generator::start(generator::Settings {
                    id: spec.id(),
                    path: spec.file.path.clone(),
                    context_tokens: *context_tokens,
                    prefix_slots: *prefix_slots,
                    threads: self.threads,
                    queue: self.options.queue,
                    permits: Arc::clone(&self.permits),
                    shutdown: self.shutdown.clone(),
                })?;
                (Engine::Generator(worker), size)
            }
            ModelTask::Encoder { tokenizer, max_tokens } => {
                let bytes = file_check::read_verified(tokenizer, limits::MAX_TOKENIZER_BYTES)?;
                let variant = format!("{} {max_tokens}", tokenizer.sha256);
                let encoder = EncoderSettings {
                    tokenizer_path: tokenizer.path.clone(),
                    tokenizer: bytes,
                    max_tokens: *max_tokens,
                    batch_tokens: self.options.batch_tokens,
                };
                self.session(spec, Some(encoder), variant)?
            }
            ModelTask::Graph {} => self.session(spec, None, String::new())?,
        };
        Ok(Loaded {
            id: spec.id(),
            task: spec.task.kind(),
            engine,
            file_bytes,
            memory_bytes: resident_bytes().saturating_sub(before),
            load: begun.elapsed(),
        })
    }

    fn session(
        &self,
        spec: &ModelSpec,
        encoder: Option<EncoderSettings>,
        variant: String,
    ) -> Result<(Engine, u64), Error> {
        let bytes = file_check::read_verified(&spec.file, limits::MAX_ONNX_BYTES)?;
        let size = bytes.len() as u64;
        let dimensions = Arc::new(OnceLock::new());
        let worker = session_worker::start(session_worker::Settings {
            id: spec.id(),
            path: spec.file.path.clone(),
            bytes,
            encoder,
            environment: runtime::environment(&self.options.onnxruntime)?,
            threads: self.threads,
            queue: self.options.queue,
            tensor_bytes: self.options.tensor_bytes,
            permits: Arc::clone(&self.permits),
            shutdown: self.shutdown.clone(),
            dimensions: Arc::clone(&dimensions),
        })?;
        Ok((
            Engine::Session {
                worker,
                dimensions,
                variant,
            },
            size,
        ))
    }
}

impl Loaded {
    fn wrong(&self, wanted: &'static str) -> Error {
        Error::WrongTask {
            model: self.id.name.clone(),
            actual: self.task,
            wanted,
        }
    }

    fn status(&self, stopped: bool) -> ModelStatus {
        let alive = match &self.engine {
            Engine::Generator(worker) => worker.is_alive(),
            Engine::Session { worker, .. } => worker.is_alive(),
        };
        ModelStatus {
            id: self.id.clone(),
            task: self.task,
            state: match (stopped, alive) {
                (true, _) => ModelState::Stopped,
                (false, true) => ModelState::Ready,
                (false, false) => ModelState::Failed,
            },
            file_bytes: self.file_bytes,
            memory_bytes: self.memory_bytes,
            load: self.load,
        }
    }
}

impl Inner {
    fn find(&self, model: &str) -> Result<&Loaded, Error> {
        self.models.get(model).ok_or_else(|| Error::UnknownModel {
            name: model.to_owned(),
            known: self.models.keys().cloned().collect(),
        })
    }

    fn check(&self, call: &CallContext) -> Result<(), Error> {
        if self.shutdown.is_cancelled() {
            Err(Error::ShuttingDown)
        } else {
            call.check()
        }
    }

    /// Why a job was dropped without an answer.
    fn gone<J: Send + 'static>(&self, worker: &Worker<J>) -> Error {
        if self.shutdown.is_cancelled() {
            Error::ShuttingDown
        } else {
            worker.died()
        }
    }

    fn stop(&self) {
        self.shutdown.cancel();
        for loaded in self.models.values() {
            match &loaded.engine {
                Engine::Generator(worker) => worker.stop(),
                Engine::Session { worker, .. } => worker.stop(),
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells the worker when the caller is gone: skips queued work, terminates a running one.
struct Leaving {
    call: CallContext,
    options: Arc<RunOptions>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.call.cancel.cancel();
        if let Err(error) = self.options.terminate() {
            tracing::warn!(%error, "a native run could not be told to terminate");
        }
    }
}

/// Hands work to a session's worker and waits for its answer, as long as the call is wanted.
async fn ask<T>(
    worker: &Worker<session_worker::Job>,
    call: &CallContext,
    work: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Work,
) -> Result<T, Error> {
    call.credit().await?;
    let (reply, answer) = oneshot::channel();
    let options = Arc::new(RunOptions::new().map_err(graph::native)?);
    let leaving = Leaving {
        call: call.child(),
        options,
    };
    let job = session_worker::Job {
        work: work(reply),
        call: leaving.call.clone(),
        options: Arc::clone(&leaving.options),
        queued: Instant::now(),
    };
    worker.submit(job, &call.owner)?;
    tokio::select! {
        biased;
        error = call.given_up() => Err(error),
        answer = answer => answer.unwrap_or_else(|_| Err(worker.died())),
    }
}

fn at_most(what: &'static str, limit: usize, got: usize) -> Result<(), Error> {
    if got > limit {
        return Err(Error::TooLarge {
            what,
            limit: limit as u64,
            got: got as u64,
        });
    }
    Ok(())
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let kib = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    kib.unwrap_or(0) * 1024
}

//! The one handle behind which both native libraries lie.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::call::CallContext;
use crate::error::Error;
use crate::limits;
use crate::llama::completion::{Completion, GenerationRequest};
use crate::llama::{cpu_variant, generator, schema_guard};
use crate::loader::{Engine, Loaded, Loader};
use crate::metrics;
use crate::model::{MemoryStatus, ModelId, ModelSpec, ModelStatus, ModelTask};
use crate::onnx::embedding_cache::{Embedded, EmbeddingCache, Key};
use crate::onnx::graph;
use crate::onnx::running::RunSlot;
use crate::onnx::session_worker::{self, Work};
use crate::options::Options;
use crate::permits::Permits;
use crate::residency::Residency;
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
        let names: Vec<String> = self.models().into_iter().map(|model| model.id.name).collect();
        f.debug_struct("Inference").field("models", &names).finish()
    }
}

struct Inner {
    residency: Residency,
    cache: EmbeddingCache,
    tensor_bytes: usize,
    integer_arithmetic: bool,
    shutdown: CancellationToken,
}

impl Inference {
    /// Takes the declarations, and loads those models that are to be loaded at start, one after the other (SmolLM2-135M and
    /// MiniLM together: about a second). The others are loaded by the first call that needs them. The ONNX Runtime library
    /// and llama.cpp are touched by the first model that needs them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a malformed declaration or a [`Options::cpu_variant`] that cannot be; of models that are
    /// loaded at start [`Error::File`], [`Error::Checksum`], [`Error::BadModelFile`] or [`Error::Library`] for what lies behind
    /// the declaration and [`Error::Memory`] if they do not fit. Nothing keeps running after an error.
    pub fn start(options: Options, models: Vec<ModelSpec>) -> Result<Self, Error> {
        for (index, spec) in models.iter().enumerate() {
            spec.validate()?;
            if models[..index].iter().any(|earlier| earlier.name == spec.name) {
                return Err(Error::InvalidArgument(format!("model {} is declared twice", spec.name)));
            }
        }
        cpu_variant::select(&options.cpu_variant)?;
        tracing::info!(variant = cpu_variant::selected_name(), "llama.cpp's arithmetic");
        let (steps, threads) = options.share(models.len());
        let shutdown = CancellationToken::new();
        let cache = EmbeddingCache::new(options.embedding_cache_bytes);
        let (tensor_bytes, integer_arithmetic) = (options.tensor_bytes, options.computes_integers());
        let loader = Loader {
            options,
            threads,
            permits: Arc::new(Permits::new(steps)),
            shutdown: shutdown.clone(),
        };
        let inner = Inner {
            residency: Residency::start(loader, models)?,
            cache,
            tensor_bytes,
            integer_arithmetic,
            shutdown,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Vectors of texts, for comparing meanings by dot product. The model is loaded if need be, not for texts whose vectors
    /// are known.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`]; [`Error::TooLarge`] for more than
    /// [`limits::MAX_TEXTS`] texts or [`limits::MAX_EMBED_BYTES`] bytes; [`Error::Busy`], [`Error::DeadlineExceeded`],
    /// [`Error::Cancelled`], [`Error::ShuttingDown`], [`Error::Native`]; [`Error::Memory`], [`Error::LoadFailed`] and those
    /// of [`Inference::start`] if it must be loaded and cannot be.
    pub async fn embed(&self, model: &str, texts: Vec<String>, call: &CallContext) -> Result<Embeddings, Error> {
        let begun = Instant::now();
        let result = self.embed_texts(model, texts, call).await;
        observe(call, model, &result, begun);
        result
    }

    async fn embed_texts(&self, model: &str, texts: Vec<String>, call: &CallContext) -> Result<Embeddings, Error> {
        let (id, variant) = self
            .inner
            .residency
            .declared(model, |spec| (spec.id(), variant(spec, self.inner.integer_arithmetic)))?;
        let variant = variant.ok_or_else(|| self.inner.wrong(model, "embed"))?;
        at_most("texts of one call", limits::MAX_TEXTS, texts.len())?;
        at_most(
            "bytes of all texts",
            limits::MAX_EMBED_BYTES,
            texts.iter().map(String::len).sum(),
        )?;
        self.inner.check(call)?;

        let keys: Vec<Key> = texts
            .iter()
            .map(|text| EmbeddingCache::key(&id, &variant, text))
            .collect();
        let mut known: HashMap<Key, Option<Embedded>> = HashMap::with_capacity(keys.len());
        let mut missing: Vec<(Key, String)> = Vec::new();
        for (key, text) in keys.iter().zip(texts) {
            if known.contains_key(key) {
                continue;
            }
            let found = self.inner.cache.get(key);
            if found.is_none() {
                missing.push((*key, text));
            }
            known.insert(*key, found);
        }
        let count = |source: &str| metrics::TEXTS.with_label_values(&[model, source]);
        count("model").inc_by(missing.len() as u64);
        count("cache").inc_by((keys.len() - missing.len()) as u64);
        let mut dimensions = known.values().flatten().next().map(|embedded| embedded.vector.len());
        if !missing.is_empty() || dimensions.is_none() {
            let lease = self.inner.residency.lease(model, call, false).await?;
            let Engine::Session {
                worker,
                dimensions: loaded_dimensions,
                arriving,
            } = &lease.engine
            else {
                return Err(lease.wrong("embed"));
            };
            dimensions = loaded_dimensions.get().copied();
            let (missing_keys, texts): (Vec<Key>, Vec<String>) = missing.into_iter().unzip();
            let arriving = Arriving::announce(arriving);
            let embedded = ask(worker, call, Some(arriving), |reply| Work::Embed { texts, reply }).await?;
            for (key, embedded) in missing_keys.into_iter().zip(embedded) {
                self.inner.cache.put(key, embedded.clone());
                known.insert(key, Some(embedded));
            }
        }
        let dimensions = dimensions.ok_or_else(|| self.inner.wrong(model, "embed"))?;
        let mut vectors = Vec::with_capacity(keys.len() * dimensions);
        let mut truncated = 0;
        for key in &keys {
            let embedded = known
                .get(key)
                .and_then(Option::as_ref)
                .ok_or_else(|| Error::Native("a text was not embedded".to_owned()))?;
            vectors.extend_from_slice(&embedded.vector);
            truncated += usize::from(embedded.truncated);
        }
        Ok(Embeddings {
            model: id,
            dimensions,
            vectors,
            truncated,
        })
    }

    /// Starts a generation; answers when the model begins to work on it. The model is loaded if need be.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`]; [`Error::InvalidArgument`] and
    /// [`Error::TooLarge`] for a bad request, schema or a prompt that does not fit; [`Error::Busy`],
    /// [`Error::DeadlineExceeded`], [`Error::Cancelled`], [`Error::ShuttingDown`], [`Error::Native`]; [`Error::Memory`],
    /// [`Error::LoadFailed`] and those of [`Inference::start`] if it must be loaded and cannot be.
    pub async fn generate(
        &self,
        model: &str,
        request: GenerationRequest,
        call: &CallContext,
    ) -> Result<Completion, Error> {
        let begun = Instant::now();
        let result = self.start_generation(model, request, call).await;
        observe(call, model, &result, begun);
        result
    }

    async fn start_generation(
        &self,
        model: &str,
        mut request: GenerationRequest,
        call: &CallContext,
    ) -> Result<Completion, Error> {
        let generates = |spec: &ModelSpec| matches!(spec.task, ModelTask::Generator { .. });
        if !self.inner.residency.declared(model, generates)? {
            return Err(self.inner.wrong(model, "generate"));
        }
        request.validate()?;
        if let Some(schema) = &request.json_schema {
            request.json_schema = Some(schema_guard::admit(schema)?);
        }
        self.inner.check(call)?;
        call.credit().await?;
        let lease = self.inner.residency.lease(model, call, false).await?;
        let (events, receiver) = mpsc::unbounded_channel();
        let (started, answer) = oneshot::channel();
        // Dropped on every early return, which cancels the queued job.
        let completion = Completion {
            events: receiver,
            call: call.child(),
            summary: None,
            failed: None,
            lease,
        };
        let Engine::Generator(worker) = &completion.lease.engine else {
            return Err(completion.lease.wrong("generate"));
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

    /// Runs a graph (or an encoder's graph) on tensors; answers all its outputs. The model is loaded if need be.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::WrongTask`]; [`Error::InvalidArgument`] and
    /// [`Error::TooLarge`] for tensors that do not fit the graph or the limits; [`Error::Busy`],
    /// [`Error::DeadlineExceeded`], [`Error::Cancelled`], [`Error::ShuttingDown`], [`Error::Native`]; [`Error::Memory`],
    /// [`Error::LoadFailed`] and those of [`Inference::start`] if it must be loaded and cannot be.
    pub async fn run(
        &self,
        model: &str,
        inputs: Vec<(String, Tensor)>,
        call: &CallContext,
    ) -> Result<(ModelId, Vec<(String, Tensor)>), Error> {
        let begun = Instant::now();
        let result = self.run_graph(model, inputs, call).await;
        observe(call, model, &result, begun);
        result
    }

    async fn run_graph(
        &self,
        model: &str,
        inputs: Vec<(String, Tensor)>,
        call: &CallContext,
    ) -> Result<(ModelId, Vec<(String, Tensor)>), Error> {
        let runs = |spec: &ModelSpec| !matches!(spec.task, ModelTask::Generator { .. });
        if !self.inner.residency.declared(model, runs)? {
            return Err(self.inner.wrong(model, "run"));
        }
        graph::check_sizes(&inputs, self.inner.tensor_bytes)?;
        self.inner.check(call)?;
        let lease = self.inner.residency.lease(model, call, false).await?;
        let Engine::Session { worker, .. } = &lease.engine else {
            return Err(lease.wrong("run"));
        };
        let outputs = ask(worker, call, None, |reply| Work::Run { inputs, reply }).await?;
        Ok((lease.id().clone(), outputs))
    }

    /// The declared models as they are now, by name.
    #[must_use]
    pub fn models(&self) -> Vec<ModelStatus> {
        self.inner.residency.statuses()
    }

    /// The memory that models take and may take.
    #[must_use]
    pub fn memory(&self) -> MemoryStatus {
        self.inner.residency.memory()
    }

    /// Which build of llama.cpp's arithmetic this process uses, see [`Options::cpu_variant`].
    #[must_use]
    pub fn cpu_variant(&self) -> &'static str {
        cpu_variant::selected_name()
    }

    /// Loads a model now, also if a load failed a moment ago; a loaded model stays so.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], what the load answers, and [`Error::Memory`], [`Error::Busy`],
    /// [`Error::DeadlineExceeded`], [`Error::Cancelled`], [`Error::ShuttingDown`].
    pub async fn load(&self, model: &str, call: &CallContext) -> Result<(), Error> {
        self.inner.residency.lease(model, call, true).await.map(drop)
    }

    /// Frees a model's memory now, also if it is pinned; the next call loads it again.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::InUse`] while calls use it, [`Error::ShuttingDown`].
    pub async fn unload(&self, model: &str) -> Result<(), Error> {
        self.inner.residency.unload(model).await
    }

    /// Keeps a model in memory when others need room, or no longer; until the service stops.
    ///
    /// # Errors
    /// [`Error::UnknownModel`].
    pub fn pin(&self, model: &str, pinned: bool) -> Result<(), Error> {
        self.inner.residency.pin(model, pinned)
    }

    /// Stops: running work ends at its next step, waiting calls hear [`Error::ShuttingDown`], the
    /// worker threads are joined and the models freed from memory. Blocks for one native step at most, and for a load that
    /// is under way. Harmless when repeated.
    pub fn shutdown(&self) {
        self.inner.stop();
    }
}

/// What besides the weights decides a vector: tokenizer, window and arithmetic. `None` for what does not embed.
fn variant(spec: &ModelSpec, integer_arithmetic: bool) -> Option<String> {
    match &spec.task {
        ModelTask::Encoder { tokenizer, max_tokens } => {
            Some(format!("{} {max_tokens} {integer_arithmetic}", tokenizer.sha256))
        }
        _ => None,
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
}

impl Inner {
    fn wrong(&self, model: &str, wanted: &'static str) -> Error {
        let actual = self.residency.declared(model, |spec| spec.task.kind());
        actual.map_or_else(
            |error| error,
            |actual| Error::WrongTask {
                model: model.to_owned(),
                actual,
                wanted,
            },
        )
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
        self.residency.stop();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells the worker that a call is on its way, so that it may wait for it.
struct Arriving<'a>(&'a AtomicUsize);

impl<'a> Arriving<'a> {
    fn announce(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tells the worker when the caller is gone: skips queued work, terminates a running one.
struct Leaving {
    call: CallContext,
    slot: Arc<RunSlot>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.call.cancel.cancel();
        self.slot.leave();
    }
}

/// Hands work to a session's worker and waits for its answer, as long as the call is wanted.
async fn ask<T>(
    worker: &Worker<session_worker::Job>,
    call: &CallContext,
    arriving: Option<Arriving<'_>>,
    work: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Work,
) -> Result<T, Error> {
    call.credit().await?;
    let (reply, answer) = oneshot::channel();
    let leaving = Leaving {
        call: call.child(),
        slot: Arc::default(),
    };
    let job = session_worker::Job {
        work: work(reply),
        call: leaving.call.clone(),
        slot: Arc::clone(&leaving.slot),
        queued: Instant::now(),
    };
    // Before the worker sees the job: it must not wait for this very call.
    drop(arriving);
    worker.submit(job, &call.owner)?;
    tokio::select! {
        biased;
        error = call.given_up() => Err(error),
        answer = answer => answer.unwrap_or_else(|_| Err(worker.died())),
    }
}

/// Counts a call for its form.
fn observe<T>(call: &CallContext, model: &str, result: &Result<T, Error>, begun: Instant) {
    let outcome = result.as_ref().err().map_or("ok", Error::code);
    // A model that is not declared is no label.
    if !matches!(result, Err(Error::UnknownModel { .. })) {
        metrics::form_call(call.form.as_deref(), model, outcome, begun.elapsed());
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

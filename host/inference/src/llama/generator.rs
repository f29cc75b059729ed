//! The actor that owns one GGUF model and its context.
//!
//! Problem: a llama.cpp context serves one thread, a generation may take minutes, and a caller may
//! go away at any token. Promise: deadline, cancellation and shutdown are looked at before every part
//! of a prompt and every token; the evaluated prefix is kept for the next request; no input ends the
//! process. Cost: one generation at a time per model (on few threads, batching several gives no more
//! tokens in total: 110 against 120 tokens/s measured). Rejected: continuous batching, for that
//! reason; holding the permit for the whole generation, see [`crate::permits`].

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use prometheus::IntCounter;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::chat_prompt::ChatPrompt;
use super::completion::{Chunk, Event, FinishReason, GenerationRequest, Summary};
use super::gguf_header;
use super::prefix_slots::PrefixSlots;
use super::sampling::Sampler;
use super::text_stream::TextStream;
use crate::call::CallContext;
use crate::error::Error;
use crate::limits;
use crate::metrics;
use crate::model::ModelId;
use crate::native_log;
use crate::permits::Permits;
use crate::worker::{Ready, Worker};

const WARM_UP: &str = "Hello";

/// What a generator is made of.
pub(crate) struct Settings {
    pub(crate) id: ModelId,
    pub(crate) path: PathBuf,
    pub(crate) context_tokens: u32,
    pub(crate) prefix_slots: u32,
    pub(crate) threads: usize,
    pub(crate) queue: usize,
    pub(crate) permits: Arc<Permits>,
    pub(crate) shutdown: CancellationToken,
}

/// One queued generation. `request.json_schema` has passed the guard.
pub(crate) struct Job {
    pub(crate) request: GenerationRequest,
    pub(crate) call: CallContext,
    pub(crate) events: UnboundedSender<Event>,
    /// Answers when the prompt and schema are accepted and work begins, or why not.
    pub(crate) started: oneshot::Sender<Result<(), Error>>,
    pub(crate) queued: Instant,
}

/// Checks the file, loads the model on a thread of its own and warms it up.
pub(crate) fn start(settings: Settings) -> Result<Worker<Job>, Error> {
    gguf_header::check(&settings.path)?;
    let (name, queue) = (settings.id.name.clone(), settings.queue);
    Worker::start(&name, queue, move |ready, jobs| run(&settings, ready, jobs))
}

fn run(settings: &Settings, ready: Ready, jobs: &Receiver<Job>) -> Result<(), Error> {
    let bad = |reason: String| Error::BadModelFile {
        path: settings.path.clone(),
        reason,
    };
    let native = |reason: String| {
        let logged = native_log::take_last_error()
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        format!("{reason}{logged}")
    };
    let backend = backend()?;
    let model_params = LlamaModelParams::default().with_n_gpu_layers(0);
    let model = LlamaModel::load_from_file(backend, &settings.path, &model_params)
        .map_err(|error| bad(native(error.to_string())))?;
    let threads = i32::try_from(settings.threads).unwrap_or(1);
    let batch = u32::try_from(limits::PROMPT_BATCH_TOKENS).unwrap_or(u32::MAX);
    let cells = settings.context_tokens.saturating_mul(settings.prefix_slots);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(cells))
        .with_n_seq_max(settings.prefix_slots)
        .with_n_batch(batch)
        .with_n_ubatch(batch)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_no_perf(true);
    let context = model
        .new_context(backend, params)
        .map_err(|error| bad(native(error.to_string())))?;
    let chat = ChatPrompt::load(&model).map_err(&bad)?;
    let vocab = model.vocab();
    let never = vocab
        .tokens()
        .filter(|token| vocab.is_control(*token) && !vocab.is_eog(*token))
        .collect::<Vec<_>>();
    let tokens = |kind: &str| metrics::TOKENS.with_label_values(&[settings.id.name.as_str(), kind]);
    let mut generator = Generator {
        settings,
        model: &model,
        context,
        batch: LlamaBatch::new(limits::PROMPT_BATCH_TOKENS, 1),
        chat,
        slots: PrefixSlots::new(settings.prefix_slots),
        never,
        prompt_counter: tokens("prompt"),
        cached_counter: tokens("cached"),
        output_counter: tokens("output"),
    };
    generator.warm_up()?;
    ready.loaded();
    while let Ok(job) = jobs.recv() {
        generator.serve(job);
    }
    Ok(())
}

struct Generator<'m> {
    settings: &'m Settings,
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    chat: ChatPrompt,
    slots: PrefixSlots,
    /// Tokens that must not appear in a text.
    never: Vec<LlamaToken>,
    prompt_counter: IntCounter,
    cached_counter: IntCounter,
    output_counter: IntCounter,
}

/// A prompt that fits, with its sampler.
struct Prepared {
    prompt: Vec<LlamaToken>,
    sampler: Sampler,
    max_tokens: u32,
}

impl Generator<'_> {
    fn warm_up(&mut self) -> Result<(), Error> {
        let request = GenerationRequest {
            prompt: WARM_UP.to_owned(),
            max_tokens: 1,
            ..GenerationRequest::default()
        };
        let call = CallContext::default();
        let prepared = self.prepare(&request, &call)?;
        self.generate(prepared, &request, &call, |_| {}).map(|_| ())
    }

    fn serve(&mut self, job: Job) {
        let name = self.settings.id.name.as_str();
        metrics::QUEUE_WAIT
            .with_label_values(&[name])
            .observe(job.queued.elapsed().as_secs_f64());
        let begun = Instant::now();
        let prepared = match self
            .check(&job.call)
            .and_then(|()| self.prepare(&job.request, &job.call))
        {
            Ok(prepared) => prepared,
            Err(error) => {
                self.count(&job.call, Some(&error));
                // A caller that left has nobody to tell.
                let _ = job.started.send(Err(error));
                return;
            }
        };
        if job.started.send(Ok(())).is_err() {
            self.count(&job.call, Some(&Error::Cancelled));
            return;
        }
        let Job {
            request, call, events, ..
        } = job;
        let outcome = self.generate(prepared, &request, &call, |chunk| {
            // A dropped reader also cancels the call, which the next step sees.
            let _ = events.send(Event::Chunk(chunk));
        });
        self.count(&call, outcome.as_ref().err());
        metrics::RUN
            .with_label_values(&[self.settings.id.name.as_str()])
            .observe(begun.elapsed().as_secs_f64());
        let _ = events.send(Event::End(outcome));
    }

    fn count(&self, call: &CallContext, error: Option<&Error>) {
        let outcome = error.map_or("ok", Error::code);
        metrics::CALLS
            .with_label_values(&[self.settings.id.name.as_str(), call.owner.as_str(), outcome])
            .inc();
    }

    fn check(&self, call: &CallContext) -> Result<(), Error> {
        if self.settings.shutdown.is_cancelled() {
            return Err(Error::ShuttingDown);
        }
        call.check()
    }

    /// [`Self::check`], and waits while the caller's CPU budget is overdrawn.
    fn turn(&self, call: &CallContext) -> Result<(), Error> {
        call.wait_for_credit(|| self.check(call))
    }

    fn prepare(&self, request: &GenerationRequest, call: &CallContext) -> Result<Prepared, Error> {
        let _permit = self.settings.permits.acquire();
        call.metered(1, || self.prepare_now(request))
    }

    fn prepare_now(&self, request: &GenerationRequest) -> Result<Prepared, Error> {
        let prompt = self.chat.tokens(self.model, &request.system, &request.prompt);
        let context = self.settings.context_tokens as usize;
        if prompt.len() >= context {
            return Err(Error::TooLarge {
                what: "tokens of the prompt, with room for an answer",
                limit: context.saturating_sub(1) as u64,
                got: prompt.len() as u64,
            });
        }
        let room = u32::try_from(context - prompt.len()).unwrap_or(u32::MAX);
        let sampler = Sampler::new(
            self.model,
            request.json_schema.as_deref(),
            request.temperature,
            request.seed,
        )?;
        Ok(Prepared {
            prompt,
            sampler,
            max_tokens: request.max_tokens.min(room),
        })
    }

    fn generate(
        &mut self,
        prepared: Prepared,
        request: &GenerationRequest,
        call: &CallContext,
        mut send: impl FnMut(Chunk),
    ) -> Result<Summary, Error> {
        let Prepared {
            prompt,
            mut sampler,
            max_tokens,
        } = prepared;
        let (slot, cached) = self.slots.choose(&prompt);
        let cached = self.rewind(slot, cached)?;
        for part in prompt[cached..].chunks(limits::PROMPT_BATCH_TOKENS) {
            self.turn(call)?;
            self.decode(slot, part, call)?;
        }
        self.prompt_counter.inc_by((prompt.len() - cached) as u64);
        self.cached_counter.inc_by(cached as u64);

        let mut stream = TextStream::new(request.stop.clone());
        let mut output_tokens = 0;
        let reason = loop {
            self.turn(call)?;
            let drawn = {
                let _permit = self.settings.permits.acquire();
                let logits = self.context.get_logits_ith(self.batch.n_tokens() - 1);
                call.metered(1, || sampler.draw(logits, &self.never))?
            };
            if self.model.vocab().is_eog(drawn.token) {
                break FinishReason::Stop;
            }
            sampler.accept(drawn.token)?;
            output_tokens += 1;
            self.output_counter.inc();
            let piece = self.model.vocab().token_to_piece(drawn.token, false, None);
            let (text, stopped) = stream.push(&piece);
            send(Chunk {
                text,
                tokens: 1,
                logprob: drawn.logprob,
            });
            if stopped {
                break FinishReason::Stop;
            }
            if output_tokens >= max_tokens {
                break FinishReason::Length;
            }
            self.turn(call)?;
            self.decode(slot, &[drawn.token], call)?;
        };
        let rest = stream.finish();
        if !rest.is_empty() {
            send(Chunk {
                text: rest,
                tokens: 0,
                logprob: 0.0,
            });
        }
        Ok(Summary {
            model: self.settings.id.clone(),
            reason,
            prompt_tokens: u32::try_from(prompt.len()).unwrap_or(u32::MAX),
            cached_tokens: u32::try_from(cached).unwrap_or(u32::MAX),
            output_tokens,
        })
    }

    /// Makes the slot hold exactly its first `keep` tokens; answers how many it could keep.
    fn rewind(&mut self, slot: usize, keep: usize) -> Result<usize, Error> {
        let sequence = sequence(slot)?;
        let from = u32::try_from(keep).unwrap_or(u32::MAX);
        let kept = if self.context.kv_cache_seq_rm(sequence, Some(from), None).is_ok() {
            keep
        } else {
            // Some architectures cannot forget a part of their state.
            self.context
                .kv_cache_seq_rm(sequence, None, None)
                .map_err(|error| Error::Native(error.to_string()))?;
            0
        };
        self.slots.truncate(slot, kept);
        Ok(kept)
    }

    /// Evaluates tokens at the slot's end; the last one's logits can be read afterwards.
    fn decode(&mut self, slot: usize, tokens: &[LlamaToken], call: &CallContext) -> Result<(), Error> {
        let sequence = sequence(slot)?;
        let start = self.slots.len(slot);
        self.batch.clear();
        for (index, token) in tokens.iter().enumerate() {
            let position = i32::try_from(start + index).map_err(|error| Error::Native(error.to_string()))?;
            self.batch
                .add(*token, position, &[sequence], index + 1 == tokens.len())
                .map_err(|error| Error::Native(error.to_string()))?;
        }
        let decoded = {
            let _permit = self.settings.permits.acquire();
            call.metered(self.settings.threads, || self.context.decode(&mut self.batch))
        };
        match decoded {
            Ok(()) => {
                self.slots.extend(slot, tokens);
                Ok(())
            }
            Err(error) => {
                // What the cache holds now is unknown: forget the slot.
                self.rewind(slot, 0)?;
                let logged = native_log::take_last_error().unwrap_or_default();
                Err(Error::Native(format!("{error} {logged}").trim_end().to_owned()))
            }
        }
    }
}

fn sequence(slot: usize) -> Result<i32, Error> {
    i32::try_from(slot).map_err(|error| Error::Native(error.to_string()))
}

/// The process-wide llama.cpp backend; it is never freed, because models may be loaded again.
fn backend() -> Result<&'static LlamaBackend, Error> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    BACKEND
        .get_or_init(|| {
            native_log::install();
            LlamaBackend::init().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| Error::Native(format!("llama.cpp: {error}")))
}

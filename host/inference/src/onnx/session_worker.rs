//! The worker that owns one ONNX session, and the batches of those who embed at the same time.
//!
//! **Promise.** Calls that wait when a run ends share the next one. A lone call is run at once: the worker waits for others
//! only while they are known to be on their way, and no longer than [`limits::BATCH_WINDOW`]. A call's deadline and
//! cancellation are looked at between runs, and a run that is under way is told to terminate when nobody waits for it. A
//! run that fails is repeated for each of its calls alone, so that one caller's text does not fail another's.
//!
//! **Rejected.** One session shared by several threads, whose peak memory nobody can predict; a fixed waiting time, which
//! every lone call would pay.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::session::{RunOptions, Session};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Chosen, Lane};
use super::embedding_cache::Embedded;
use super::encoder::Encoder;
use super::running::{Run, RunSlot};
use super::{graph, onnx_header, rewrite, runtime};
use crate::call::CallContext;
use crate::cpu_budget;
use crate::error::Error;
use crate::limits;
use crate::metrics;
use crate::model::ModelId;
use crate::permits::Permits;
use crate::tensor::Tensor;
use crate::worker::{Ready, Worker};

pub(crate) struct Settings {
    pub(crate) id: ModelId,
    pub(crate) path: PathBuf,
    /// The file's verified bytes: what was hashed is what is loaded.
    pub(crate) bytes: Vec<u8>,
    /// The encoder's tokenizer and window; `None` for a plain graph.
    pub(crate) encoder: Option<EncoderSettings>,
    pub(crate) environment: Environment,
    /// Threads of the pool that sessions share: what a run uses at most.
    pub(crate) threads: usize,
    /// Whether int8 weights are computed with as int8.
    pub(crate) integer_arithmetic: bool,
    pub(crate) queue: usize,
    pub(crate) tensor_bytes: usize,
    pub(crate) permits: Arc<Permits>,
    pub(crate) shutdown: CancellationToken,
    /// Set at load: the length of an encoder's vectors.
    pub(crate) dimensions: Arc<OnceLock<usize>>,
    /// Calls that are about to be queued.
    pub(crate) arriving: Arc<AtomicUsize>,
}

pub(crate) struct EncoderSettings {
    pub(crate) tokenizer_path: PathBuf,
    pub(crate) tokenizer: Vec<u8>,
    pub(crate) max_tokens: usize,
    pub(crate) batch_tokens: usize,
}

/// What is asked of the session.
pub(crate) enum Work {
    Embed {
        texts: Vec<String>,
        reply: oneshot::Sender<Result<Vec<Embedded>, Error>>,
    },
    Run {
        inputs: Vec<(String, Tensor)>,
        reply: oneshot::Sender<Result<Vec<(String, Tensor)>, Error>>,
    },
}

pub(crate) struct Job {
    pub(crate) work: Work,
    pub(crate) call: CallContext,
    /// Where the caller finds the run to terminate when it leaves.
    pub(crate) slot: Arc<RunSlot>,
    pub(crate) queued: Instant,
}

/// Checks the bytes, builds the session on a thread of its own and warms it up.
pub(crate) fn start(settings: Settings) -> Result<Worker<Job>, Error> {
    onnx_header::check(&settings.bytes).map_err(|reason| Error::BadModelFile {
        path: settings.path.clone(),
        reason,
    })?;
    let (name, queue) = (settings.id.name.clone(), settings.queue);
    Worker::start(&name, queue, move |ready, jobs| run(settings, ready, jobs))
}

fn run(mut settings: Settings, ready: Ready, jobs: &Receiver<Job>) -> Result<(), Error> {
    let session = build(&mut settings)?;
    let encoder = match settings.encoder.take() {
        None => None,
        Some(encoder) => {
            let at_fault = |reason: &str| match reason.starts_with("tokenizer") {
                true => encoder.tokenizer_path.clone(),
                false => settings.path.clone(),
            };
            let built = Encoder::new(&session, &encoder.tokenizer, encoder.max_tokens).map_err(|reason| {
                Error::BadModelFile {
                    path: at_fault(&reason),
                    reason,
                }
            })?;
            Some((built, encoder.batch_tokens))
        }
    };
    let (encoder, batch_tokens) = encoder.map_or((None, 0), |(encoder, tokens)| (Some(encoder), tokens));
    let mut worker = SessionWorker {
        settings,
        session,
        encoder,
        batch_tokens,
        calls: Vec::new(),
    };
    worker.warm_up()?;
    ready.loaded();
    worker.work(jobs);
    Ok(())
}

fn build(settings: &mut Settings) -> Result<Session, Error> {
    let bad = |reason: String| Error::BadModelFile {
        path: settings.path.clone(),
        reason,
    };
    let bytes = std::mem::take(&mut settings.bytes);
    // Only one copy of the weights is held while the library makes its own.
    let rewritten = match settings.integer_arithmetic {
        true => rewrite::rewrite(&bytes).map_err(bad)?,
        false => None,
    };
    let bytes = rewritten.unwrap_or(bytes);
    runtime::session(&settings.environment, &bytes).map_err(bad)
}

struct SessionWorker {
    settings: Settings,
    session: Session,
    encoder: Option<Encoder>,
    batch_tokens: usize,
    /// Embeddings being worked on, the next to lead a run first.
    calls: Vec<EmbedCall>,
}

/// One call between its first step and its answer.
struct EmbedCall {
    texts: Vec<String>,
    /// How many of the texts have been tokenised.
    tokenised: usize,
    lane: Lane,
    vectors: Vec<Option<Embedded>>,
    missing: usize,
    tokens: usize,
    reply: oneshot::Sender<Result<Vec<Embedded>, Error>>,
    call: CallContext,
    slot: Arc<RunSlot>,
    begun: Instant,
}

impl SessionWorker {
    /// A plain graph is not warmed up: what it eats is not known. An encoder is given the largest run there will be, so
    /// that what it takes is taken before it is called ready.
    fn warm_up(&mut self) -> Result<(), Error> {
        let Some(encoder) = &self.encoder else {
            return Ok(());
        };
        let mut longest = encoder.tokenise(0, limits::WARM_UP_TEXT)?;
        let options = RunOptions::new().map_err(graph::native)?;
        let first = encoder.run(&mut self.session, std::iter::once(&longest), &options)?;
        if let Some(first) = first.first() {
            let _ = self.settings.dimensions.set(first.vector.len());
        }
        let filler = longest.ids.get(1).copied().unwrap_or(0);
        let width = encoder.max_tokens().min(self.batch_tokens.max(1));
        longest.ids.resize(width, filler);
        let rows = (self.batch_tokens / width).clamp(1, limits::MAX_BATCH_TEXTS);
        let _permit = self.settings.permits.acquire();
        encoder.run(&mut self.session, std::iter::repeat_n(&longest, rows), &options)?;
        Ok(())
    }

    fn work(&mut self, jobs: &Receiver<Job>) {
        loop {
            if self.calls.is_empty() {
                let Ok(job) = jobs.recv() else { return };
                self.admit(job);
            }
            self.gather(jobs);
            self.step();
        }
    }

    /// Takes in who waits, and who is about to.
    fn gather(&mut self, jobs: &Receiver<Job>) {
        let begun = Instant::now();
        while self.calls.len() < limits::MAX_BATCH_CALLS {
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(_) => {
                    let left = limits::BATCH_WINDOW.saturating_sub(begun.elapsed());
                    if left.is_zero() || self.settings.arriving.load(Ordering::Acquire) == 0 {
                        return;
                    }
                    match jobs.recv_timeout(left.min(limits::BATCH_LOOK)) {
                        Ok(job) => job,
                        Err(RecvTimeoutError::Timeout) => continue,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            self.admit(job);
        }
    }

    fn admit(&mut self, job: Job) {
        let Job {
            work,
            call,
            slot,
            queued,
        } = job;
        metrics::QUEUE_WAIT
            .with_label_values(&[self.settings.id.name.as_str()])
            .observe(queued.elapsed().as_secs_f64());
        match work {
            Work::Embed { texts, reply } => {
                let vectors = vec![None; texts.len()];
                self.calls.push(EmbedCall {
                    missing: texts.len(),
                    texts,
                    tokenised: 0,
                    lane: Lane {
                        texts: Vec::new(),
                        alone: false,
                    },
                    vectors,
                    tokens: 0,
                    reply,
                    call,
                    slot,
                    begun: Instant::now(),
                });
            }
            Work::Run { inputs, reply } => {
                let begun = Instant::now();
                let result = self.run_graph(inputs, &call, &slot);
                self.count(&call, begun, outcome(&result));
                // A caller that left has nobody to tell.
                let _ = reply.send(result);
            }
        }
    }

    /// One part of the texts is tokenised, one batch is run.
    fn step(&mut self) {
        let wanted = |embed: &EmbedCall| check(&self.settings, &embed.call);
        let unwanted: Vec<(usize, Error)> = self
            .calls
            .iter()
            .enumerate()
            .filter_map(|(index, embed)| Some((index, wanted(embed).err()?)))
            .collect();
        for (index, error) in unwanted.into_iter().rev() {
            let embed = self.calls.remove(index);
            self.answer(embed, Some(error));
        }
        if self.calls.is_empty() {
            return;
        }
        let permits = Arc::clone(&self.settings.permits);
        let _permit = permits.acquire();
        self.tokenise();
        let mut lanes: Vec<&mut Lane> = self
            .calls
            .iter_mut()
            .filter(|embed| embed.tokenised == embed.texts.len())
            .map(|embed| &mut embed.lane)
            .collect();
        let chosen = batch::choose(&mut lanes, self.batch_tokens);
        // Lanes are numbered among those that are ready: number them among all.
        let ready: Vec<usize> = (0..self.calls.len())
            .filter(|index| self.calls[*index].tokenised == self.calls[*index].texts.len())
            .collect();
        let chosen: Vec<Chosen> = chosen.into_iter().map(|(lane, tokens)| (ready[lane], tokens)).collect();
        if !chosen.is_empty() {
            self.run(chosen);
        }
        if !self.calls.is_empty() {
            self.calls.rotate_left(1);
        }
        for index in (0..self.calls.len()).rev() {
            if self.calls[index].missing == 0 {
                let embed = self.calls.remove(index);
                self.answer(embed, None);
            }
        }
    }

    /// Tokenises until every call is through or the step's share is used up.
    fn tokenise(&mut self) {
        let Some(encoder) = &self.encoder else { return };
        let mut left = limits::TOKENISE_STEP_BYTES;
        let mut failed = Vec::new();
        for (position, embed) in self.calls.iter_mut().enumerate() {
            let before = embed.tokenised;
            while embed.tokenised < embed.texts.len() && left > 0 {
                let text = std::mem::take(&mut embed.texts[embed.tokenised]);
                left = left.saturating_sub(text.len().max(1));
                match encoder.tokenise(embed.tokenised, &text) {
                    Ok(tokens) => {
                        embed.tokens += tokens.ids.len();
                        embed.lane.texts.push(tokens);
                    }
                    Err(error) => {
                        failed.push((position, error));
                        break;
                    }
                }
                embed.tokenised += 1;
            }
            if embed.tokenised > before && embed.tokenised == embed.texts.len() {
                embed.lane.texts.sort_by_key(|text| text.ids.len());
            }
        }
        for (position, error) in failed.into_iter().rev() {
            let embed = self.calls.remove(position);
            self.answer(embed, Some(error));
        }
    }

    fn run(&mut self, chosen: Vec<Chosen>) {
        let Some(encoder) = &self.encoder else { return };
        let mut takers: Vec<usize> = chosen.iter().map(|(call, _)| *call).collect();
        takers.dedup();
        let mut used = Duration::ZERO;
        let result = Run::start(takers.len()).and_then(|run| {
            for taker in &takers {
                self.calls[*taker].slot.enter(&run);
            }
            let texts = chosen.iter().map(|(_, tokens)| tokens);
            let (result, time) = cpu_budget::measured(|| encoder.run(&mut self.session, texts, &run.options));
            used = time;
            for taker in &takers {
                self.calls[*taker].slot.clear();
            }
            result
        });
        self.charge(&chosen, used);
        self.observe(&chosen);
        match result {
            Ok(vectors) => {
                for ((call, tokens), vector) in chosen.into_iter().zip(vectors) {
                    let embed = &mut self.calls[call];
                    embed.missing -= 1;
                    embed.vectors[tokens.index] = Some(vector);
                }
            }
            Err(error) => self.failed(chosen, &takers, &error),
        }
    }

    /// A run that was told to terminate, or that the library refused.
    fn failed(&mut self, chosen: Vec<Chosen>, takers: &[usize], error: &Error) {
        if let [only] = takers {
            // A run that was told to terminate fails; why is the caller's state.
            let embed = self.calls.remove(*only);
            let error = check(&self.settings, &embed.call)
                .err()
                .unwrap_or_else(|| error.clone());
            self.answer(embed, Some(error));
            return;
        }
        for (call, tokens) in chosen {
            let lane = &mut self.calls[call].lane;
            let at = lane.texts.partition_point(|text| text.ids.len() <= tokens.ids.len());
            lane.texts.insert(at, tokens);
            lane.alone = true;
        }
    }

    fn answer(&self, embed: EmbedCall, error: Option<Error>) {
        let result = match error {
            Some(error) => Err(error),
            None => embed
                .vectors
                .into_iter()
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| Error::Native("a text was not embedded".to_owned())),
        };
        if result.is_ok() {
            metrics::TOKENS
                .with_label_values(&[self.settings.id.name.as_str(), "input"])
                .inc_by(embed.tokens as u64);
        }
        self.count(&embed.call, embed.begun, outcome(&result));
        // A caller that left has nobody to tell.
        let _ = embed.reply.send(result);
    }

    fn run_graph(
        &mut self,
        inputs: Vec<(String, Tensor)>,
        call: &CallContext,
        slot: &RunSlot,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        check(&self.settings, call)?;
        let _permit = self.settings.permits.acquire();
        check(&self.settings, call)?;
        let run = Run::start(1)?;
        slot.enter(&run);
        let (threads, tensor_bytes) = (self.settings.threads, self.settings.tensor_bytes);
        let result = call.metered(threads, || {
            graph::run(&mut self.session, inputs, &run.options, tensor_bytes)
        });
        slot.clear();
        result.or_else(|error| check(&self.settings, call).and(Err(error)))
    }

    /// Charges a run to those whose texts were in it, each for its share of the tokens.
    fn charge(&self, chosen: &[Chosen], used: Duration) {
        let all: usize = chosen.iter().map(|(_, tokens)| tokens.ids.len()).sum();
        let used = used * u32::try_from(self.settings.threads).unwrap_or(1).max(1);
        for (call, tokens) in chosen {
            if let Some(budget) = &self.calls[*call].call.budget {
                budget.charge(used.mul_f64(tokens.ids.len() as f64 / all.max(1) as f64));
            }
        }
    }

    fn observe(&self, chosen: &[Chosen]) {
        let name = self.settings.id.name.as_str();
        let width = chosen.iter().map(|(_, tokens)| tokens.ids.len()).max().unwrap_or(0);
        let real: usize = chosen.iter().map(|(_, tokens)| tokens.ids.len()).sum();
        metrics::BATCH_TEXTS
            .with_label_values(&[name])
            .observe(chosen.len() as f64);
        metrics::TOKENS
            .with_label_values(&[name, "padding"])
            .inc_by((width * chosen.len()).saturating_sub(real) as u64);
    }

    fn count(&self, call: &CallContext, begun: Instant, outcome: &str) {
        let name = self.settings.id.name.as_str();
        metrics::RUN
            .with_label_values(&[name])
            .observe(begun.elapsed().as_secs_f64());
        metrics::CALLS
            .with_label_values(&[name, call.owner.as_str(), outcome])
            .inc();
    }
}

fn check(settings: &Settings, call: &CallContext) -> Result<(), Error> {
    if settings.shutdown.is_cancelled() {
        return Err(Error::ShuttingDown);
    }
    call.check()
}

fn outcome<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().err().map_or("ok", Error::code)
}

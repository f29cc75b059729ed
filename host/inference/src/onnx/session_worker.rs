//! The worker that owns one ONNX session.
//!
//! Promise: a call's deadline and cancellation are looked at between runs, and a run that is under way
//! is told to terminate when its caller leaves. Rejected: one session shared by several threads, whose
//! peak memory nobody can predict.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ort::environment::Environment;
use ort::session::{RunOptions, Session};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::embedding_cache::Embedded;
use super::encoder::Encoder;
use super::{graph, onnx_header, runtime};
use crate::call::CallContext;
use crate::error::Error;
use crate::metrics;
use crate::model::ModelId;
use crate::permits::Permits;
use crate::tensor::Tensor;
use crate::worker::{Ready, Worker};

const WARM_UP: &str = "warm up";

pub(crate) struct Settings {
    pub(crate) id: ModelId,
    pub(crate) path: PathBuf,
    /// The file's verified bytes: what was hashed is what is loaded.
    pub(crate) bytes: Vec<u8>,
    /// The encoder's tokenizer and window; `None` for a plain graph.
    pub(crate) encoder: Option<EncoderSettings>,
    pub(crate) environment: Environment,
    pub(crate) threads: usize,
    pub(crate) queue: usize,
    pub(crate) tensor_bytes: usize,
    pub(crate) permits: Arc<Permits>,
    pub(crate) shutdown: CancellationToken,
    /// Set at load: the length of an encoder's vectors.
    pub(crate) dimensions: Arc<OnceLock<usize>>,
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
    /// Terminated by the caller when it leaves.
    pub(crate) options: Arc<RunOptions>,
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
    let bytes = std::mem::take(&mut settings.bytes);
    let session =
        runtime::session(&settings.environment, &bytes, settings.threads).map_err(|reason| Error::BadModelFile {
            path: settings.path.clone(),
            reason,
        })?;
    drop(bytes);
    let encoder = match settings.encoder.take() {
        None => None,
        Some(EncoderSettings {
            tokenizer_path,
            tokenizer,
            max_tokens,
            batch_tokens,
        }) => Some(
            Encoder::new(&session, &tokenizer, max_tokens, batch_tokens).map_err(|reason| {
                let at_fault = if reason.starts_with("tokenizer") {
                    tokenizer_path
                } else {
                    settings.path.clone()
                };
                Error::BadModelFile { path: at_fault, reason }
            })?,
        ),
    };
    let mut worker = SessionWorker {
        settings,
        session,
        encoder,
    };
    worker.warm_up()?;
    ready.loaded();
    while let Ok(job) = jobs.recv() {
        worker.serve(job);
    }
    Ok(())
}

struct SessionWorker {
    settings: Settings,
    session: Session,
    encoder: Option<Encoder>,
}

impl SessionWorker {
    /// A plain graph is not warmed up: what it eats is not known.
    fn warm_up(&mut self) -> Result<(), Error> {
        if self.encoder.is_none() {
            return Ok(());
        }
        let options = RunOptions::new().map_err(graph::native)?;
        let (embedded, _) = self.embed(&[WARM_UP.to_owned()], &CallContext::default(), &options)?;
        if let Some(first) = embedded.first() {
            let _ = self.settings.dimensions.set(first.vector.len());
        }
        Ok(())
    }

    fn serve(&mut self, job: Job) {
        let Job {
            work,
            call,
            options,
            queued,
        } = job;
        let name = self.settings.id.name.clone();
        metrics::QUEUE_WAIT
            .with_label_values(&[name.as_str()])
            .observe(queued.elapsed().as_secs_f64());
        let begun = Instant::now();
        let outcome = match work {
            Work::Embed { texts, reply } => {
                let result = self.embed(&texts, &call, &options).map(|(embedded, tokens)| {
                    metrics::TOKENS
                        .with_label_values(&[name.as_str(), "input"])
                        .inc_by(tokens as u64);
                    embedded
                });
                let outcome = outcome(&result);
                // A caller that left has nobody to tell.
                let _ = reply.send(result);
                outcome
            }
            Work::Run { inputs, reply } => {
                let result = self.run_graph(inputs, &call, &options);
                let outcome = outcome(&result);
                let _ = reply.send(result);
                outcome
            }
        };
        metrics::RUN
            .with_label_values(&[name.as_str()])
            .observe(begun.elapsed().as_secs_f64());
        metrics::CALLS
            .with_label_values(&[name.as_str(), call.owner.as_str(), outcome])
            .inc();
    }

    fn embed(
        &mut self,
        texts: &[String],
        call: &CallContext,
        options: &RunOptions,
    ) -> Result<(Vec<Embedded>, usize), Error> {
        let Some(encoder) = &self.encoder else {
            return Err(Error::Native("a graph was asked to embed".to_owned()));
        };
        let settings = &self.settings;
        encoder.embed(&mut self.session, texts, options, |work| {
            check(settings, call)?;
            let _permit = settings.permits.acquire();
            check(settings, call)?;
            // A run that was told to terminate fails; why is the caller's state.
            call.metered(settings.threads, work)
                .or_else(|error| check(settings, call).and(Err(error)))
        })
    }

    fn run_graph(
        &mut self,
        inputs: Vec<(String, Tensor)>,
        call: &CallContext,
        options: &RunOptions,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        check(&self.settings, call)?;
        let _permit = self.settings.permits.acquire();
        check(&self.settings, call)?;
        let Settings {
            threads, tensor_bytes, ..
        } = self.settings;
        call.metered(threads, || graph::run(&mut self.session, inputs, options, tensor_bytes))
            .or_else(|error| check(&self.settings, call).and(Err(error)))
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

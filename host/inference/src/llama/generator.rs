//! What a generator is made of, and how it starts.

use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc as channel, oneshot};
use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::chat_prompt::ChatPrompt;
use super::completion::{Event, GenerationRequest};
use super::cpu_variant;
use super::gguf_header;
use super::native::{self, Context, Model, Shape};
use super::prefix_cache::{PrefixBounds, PrefixCache};
use crate::call::CallContext;
use crate::error::Error;
use crate::limits;
use crate::model::ModelId;
use crate::permits::Permits;
use crate::worker::{Ready, Worker};

const WARM_UP: &str = "Hello";

pub(crate) struct Settings {
    pub(crate) id: ModelId,
    pub(crate) path: PathBuf,
    /// Tokens of one generation, prompt and output.
    pub(crate) context_tokens: u32,
    /// Generations whose state is in place at the same time.
    pub(crate) prefix_slots: u32,
    /// Threads of one step.
    pub(crate) threads: usize,
    pub(crate) queue: usize,
    pub(crate) prefixes: PrefixBounds,
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

/// Checks the file, loads the model on a thread of its own and warms it up. Stopping the worker frees
/// all that the model took.
pub(crate) fn start(settings: Settings) -> Result<Worker<Job>, Error> {
    gguf_header::check(&settings.path)?;
    let (name, queue) = (settings.id.name.clone(), settings.queue);
    let waiting = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&waiting);
    Worker::start_counting(&name, queue, waiting, move |ready, jobs| {
        run(&settings, counter, ready, jobs)
    })
}

fn run(settings: &Settings, waiting: Arc<AtomicUsize>, ready: Ready, jobs: &Receiver<Job>) -> Result<(), Error> {
    let bad = |reason: String| Error::BadModelFile {
        path: settings.path.clone(),
        reason,
    };
    let model = Model::load(&settings.path).map_err(bad)?;
    let shape = Shape {
        context_tokens: settings.context_tokens,
        sequences: settings.prefix_slots,
        batch_tokens: u32::try_from(limits::PROMPT_BATCH_TOKENS).unwrap_or(u32::MAX),
        threads: u32::try_from(settings.threads).unwrap_or(1),
    };
    let context = Context::new(&model, shape).map_err(bad)?;
    let chat = ChatPrompt::load(&model).map_err(bad)?;
    let key = format!(
        "{} {} {} {} {}",
        settings.id.sha256,
        native::version(),
        // Another variant rounds otherwise: what follows from a kept state would not be what follows from the text.
        cpu_variant::selected_name(),
        settings.context_tokens,
        settings.prefix_slots
    );
    let prefixes = PrefixCache::open(settings.prefixes.clone(), &key);
    tracing::info!(
        model = settings.id.name,
        threads = settings.threads,
        sequences = settings.prefix_slots,
        context_tokens = settings.context_tokens,
        "generator starts"
    );
    let mut actor = Actor::new(settings, &model, context, chat, prefixes, waiting);
    warm_up(&mut actor)?;
    ready.loaded();
    actor.run(jobs);
    Ok(())
}

/// Generates one token, so that the first caller does not pay for what is touched first.
fn warm_up(actor: &mut Actor<'_>) -> Result<(), Error> {
    let (events, mut chunks) = channel::unbounded_channel();
    let (started, mut answer) = oneshot::channel();
    let (sender, jobs) = mpsc::channel();
    let job = Job {
        request: GenerationRequest {
            prompt: WARM_UP.to_owned(),
            max_tokens: 1,
            ..GenerationRequest::default()
        },
        call: CallContext::default(),
        events,
        started,
        queued: Instant::now(),
    };
    actor.expect_one();
    let died = |_| Error::Native("the generator did not answer its warm-up".to_owned());
    sender.send(job).map_err(|_| died(()))?;
    drop(sender);
    actor.run(&jobs);
    answer.try_recv().map_err(|_| died(()))??;
    while let Ok(event) = chunks.try_recv() {
        if let Event::End(outcome) = event {
            return outcome.map(|_| ());
        }
    }
    Err(died(()))
}

//! What the scheduler asks of whoever knows what a task does.

use crate::budget::Budget;
use async_trait::async_trait;
use formwork_store::{Claimed, NewProgress, Provenance, TaskResult};
use formwork_tasks::{Pool, RetryRules, TimeLimits};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Runs tasks. Called on a thread of the task's pool, never on the caller's runtime; that thread's runtime has time,
/// but no I/O driver.
///
/// A run must come back soon after its token is cancelled. One that does not is dropped after a grace, so nothing it
/// awaits may rely on being polled to the end. A panic is a failed run with the code `panic`. No tracing span is entered:
/// what its log lines carry is the runner's own choice.
#[async_trait]
pub trait TaskRunner: Send + Sync + 'static {
    /// Runs one task.
    async fn run(&self, task: Claimed, context: RunContext) -> RunOutcome;

    /// What the task's step says about its own retries and time. Asked before the run, on the same thread.
    async fn rules(&self, _task: &Claimed) -> StepRules {
        StepRules::default()
    }
}

/// What a step says about itself; where it says nothing, its pool's options hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRules {
    /// When failed runs are tried again.
    pub retry: RetryRules,
    /// How long a run may take.
    pub limits: TimeLimits,
}

/// The circumstances of a run.
#[derive(Clone, Debug)]
pub struct RunContext {
    /// Cancelled when the run shall stop: on request, because its lease is lost, at its deadline, or at a drain.
    pub cancel: CancellationToken,
    /// The pool it runs in.
    pub pool: Pool,
    /// The worker that claimed it; random per start.
    pub worker: String,
    /// The hard time limit, counted from the start of the run. A runner that has no answer by then is stopped.
    pub deadline: Instant,
    /// The soft one: from then on inference is refused, so that an answer without it can still be made.
    pub soft_deadline: Instant,
    /// The pool's CPU account: to be asked before long computations, and charged with what other threads use for the run.
    pub budget: Budget,
    /// Takes how far the run is.
    pub progress: ProgressReporter,
}

/// Tells how far a run is: the latest word goes along with a heartbeat, so it may be said as often as one likes.
#[derive(Clone)]
pub struct ProgressReporter(Arc<dyn Fn(NewProgress) + Send + Sync>);

impl ProgressReporter {
    pub(crate) fn new(tell: impl Fn(NewProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Replaces what was said before. Does not block.
    pub fn report(&self, progress: NewProgress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for ProgressReporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProgressReporter")
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum RunOutcome {
    /// It has a result to record.
    Done(TaskResult),
    /// It failed.
    Failed {
        /// A stable code.
        code: String,
        /// For people.
        message: String,
        /// Whether trying again may help; if not, the task goes to the dead-letter queue.
        retryable: bool,
        /// What the failing side asked for; the next attempt does not come earlier.
        retry_after: Option<Duration>,
        /// What ran, if it came so far.
        provenance: Option<Provenance>,
        /// CPU time of the run, in milliseconds.
        cpu_ms: Option<f64>,
    },
    /// It stopped because its token was cancelled.
    Cancelled,
}

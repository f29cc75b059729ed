//! One call: a fresh store, its limits, and how it ends.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use wasmtime::{Store, Trap, UpdateDeadline};

use crate::clock::CpuTimed;
use crate::config::GUEST_STACK_BYTES;
use crate::meter::Meter;
use crate::metrics::epoch_yields;
use crate::output::BoundedOutput;
use crate::state::State;
use crate::turns;
use crate::{CallError, CpuBudget, Limit, ModelId, Priority, Usage};

/// A form version as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormInput {
    /// Its identifier.
    pub id: String,
    /// Its version, from 1.
    pub version: u32,
    /// The JSON Schema of its data, JSON text.
    pub schema: String,
    /// Further schemas: (URI, JSON text).
    pub schemas: Vec<(String, String)>,
}

/// A submission as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionInput {
    /// Its identifier.
    pub id: String,
    /// When it was accepted, RFC 3339.
    pub submitted_at: String,
    /// The answers, JSON text.
    pub data: String,
    /// (step, output as JSON text) of the steps before, in pipeline order.
    pub results: Vec<(String, String)>,
}

/// How far a call has come, in the plugin's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressUpdate {
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// For a person.
    pub message: String,
}

/// Gets the progress of a call. It runs on the guest's thread and must not block.
pub type ProgressSink = Arc<dyn Fn(ProgressUpdate) + Send + Sync>;

/// Who calls, until when, and how to stop it.
#[derive(Clone, Default)]
pub struct CallContext {
    /// Stops a running guest within an epoch, a running generation within a token.
    pub cancel: CancellationToken,
    /// The caller's deadline; the plugin's wall-time limit holds besides.
    pub deadline: Option<Instant>,
    /// From here on inference answers `deadline-exceeded`, what is under way too, so that the plugin still has time to
    /// answer without; nothing: inference may take until the deadline.
    pub soft_deadline: Option<Instant>,
    /// Whose turn comes first when several calls want one model.
    pub priority: Priority,
    /// The pool that calls: a metrics label.
    pub owner: String,
    /// Whose CPU this is: a guest whose budget is overdrawn is parked at the end of an epoch until there is credit
    /// again, inference waits likewise. A parked guest uses up neither CPU time nor its plugin's wall time.
    pub budget: Option<Arc<dyn CpuBudget>>,
    /// The form that the call is made for: a metrics label of its inference.
    pub form: Option<Arc<str>>,
    /// Stands in the plugin's log lines.
    pub correlation_id: String,
    /// Gets the plugin's progress.
    pub progress: Option<ProgressSink>,
}

/// How a call ended and what it took.
#[derive(Debug, Clone)]
pub struct Report<T> {
    /// The answer.
    pub result: Result<T, CallError>,
    /// What it took, also when it failed.
    pub usage: Usage,
    /// The models that answered it.
    pub models: Vec<ModelId>,
    /// The stable code of the last inference error the plugin got, such as `busy` or `unknown-model`: what lies behind an
    /// answer of `unavailable`.
    pub inference_error: Option<&'static str>,
}

impl<T> Report<T> {
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Report<U> {
        Report {
            result: self.result.map(map),
            usage: self.usage,
            models: self.models,
            inference_error: self.inference_error,
        }
    }
}

/// The answer of a work function.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The output as it is recorded and shown.
    pub json: serde_json::Value,
    /// A validator found an error.
    pub rejected: bool,
    /// What an exporter wrote.
    pub export: Option<Vec<u8>>,
}

/// The two ends of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// What stands before the first record.
    Begin,
    /// What stands after the last one.
    End,
}

/// Why a guest was stopped from within.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("deadline")]
    Deadline,
}

/// Makes the store of a call and arms its limits.
pub(crate) fn store(engine: &wasmtime::Engine, state: State, deadline: Option<Instant>) -> Store<State> {
    let lift = state.meter.limits.output_bytes.max(state.meter.limits.host_call_bytes);
    let max_handles = state.meter.limits.max_handles();
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_max_component_handles(max_handles);
    // Bounds what one lift may allocate on the host: answers and arguments alike.
    store.set_hostcall_fuel(usize::try_from(lift).unwrap_or(usize::MAX));
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |store| {
        let State {
            meter, inference_call, ..
        } = store.data();
        if inference_call.cancel.is_cancelled() {
            return Err(Stop::Cancelled.into());
        }
        let cpu_ms = meter.cpu.running_ns() / 1_000_000;
        if cpu_ms > meter.limits.cpu_ms {
            return Err(meter.exceed(Limit::CpuMs, meter.limits.cpu_ms, cpu_ms).into());
        }
        let now = Instant::now();
        if now > meter.wall_limit() {
            return Err(exceed_wall(meter, now).into());
        }
        if deadline.is_some_and(|deadline| now > deadline) {
            return Err(Stop::Deadline.into());
        }
        epoch_yields(&inference_call.owner);
        if let Some(budget) = inference_call.budget.as_ref()
            && budget.overdrawn().is_some()
        {
            let turn = Arc::clone(meter).queue(budget.park());
            return Ok(UpdateDeadline::YieldCustom(1, Box::pin(turn)));
        }
        let turn = Arc::clone(meter).queue(turns::next(inference_call.cancel.clone()));
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(turn)))
    });
    store
}

fn exceed_wall(meter: &Meter, now: Instant) -> CallError {
    let over = now.saturating_duration_since(meter.wall_limit());
    let used = meter.limits.wall_ms + u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
    meter.exceed(Limit::WallMs, meter.limits.wall_ms, used.max(meter.limits.wall_ms + 1))
}

/// Runs `work` to its end, or until it is cancelled or late. Dropping the work drops its store: the guest is gone.
pub(crate) async fn drive<T>(
    meter: &Arc<Meter>,
    context: &CallContext,
    stdio: &BoundedOutput,
    work: impl Future<Output = wasmtime::Result<Result<T, CallError>>>,
) -> Report<T> {
    let work = CpuTimed::new(Arc::clone(&meter.cpu), work);
    let result = tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(CallError::Cancelled),
        ended = work => match ended {
            Ok(answer) => answer,
            Err(error) => Err(classify(meter, stdio, &error)),
        },
        error = late(meter, context.deadline) => Err(error),
    };
    Report {
        result,
        usage: meter.usage(),
        models: meter.models(),
        inference_error: meter.inference_error(),
    }
}

/// Resolves when the call has taken too long.
async fn late(meter: &Meter, deadline: Option<Instant>) -> CallError {
    loop {
        let wall_limit = meter.wall_limit();
        let until = deadline.map_or(wall_limit, |deadline| deadline.min(wall_limit));
        tokio::time::sleep_until(until.into()).await;
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return CallError::DeadlineExceeded;
        }
        // Later than it was if the guest has waited for its turn meanwhile.
        if now >= meter.wall_limit() {
            return exceed_wall(meter, now);
        }
    }
}

/// What ended a call from within.
fn classify(meter: &Meter, stdio: &BoundedOutput, error: &wasmtime::Error) -> CallError {
    match error.downcast_ref::<Stop>() {
        Some(Stop::Cancelled) => return CallError::Cancelled,
        Some(Stop::Deadline) => return CallError::DeadlineExceeded,
        None => {}
    }
    if let Some(limit) = error.downcast_ref::<CallError>() {
        return limit.clone();
    }
    // A guest whose memory may not grow aborts: the limit is the cause, the trap only how it shows.
    if let Some(exceeded) = meter.exceeded() {
        return CallError::Limit(exceeded.clone());
    }
    let text = format!("{error:#}");
    if text.contains("too much data was transferred") || text.contains("fuel allocated for hostcalls") {
        return meter.exceed(
            Limit::OutputBytes,
            meter.limits.output_bytes,
            meter.limits.output_bytes + 1,
        );
    }
    if text.contains("handle") && text.contains("limit") || text.contains("no free keys") {
        return meter.exceed(Limit::Handles, meter.limits.handles, meter.limits.handles + 1);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => CallError::Limit(crate::LimitExceeded {
            limit: Limit::Stack,
            value: GUEST_STACK_BYTES as u64,
            used: GUEST_STACK_BYTES as u64 + 1,
        }),
        Some(trap) => {
            let printed = stdio.text();
            let detail = if printed.is_empty() { trap.to_string() } else { printed };
            CallError::Trap(detail)
        }
        None if text.contains("pooling") || text.contains("maximum concurrent") => CallError::Host(text),
        None => CallError::Trap(error.root_cause().to_string()),
    }
}

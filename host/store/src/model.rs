//! What goes into a store and what comes out.
//!
//! JSON documents are carried as text: the store never looks into them. Times are [`Millis`].

use crate::{SubmissionId, TaskId};
use formwork_tasks::{
    DeadReason, Disposition, Millis, Pool, Priority, RunLease, State, Step, SubmissionStatus, Verdict,
};
use serde::{Deserialize, Serialize};

// === Forms ===

/// A form definition to publish.
#[derive(Clone, Debug)]
pub struct NewForm {
    /// The form's name in URLs.
    pub id: String,
    /// The definition as JSON text.
    pub definition: String,
    /// The digest that decides whether the definition is new, for example `sha256:…` of its canonical text.
    pub digest: String,
    /// The order of its steps, already extracted from the definition; the store plans by it.
    pub steps: Vec<Step>,
}

/// What became of a published form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutForm {
    /// It is a new version, numbered from 1.
    Created(u32),
    /// Its digest is that of the latest version, this one.
    Unchanged(u32),
}

/// One immutable version of a form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormVersion {
    /// The form's name.
    pub id: String,
    /// Its version, from 1.
    pub version: u32,
    /// The definition as JSON text, as published.
    pub definition: String,
    /// The digest it was published with.
    pub digest: String,
    /// The order of its steps.
    pub steps: Vec<Step>,
    /// When it was published.
    pub created_at: Millis,
}

/// A form version without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormSummary {
    /// The form's name.
    pub id: String,
    /// Its version; the latest one where forms are listed.
    pub version: u32,
    /// The digest it was published with.
    pub digest: String,
    /// When it was published.
    pub created_at: Millis,
}

// === Submissions ===

/// The client's key that makes a submission safe to repeat.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The key, unique per form.
    pub key: String,
    /// A digest of the request; another request under the same key is an error of the client.
    pub fingerprint: String,
}

/// A submission to record. Its first tasks are planned by the store from the form version's steps.
#[derive(Clone, Debug)]
pub struct NewSubmission {
    /// Its identifier, made by the caller.
    pub id: SubmissionId,
    /// The form.
    pub form: String,
    /// The version it is pinned to.
    pub form_version: u32,
    /// The answers as JSON text.
    pub data: String,
    /// Follows the request into its tasks and their log lines.
    pub correlation_id: String,
    /// The client's key, if it sent one.
    pub idempotency: Option<Idempotency>,
    /// Replaces the priority of every step, if given.
    pub priority: Option<Priority>,
}

/// What became of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submit {
    /// It is recorded with its first tasks.
    Created,
    /// The same request was recorded before under this key, as this submission; nothing was recorded now.
    Replayed {
        /// The submission of the first request.
        id: SubmissionId,
    },
    /// The key was used before with another request; nothing was recorded.
    KeyReused {
        /// The submission of the first request.
        id: SubmissionId,
    },
}

/// A submission without its data and tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubmissionSummary {
    /// Its identifier.
    pub id: SubmissionId,
    /// The form.
    pub form: String,
    /// The version it is pinned to.
    pub form_version: u32,
    /// Where it is.
    pub status: SubmissionStatus,
    /// Follows the request into its tasks.
    pub correlation_id: String,
    /// When it was recorded.
    pub submitted_at: Millis,
    /// When it reached a final status (again, after an operator's retry).
    pub settled_at: Option<Millis>,
}

/// A submission with everything known about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SubmissionView {
    /// All but data and tasks.
    #[serde(flatten)]
    pub summary: SubmissionSummary,
    /// The answers as JSON text.
    pub data: String,
    /// Its tasks in pipeline order; steps that were not reached have none.
    pub tasks: Vec<TaskView>,
}

// === Tasks ===

/// The plugin that produced something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The digest of its component file.
    pub digest: String,
}

/// A model that helped to produce something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The sha256 of its file, in hex.
    pub sha256: String,
}

/// Where a result comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The plugin that ran.
    pub plugin: PluginRef,
    /// The models it used.
    pub models: Vec<ModelRef>,
}

/// A task without its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskSummary {
    /// Its identifier.
    pub id: TaskId,
    /// Its submission.
    pub submission: SubmissionId,
    /// The form.
    pub form: String,
    /// The form's version.
    pub form_version: u32,
    /// The name of the step it runs.
    pub step: String,
    /// The pool it waits in.
    pub pool: Pool,
    /// Its place inside the pool.
    pub priority: Priority,
    /// Where it is.
    pub state: State,
    /// The fence of its latest run.
    pub run_lease: RunLease,
    /// Runs started and not given back, since the last operator's retry.
    pub attempts: u32,
    /// Runs that ended with an error.
    pub errors: u32,
    /// Runs whose worker vanished.
    pub crashes: u32,
    /// A cancel waits for its worker.
    pub cancel_requested: bool,
    /// When it may run (again).
    pub run_at: Millis,
    /// When its lease ends, while running.
    pub lease_until: Option<Millis>,
    /// Who runs it, or ran it last.
    pub worker: Option<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When its latest run started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub finished_at: Option<Millis>,
    /// The latest error, also of a run that is tried again.
    pub error: Option<TaskError>,
    /// Why it is dead.
    pub dead_reason: Option<DeadReason>,
}

/// A task with its output.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskView {
    /// All but the output.
    #[serde(flatten)]
    pub summary: TaskSummary,
    /// CPU time of its latest recorded run, in milliseconds.
    pub cpu_ms: Option<f64>,
    /// What ran, once a run was recorded.
    pub provenance: Option<Provenance>,
    /// What it produced, once completed.
    pub result: Option<TaskOutput>,
    /// How far it is, while it runs and if it said so.
    pub progress: Option<TaskProgress>,
}

/// What a completed task produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskOutput {
    /// The output as JSON text.
    pub output: String,
    /// What it says about the submission.
    pub verdict: Verdict,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskError {
    /// A stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Everything a worker needs to run a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The task.
    pub id: TaskId,
    /// The fence of this run; every later call about it carries it.
    pub run_lease: RunLease,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How often a worker vanished with it before.
    pub crashes: u32,
    /// The step's name.
    pub step: String,
    /// The form.
    pub form: String,
    /// The form's version.
    pub form_version: u32,
    /// The answers as JSON text.
    pub data: String,
    /// When the submission was recorded.
    pub submitted_at: Millis,
    /// When the task became runnable; the time since then is its wait.
    pub run_at: Millis,
    /// The correlation id of the request.
    pub correlation_id: String,
    /// Outputs of the steps that completed before, in pipeline order.
    pub outputs: Vec<StepOutput>,
}

/// The output of a step that completed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepOutput {
    /// The step's name.
    pub step: String,
    /// Its output as JSON text.
    pub output: String,
    /// What it said about the submission.
    pub verdict: Verdict,
    /// What produced it.
    pub provenance: Provenance,
}

/// A successful run to record. Next tasks and the submission's status follow from it in the store.
#[derive(Clone, Debug)]
pub struct TaskResult {
    /// The output as JSON text.
    pub output: String,
    /// `Rejected` when a validator reports errors.
    pub verdict: Verdict,
    /// What ran.
    pub provenance: Provenance,
    /// CPU time of the run, in milliseconds.
    pub cpu_ms: f64,
    /// Bytes for the export of this step, if it exports.
    pub export: Option<ExportChunk>,
}

/// Bytes one export task produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportChunk {
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A failed (or cancelled) run to record.
#[derive(Clone, Debug)]
pub struct Failure {
    /// A stable code.
    pub code: String,
    /// For people; cut to [`crate::limits::ERROR_MESSAGE_BYTES`].
    pub message: String,
    /// What shall become of the task; see `RetryPolicy::after_failure`.
    pub disposition: Disposition,
    /// What ran, if it came so far.
    pub provenance: Option<Provenance>,
    /// CPU time of the run, in milliseconds.
    pub cpu_ms: Option<f64>,
}

/// Whether a worker's word about a run was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// It was, exactly once.
    Recorded,
    /// The run lease is not the current one (or the task has ended): nothing was recorded, drop the result.
    Stale,
}

/// One run's part of a heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// The task.
    pub task: TaskId,
    /// The lease the worker holds.
    pub run_lease: RunLease,
    /// How far it is, if it said so since the beat before; it costs no write of its own.
    pub progress: Option<NewProgress>,
}

impl Beat {
    /// A run that is alive and has nothing to tell.
    #[must_use]
    pub const fn new(task: TaskId, run_lease: RunLease) -> Self {
        Self {
            task,
            run_lease,
            progress: None,
        }
    }
}

/// How far a run says it is. State, not history: the next one replaces it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewProgress {
    /// From 0 to 1; what is outside, or no number, counts as unknown.
    pub fraction: Option<f64>,
    /// For people; cut to [`crate::limits::PROGRESS_MESSAGE_BYTES`].
    pub message: String,
}

/// How far the current run of a task is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskProgress {
    /// From 0 to 1, if known.
    pub fraction: Option<f64>,
    /// For people.
    pub message: String,
    /// When it said so.
    pub at: Millis,
}

/// What a heartbeat tells a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Runs that are no longer the worker's; stop them, their results would be stale.
    pub lost: Vec<TaskId>,
    /// Runs somebody wants stopped; stop them and report `Disposition::Cancelled`.
    pub cancel: Vec<TaskId>,
    /// Runs that are still the worker's, but could not be prolonged now (something else has the task locked): their leases
    /// end when they would have ended. Send another heartbeat.
    pub missed: Vec<TaskId>,
}

/// A task whose lease had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// The task.
    pub id: TaskId,
    /// The pool it waits in.
    pub pool: Pool,
    /// What became of it.
    pub outcome: ReapedAs,
}

/// What became of a task whose lease had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReapedAs {
    /// Another worker may take it.
    Recovered,
    /// Its workers vanished too often; it is dead with the reason `crashed`.
    Dead,
    /// A cancel had been requested.
    Cancelled,
}

/// What became of a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not started and never will.
    Cancelled,
    /// It is running; its worker has been told.
    Requested,
    /// It had ended before, in this state.
    AlreadyFinished(State),
}

/// What became of an operator's request to run a task again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It is available, with its counters at zero.
    Retried,
    /// Its state (this one) does not allow it.
    Refused(State),
}

/// One line of a task's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskEvent {
    /// Its number within the task, from 1 without gaps.
    pub sequence: u32,
    /// When.
    pub at: Millis,
    /// Who: `pipeline`, `worker:NAME`, `reaper` or `operator`.
    pub who: String,
    /// The state before; `None` when the task was made.
    pub from: Option<State>,
    /// The state after.
    pub to: State,
    /// The fence at that time.
    pub run_lease: RunLease,
    /// Why: a stable code, followed by `: ` and the error code where there is one.
    pub why: String,
}

/// Which tasks to list; everything given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only this state.
    pub state: Option<State>,
    /// Only this pool.
    pub pool: Option<Pool>,
    /// Only this form.
    pub form: Option<String>,
    /// Only this step name.
    pub step: Option<String>,
    /// Only this submission.
    pub submission: Option<SubmissionId>,
    /// Only dead for this reason.
    pub dead_reason: Option<DeadReason>,
    /// Only with this code as the latest error.
    pub error_code: Option<String>,
    /// Only ended at this time or later.
    pub finished_from: Option<Millis>,
    /// Only ended before this time.
    pub finished_until: Option<Millis>,
}

/// What one slice of a bulk redrive did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Dead tasks that are available again, with their counters at zero.
    pub count: u32,
    /// Whether more dead tasks match.
    pub more: bool,
}

/// How long settled submissions are kept, counted from when they settled. `None`: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those that have an answer: done or rejected, and no dead task.
    pub results_ms: Option<u64>,
    /// Those that somebody may want to look into or run again: failed, or with a dead task.
    pub failed_ms: Option<u64>,
}

impl Retention {
    /// Whether a submission that settled at `settled_at` has been kept long enough.
    #[must_use]
    pub fn has_passed(&self, settled_at: Millis, failed: bool, now: Millis) -> bool {
        let kept = if failed { self.failed_ms } else { self.results_ms };
        kept.is_some_and(|kept| now.since(settled_at) >= kept)
    }
}

/// What one slice of a retention sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Submissions that are gone, with their tasks, history and idempotency keys.
    pub submissions: u32,
    /// Where the next slice begins; `None` when the sweep is through.
    pub next: Option<SubmissionId>,
}

// === Pools ===

/// What an operator has set for a pool, on every node and over restarts; what is `None` is as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PoolControl {
    /// No node claims for this pool.
    pub paused: bool,
    /// CPUs the pool may use on each node.
    pub cpus: Option<f64>,
    /// Whether it may use more while nobody else wants it.
    pub burst: Option<bool>,
    /// Tasks it may have claimed at once on each node.
    pub permits: Option<u32>,
}

/// What an operator changes about a pool. `None` leaves a value, `Some(None)` puts it back to what is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PoolControlChange {
    /// Pause or resume.
    pub paused: Option<bool>,
    /// CPUs the pool may use on each node.
    pub cpus: Option<Option<f64>>,
    /// Whether it may use more while nobody else wants it.
    pub burst: Option<Option<bool>>,
    /// Tasks it may have claimed at once on each node.
    pub permits: Option<Option<u32>>,
}

impl PoolControlChange {
    /// The control after this change.
    #[must_use]
    pub fn applied_to(&self, before: PoolControl) -> PoolControl {
        PoolControl {
            paused: self.paused.unwrap_or(before.paused),
            cpus: self.cpus.unwrap_or(before.cpus),
            burst: self.burst.unwrap_or(before.burst),
            permits: self.permits.unwrap_or(before.permits),
        }
    }
}

/// The load of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// The pool.
    pub pool: Pool,
    /// Tasks waiting for a worker.
    pub available: u64,
    /// Tasks being run.
    pub running: u64,
    /// Tasks waiting for their next attempt.
    pub retryable: u64,
    /// Tasks completed, ever; also those that retention has deleted since.
    pub completed: u64,
    /// Tasks cancelled, not retried and still kept.
    pub cancelled: u64,
    /// Tasks in the dead-letter queue.
    pub dead: u64,
    /// How long the longest waiting available task has been waiting, in milliseconds.
    pub oldest_available_ms: Option<u64>,
}

/// One recorded export chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportRow {
    /// Rises with every chunk of the same form version and step; not without gaps.
    pub sequence: u64,
    /// The submission it is from; one chunk per submission and step.
    pub submission: SubmissionId,
    /// The bytes.
    pub bytes: Vec<u8>,
}

// === Plugins ===

/// A plugin's component to keep.
#[derive(Clone, Debug)]
pub struct NewPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The digest of the component.
    pub digest: String,
    /// The component file's bytes; tens of megabytes at most.
    pub component: Vec<u8>,
}

/// What became of a plugin to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutPlugin {
    /// It is kept now.
    Created,
    /// The same component was kept before.
    Unchanged,
    /// Another component has this name and version; nothing was kept.
    VersionTaken {
        /// The digest of that one.
        digest: String,
    },
}

/// A kept plugin without its component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPlugin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The digest of its component.
    pub digest: String,
    /// Bytes of its component.
    pub bytes: u64,
    /// When it was pushed.
    pub created_at: Millis,
}

// === Paging ===

/// Which part of a list to return.
#[derive(Clone, Debug)]
pub struct Page {
    /// Items at most; cut to [`crate::limits::PAGE_ITEMS`], at least 1.
    pub limit: u32,
    /// Where the page before ended: its [`Paged::next`].
    pub after: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            limit: crate::limits::PAGE_ITEMS_DEFAULT,
            after: None,
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

// === Events ===

/// Something that happened, told after its commit. A hint, never the truth: it may be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreEvent {
    /// At least one task became available in this pool.
    TasksAvailable {
        /// The pool.
        pool: Pool,
    },
    /// A submission reached a final status.
    SubmissionSettled {
        /// The submission.
        id: SubmissionId,
    },
    /// A task that there was before moved to another state, or said how far it is.
    TaskChanged {
        /// The task.
        task: TaskId,
    },
    /// Somebody wants a running task stopped.
    CancelRequested {
        /// The task.
        task: TaskId,
    },
    /// An operator changed the control of a pool; [`crate::Store::pool_controls`] has them.
    ControlsChanged,
    /// A plugin was pushed; [`crate::Store::plugins`] has it.
    PluginsChanged,
}

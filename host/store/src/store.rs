//! The one seam between the product and its databases.

use crate::{
    Beat, Cancel, Claimed, Expired, ExportRow, Failure, FormSummary, FormVersion, HeartbeatReply, NewForm, NewPlugin,
    NewSubmission, Page, Paged, PoolControl, PoolControlChange, PoolStats, PutForm, PutPlugin, Reaped, Record,
    Redriven, Result, Retention, Retry, StoreEvent, StoredPlugin, SubmissionId, SubmissionSummary, SubmissionView,
    Submit, TaskEvent, TaskFilter, TaskId, TaskResult, TaskSummary, TaskView,
};
use async_trait::async_trait;
use formwork_tasks::{Millis, Pool, RunLease};
use tokio::sync::broadcast;

/// Forms, submissions and tasks, kept durably.
///
/// - A method that changes something returns `Ok` only after the change is as durable as the store's class
///   says; class `sync` means fsynced.
/// - Each method is one transaction: it happens as a whole or not at all.
/// - `now` is the caller's clock and stamps what is recorded. A backend for many nodes decides leases and
///   due times by its own server's clock instead, so that clocks of nodes need not agree.
/// - Dropping a future does not undo its change. In particular a dropped [`Store::claim`] may leave tasks
///   leased that nobody runs; they come back when the lease ends, counted as a crash.
///
/// - After `Error::Unavailable`, or when no answer came, a call may have happened: repeat it. What a call does that
///   happens twice is said under *Repeated* at each method that changes something; reads may always be repeated.
///
/// Errors common to all methods are `Error::{Fatal, Full, Unavailable, Closed, Backend}`; others are named at the method.
#[async_trait]
pub trait Store: Send + Sync {
    // --- forms ---

    /// Publishes a form definition as a new version, unless its digest is that of the latest one.
    ///
    /// *Repeated*: `Unchanged`, unless another definition was published between.
    ///
    /// # Errors
    /// `Error::Pipeline` when the steps are no pipeline; `Error::TooLarge` when the definition has more than
    /// `limits::DOCUMENT_BYTES`.
    async fn put_form(&self, form: NewForm, now: Millis) -> Result<PutForm>;

    /// One version of a form, or the latest.
    async fn form(&self, id: &str, version: Option<u32>) -> Result<Option<FormVersion>>;

    /// The latest version of every form, by name.
    ///
    /// # Errors
    /// `Error::Invalid` for a cursor that is not of this list.
    async fn forms(&self, page: Page) -> Result<Paged<FormSummary>>;

    /// Every version of a form, oldest first; empty when there is no such form.
    async fn form_versions(&self, id: &str) -> Result<Vec<FormSummary>>;

    // --- submissions ---

    /// Records a submission and its first tasks.
    ///
    /// *Repeated*: nothing happens twice. With an idempotency key the answer is `Replayed`; without one it is
    /// `Error::DuplicateSubmission` with the same id, which says that it was recorded.
    ///
    /// # Errors
    /// `Error::UnknownForm`; `Error::DuplicateSubmission` when the id (not the key) was used before; `Error::TooLarge` when
    /// the data has more than `limits::DOCUMENT_BYTES`.
    async fn submit(&self, submission: NewSubmission, now: Millis) -> Result<Submit>;

    /// Records many submissions in one transaction; an error records none of them.
    ///
    /// *Repeated*: as [`Store::submit`]; an id that was used makes the whole repetition an error.
    ///
    /// # Errors
    /// As [`Store::submit`].
    async fn submit_many(&self, submissions: Vec<NewSubmission>, now: Millis) -> Result<Vec<Submit>>;

    /// A submission with its tasks.
    async fn submission(&self, id: SubmissionId) -> Result<Option<SubmissionView>>;

    /// Submissions, newest first, of one form or of all.
    ///
    /// # Errors
    /// `Error::Invalid` for a cursor that is not of this list.
    async fn submissions(&self, form: Option<&str>, page: Page) -> Result<Paged<SubmissionSummary>>;

    // --- work ---

    /// Takes up to `limit` tasks of a pool for `lease_ms`: highest priority first, then the one due longest,
    /// then the oldest. Take a permit before you claim: what is claimed must run now.
    ///
    /// *Repeated*: takes further tasks. Those of a call whose answer was lost come back when their lease ends, counted as a
    /// crash: claim again as if nothing had been, and do not repeat at once without bound.
    async fn claim(&self, pool: Pool, worker: &str, limit: u32, lease_ms: u64, now: Millis) -> Result<Vec<Claimed>>;

    /// Prolongs leases to `now + lease_ms`, records the progress that runs bring along, and tells which runs are lost
    /// or shall be cancelled. One call for all runs of a process, not one per run. Progress of a run that is lost is
    /// dropped, and is shown only as long as that run goes on.
    ///
    /// *Repeated*: the same.
    async fn heartbeat(&self, runs: &[Beat], lease_ms: u64, now: Millis) -> Result<HeartbeatReply>;

    /// Records a result, its export chunk, the next tasks and the submission's status.
    ///
    /// *Repeated*: `Stale`, nothing is recorded twice: the first one ended the run that the lease stands for. `Stale` after a
    /// lost answer does not tell whether this result was recorded, only that this run is over.
    ///
    /// # Errors
    /// `Error::TooLarge` when output and chunk together have more than `limits::DOCUMENT_BYTES`: the run goes on, fail it.
    async fn complete(&self, task: TaskId, run_lease: RunLease, result: TaskResult, now: Millis) -> Result<Record>;

    /// Records a failed or cancelled run, and the submission's status. If a cancel was requested the task is
    /// cancelled, whatever the disposition says.
    ///
    /// *Repeated*: `Stale`, as [`Store::complete`].
    async fn fail(&self, task: TaskId, run_lease: RunLease, failure: Failure, now: Millis) -> Result<Record>;

    /// Gives a task back without spending an attempt (graceful drain).
    ///
    /// *Repeated*: `Stale`, as [`Store::complete`].
    async fn release(&self, task: TaskId, run_lease: RunLease, now: Millis) -> Result<Record>;

    /// Settles runs whose lease has ended: available again, dead after `max_crashes` vanished workers, or
    /// cancelled. At most `limits::REAP_TASKS` a call; call again while the answer is that long.
    ///
    /// *Repeated*: settles what has ended since; each run is settled, and answered, once.
    async fn reap(&self, now: Millis, max_crashes: u32) -> Result<Vec<Reaped>>;

    // --- operators ---

    /// Cancels a task that waits, or asks the worker of a running one to stop.
    ///
    /// *Repeated*: `AlreadyFinished(Cancelled)`, or `Requested` again. It also cancels a task that was retried between.
    ///
    /// # Errors
    /// `Error::UnknownTask`.
    async fn cancel(&self, task: TaskId, now: Millis) -> Result<Cancel>;

    /// Makes a dead, cancelled or retryable task available at once, with its counters at zero.
    ///
    /// *Repeated*: `Refused(Available)`. A task that has died again between is retried again.
    ///
    /// # Errors
    /// `Error::UnknownTask`.
    async fn retry(&self, task: TaskId, now: Millis) -> Result<Retry>;

    /// Does to dead tasks that match what [`Store::retry`] does to one, oldest submission first; an empty filter
    /// matches all. At most `limit` of them, and never more than `limits::REDRIVE_TASKS`; call again while there are
    /// more. Give `finished_until`, or tasks that die again meanwhile are redriven again.
    ///
    /// *Repeated*: takes the next ones that match; each task once, unless it has died again between.
    ///
    /// # Errors
    /// `Error::Invalid` when the filter names another state than `dead`.
    async fn redrive(&self, filter: TaskFilter, limit: u32, now: Millis) -> Result<Redriven>;

    /// One task with its output.
    async fn task(&self, id: TaskId) -> Result<Option<TaskView>>;

    /// Tasks, newest submission first.
    ///
    /// # Errors
    /// `Error::Invalid` for a cursor that is not of this list.
    async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Paged<TaskSummary>>;

    /// Everything that happened to a task, oldest first; empty when there is no such task.
    async fn task_history(&self, id: TaskId) -> Result<Vec<TaskEvent>>;

    /// The load of every pool, in the order of `Pool::ALL`.
    async fn pool_stats(&self, now: Millis) -> Result<Vec<PoolStats>>;

    /// What operators have set for the pools, in the order of `Pool::ALL`.
    async fn pool_controls(&self) -> Result<Vec<(Pool, PoolControl)>>;

    /// Changes what is set for a pool; says what is set now. Tells [`StoreEvent::ControlsChanged`], if only on this node:
    /// other nodes look once a second.
    ///
    /// *Repeated*: the same; it undoes what another operator changed between.
    async fn set_pool_control(&self, pool: Pool, change: PoolControlChange, now: Millis) -> Result<PoolControl>;

    /// When the pool's next retry is due, to sleep until then.
    async fn next_due(&self, pool: Pool) -> Result<Option<Millis>>;

    // --- exports ---

    /// Export chunks of one step of one form version with a sequence above `after_sequence` (0: from the
    /// first), at most `limit`, in order.
    async fn export_chunks(
        &self,
        form: &str,
        form_version: u32,
        step: &str,
        after_sequence: u64,
        limit: u32,
    ) -> Result<Vec<ExportRow>>;

    // --- plugins ---

    /// Keeps a plugin's component for every node; a name's version is given once. Tells [`StoreEvent::PluginsChanged`], if
    /// only on this node.
    ///
    /// *Repeated*: `Unchanged`.
    async fn put_plugin(&self, plugin: NewPlugin, now: Millis) -> Result<PutPlugin>;

    /// Every kept plugin, oldest first; they are few.
    async fn plugins(&self) -> Result<Vec<StoredPlugin>>;

    /// The component with this digest, byte for byte.
    async fn plugin_component(&self, digest: &str) -> Result<Option<Vec<u8>>>;

    // --- retention ---

    /// One slice of a sweep over all submissions in the order of their ids, from the one after `after` (`None`: the
    /// first): looks at up to `limits::EXPIRE_SUBMISSIONS` and deletes those that are settled and have been kept long
    /// enough, with data, tasks, history and idempotency keys. What is not settled is never touched, and neither are
    /// exports. May be called by several nodes at once.
    ///
    /// *Repeated*: looks at the slice again; what is gone is not counted again.
    async fn expire(&self, retention: Retention, after: Option<SubmissionId>, now: Millis) -> Result<Expired>;

    /// Deletes the oldest export chunks, as long as their submissions were made `older_than_ms` ago or more; at most
    /// `limits::EXPIRE_EXPORTS`. Says how many; call again while it is that many.
    ///
    /// *Repeated*: deletes the next ones that are old enough.
    async fn expire_exports(&self, older_than_ms: u64, now: Millis) -> Result<u32>;

    // --- the store itself ---

    /// Events after their commit, and before the write that caused them is answered. Events are hints: a receiver that lags (`RecvError::Lagged`) has missed
    /// some and must look at the store itself (claim, read the submission, heartbeat) before it waits again.
    /// Waiters subscribe first, then look, then wait, so that nothing falls between.
    fn subscribe(&self) -> broadcast::Receiver<StoreEvent>;

    /// Proves that the store can record durably now, by doing so.
    async fn ready(&self) -> Result<()>;

    /// Ends, with the reason, when the store has stopped acknowledging for good (`Error::Fatal`): the process should end,
    /// and say so. Never ends on a store that goes on by itself once its database is back.
    async fn failed(&self) -> String {
        std::future::pending().await
    }

    /// Finishes what was accepted, refuses what comes later, gives the files free. May be called twice.
    async fn close(&self);
}

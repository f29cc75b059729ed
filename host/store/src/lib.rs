//! Forms, submissions, tasks and their history, kept until recorded.
//!
//! **Problem.** A submission that was acknowledged must end, whatever crashes; and a second backend must
//! not bring second rules. **Promise.** [`Store`] is one trait over every backend, held to it by one
//! conformance suite: acknowledged means fsynced (class `sync`), execution is at least once, each effect
//! (result, next tasks, export chunk, status) is recorded once, in one transaction guarded by
//! `(task, run_lease)`. **Cost.** Every write waits for a commit; group commit shares one fsync among all
//! that wait. **Rejected.** A general repository layer with small reads and writes composed by callers:
//! it cannot keep a transaction over a network, and leaves the races to the callers.
//!
//! The rules themselves are in `formwork-tasks`; a backend loads, applies, stores.

pub mod cluster;
mod effects;
mod error;
mod id;
pub mod limits;
mod metrics;
mod model;
mod paging;
mod record;
mod sizes;
pub mod sqlite;
mod store;

pub use error::{Error, Result};
pub use id::{InvalidId, SubmissionId, TaskId};
pub use model::{
    Beat, Cancel, Claimed, Expired, ExportChunk, ExportRow, Failure, FormSummary, FormVersion, HeartbeatReply,
    Idempotency, ModelRef, NewForm, NewPlugin, NewProgress, NewSubmission, Page, Paged, PluginRef, PoolControl,
    PoolControlChange, PoolStats, Provenance, PutForm, PutPlugin, Reaped, ReapedAs, Record, Redriven, Retention, Retry,
    StepOutput, StoreEvent, StoredPlugin, SubmissionSummary, SubmissionView, Submit, TaskError, TaskEvent, TaskFilter,
    TaskOutput, TaskProgress, TaskResult, TaskSummary, TaskView,
};
pub use store::Store;

pub use formwork_tasks as tasks;

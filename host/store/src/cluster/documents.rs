//! The documents, and how they become values.
//!
//! A task's key is its submission and its step with five digits, so that keys sort as tasks do: in MongoDB's
//! `_id` index and among equal scores in Redis. Times are 64-bit milliseconds. Wide parts that never change
//! (data, output) are documents of their own: MongoDB writes a changed document as a whole.

use crate::{
    Error, FormSummary, FormVersion, Provenance, Result, SubmissionId, SubmissionSummary, TaskError, TaskEvent, TaskId,
    TaskOutput, TaskProgress, TaskSummary, TaskView, record::TaskRecord,
};
use formwork_tasks::{DeadReason, Lifecycle, Millis, Pool, Priority, RunLease, State, SubmissionStatus, Verdict};
use mongodb::bson::{Binary, Document, doc};
use serde::{Deserialize, Serialize};

/// A task's key.
pub(super) fn task_key(id: TaskId) -> String {
    format!("{}-{:05}", id.submission, id.step)
}

/// A task's key as the task.
pub(super) fn parse_key(key: &str) -> Result<TaskId> {
    let parts = key.split_once('-');
    let id = parts.and_then(|(submission, step)| Some(TaskId::new(submission.parse().ok()?, step.parse().ok()?)));
    id.ok_or_else(|| Error::backend("read task key", format!("not a task key: {key:?}")))
}

/// The keys of all tasks that a submission of so many steps may have.
pub(super) fn step_keys(submission: SubmissionId, steps: usize) -> impl Iterator<Item = String> {
    let steps = 0..u16::try_from(steps).unwrap_or(u16::MAX);
    steps.map(move |step| task_key(TaskId::new(submission, step)))
}

/// The filter for those tasks, or for their runs. Keys that are known are named, not walked through: that is fast in every
/// server's `_id` index.
pub(super) fn steps_of(submission: SubmissionId, steps: usize) -> Document {
    let keys: Vec<String> = step_keys(submission, steps).collect();
    doc! { "_id": { "$in": keys } }
}

/// The filter for a task whose run goes on.
pub(super) fn run_of(task: TaskId, lease: RunLease) -> Document {
    let running = State::Running.as_str();
    doc! { "_id": task_key(task), "state": running, "run_lease": signed(lease.0) }
}

/// The filter for the first lines of a task's history.
pub(super) fn lines_of(task: TaskId, lines: u32) -> Document {
    let keys: Vec<String> = (1..=lines).map(|sequence| line_key(task, sequence)).collect();
    doc! { "_id": { "$in": keys } }
}

/// The filter for all keys that begin with a submission's or a task's.
pub(super) fn keys_of(prefix: &str) -> Document {
    // '.' is the character after '-'.
    doc! { "_id": { "$gt": format!("{prefix}-"), "$lt": format!("{prefix}.") } }
}

/// The key of a line of a task's history.
fn line_key(task: TaskId, sequence: u32) -> String {
    format!("{}-{sequence:010}", task_key(task))
}

fn id<T: std::str::FromStr<Err = crate::InvalidId>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| Error::backend("read id", error))
}

/// Numbers are stored signed; a negative one can only come from elsewhere.
fn number<T: TryFrom<i64>>(value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| Error::backend("read number", format!("{value} is out of range")))
}

#[derive(Serialize, Deserialize)]
pub(super) struct FormDocument {
    #[serde(rename = "_id")]
    pub(super) key: FormKey,
    pub(super) digest: String,
    pub(super) created_at: i64,
    pub(super) steps: String,
    pub(super) definition: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FormKey {
    pub(super) form: String,
    pub(super) version: i64,
}

impl FormDocument {
    pub(super) fn into_version(self) -> Result<FormVersion> {
        Ok(FormVersion {
            id: self.key.form,
            version: number(self.key.version)?,
            definition: self.definition,
            digest: self.digest,
            steps: serde_json::from_str(&self.steps).map_err(|error| Error::backend("read form", error))?,
            created_at: Millis(self.created_at),
        })
    }
}

/// The latest version of a form: what its next publisher competes for.
#[derive(Serialize, Deserialize)]
pub(super) struct HeadDocument {
    #[serde(rename = "_id")]
    pub(super) form: String,
    pub(super) version: i64,
    pub(super) digest: String,
    pub(super) created_at: i64,
}

impl HeadDocument {
    pub(super) fn into_summary(self) -> Result<FormSummary> {
        Ok(FormSummary {
            id: self.form,
            version: number(self.version)?,
            digest: self.digest,
            created_at: Millis(self.created_at),
        })
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SubmissionDocument {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) form: String,
    pub(super) form_version: i64,
    pub(super) status: SubmissionStatus,
    pub(super) priority: Option<i32>,
    pub(super) correlation_id: String,
    pub(super) submitted_at: i64,
    pub(super) settled_at: Option<i64>,
    /// Rises with every settling, so that two transactions that settle one submission meet here.
    pub(super) revision: i64,
}

impl SubmissionDocument {
    pub(super) fn submission(&self) -> Result<SubmissionId> {
        id(&self.id)
    }

    pub(super) fn form_version(&self) -> Result<u32> {
        number(self.form_version)
    }

    pub(super) fn priority(&self) -> Result<Option<Priority>> {
        self.priority.map(|level| priority(level.into())).transpose()
    }

    pub(super) fn into_summary(self) -> Result<SubmissionSummary> {
        Ok(SubmissionSummary {
            id: id(&self.id)?,
            form: self.form,
            form_version: number(self.form_version)?,
            status: self.status,
            correlation_id: self.correlation_id,
            submitted_at: Millis(self.submitted_at),
            settled_at: self.settled_at.map(Millis),
        })
    }
}

fn priority(level: i64) -> Result<Priority> {
    Priority::try_new(number(level)?).map_err(|error| Error::backend("read priority", error))
}

#[derive(Serialize, Deserialize)]
pub(super) struct DataDocument {
    #[serde(rename = "_id")]
    pub(super) submission: String,
    pub(super) data: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct IdempotencyDocument {
    #[serde(rename = "_id")]
    pub(super) key: IdempotencyKey,
    pub(super) fingerprint: String,
    pub(super) submission: String,
    pub(super) created_at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct IdempotencyKey {
    pub(super) form: String,
    pub(super) key: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct TaskDocument {
    #[serde(rename = "_id")]
    pub(super) key: String,
    pub(super) step_name: String,
    pub(super) form: String,
    pub(super) form_version: i64,
    pub(super) pool: Pool,
    pub(super) priority: i32,
    pub(super) state: State,
    pub(super) run_lease: i64,
    pub(super) attempt: i64,
    pub(super) errors: i64,
    pub(super) crashes: i64,
    pub(super) run_at: i64,
    pub(super) lease_until: Option<i64>,
    pub(super) cancel_requested: bool,
    pub(super) verdict: Option<Verdict>,
    pub(super) dead_reason: Option<DeadReason>,
    pub(super) worker: Option<String>,
    pub(super) created_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) error_code: Option<String>,
    pub(super) error_message: Option<String>,
    pub(super) events: i64,
    /// What the run with the lease in it said last.
    #[serde(default)]
    pub(super) progress: Option<ProgressDocument>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ProgressDocument {
    run_lease: i64,
    fraction: Option<f64>,
    message: String,
    at: i64,
}

impl ProgressDocument {
    /// The update that stores what a run says.
    pub(super) fn change(lease: RunLease, progress: TaskProgress) -> Document {
        doc! {
            "run_lease": signed(lease.0),
            "fraction": progress.fraction,
            "message": progress.message,
            "at": progress.at.0,
        }
    }
}

impl TaskDocument {
    /// A task that has just been made.
    pub(super) fn new(task: &TaskRecord) -> Self {
        let life = &task.lifecycle;
        Self {
            key: task_key(task.id),
            step_name: task.step_name.clone(),
            form: task.form.clone(),
            form_version: task.form_version.into(),
            pool: task.pool,
            priority: task.priority.level().into(),
            state: life.state,
            run_lease: signed(life.run_lease.0),
            attempt: life.attempt.into(),
            errors: life.errors.into(),
            crashes: life.crashes.into(),
            run_at: life.run_at.0,
            lease_until: life.lease_until.map(|until| until.0),
            cancel_requested: life.cancel_requested,
            verdict: life.verdict,
            dead_reason: life.dead_reason,
            worker: task.worker.clone(),
            created_at: life.run_at.0,
            started_at: task.started_at,
            finished_at: task.finished_at,
            error_code: task.error.as_ref().map(|error| error.code.clone()),
            error_message: task.error.as_ref().map(|error| error.message.clone()),
            events: task.events.into(),
            progress: None,
        }
    }

    /// What may change of a task, as it is now.
    pub(super) fn changes(task: &TaskRecord) -> Document {
        let life = &task.lifecycle;
        doc! {
            "state": life.state.as_str(),
            "run_lease": signed(life.run_lease.0),
            "attempt": i64::from(life.attempt),
            "errors": i64::from(life.errors),
            "crashes": i64::from(life.crashes),
            "run_at": life.run_at.0,
            "lease_until": life.lease_until.map(|until| until.0),
            "cancel_requested": life.cancel_requested,
            "verdict": life.verdict.map(Verdict::as_str),
            "dead_reason": life.dead_reason.map(DeadReason::as_str),
            "worker": task.worker.as_deref(),
            "started_at": task.started_at,
            "finished_at": task.finished_at,
            "error_code": task.error.as_ref().map(|error| error.code.as_str()),
            "error_message": task.error.as_ref().map(|error| error.message.as_str()),
            "events": i64::from(task.events),
        }
    }

    pub(super) fn lifecycle(&self) -> Result<Lifecycle> {
        Ok(Lifecycle {
            state: self.state,
            run_lease: RunLease(number(self.run_lease)?),
            attempt: number(self.attempt)?,
            errors: number(self.errors)?,
            crashes: number(self.crashes)?,
            run_at: Millis(self.run_at),
            lease_until: self.lease_until.map(Millis),
            cancel_requested: self.cancel_requested,
            verdict: self.verdict,
            dead_reason: self.dead_reason,
        })
    }

    fn error(code: Option<String>, message: Option<String>) -> Option<TaskError> {
        code.map(|code| TaskError {
            code,
            message: message.unwrap_or_default(),
        })
    }

    pub(super) fn into_record(self) -> Result<TaskRecord> {
        Ok(TaskRecord {
            id: parse_key(&self.key)?,
            pool: self.pool,
            priority: priority(self.priority.into())?,
            lifecycle: self.lifecycle()?,
            form: self.form,
            form_version: number(self.form_version)?,
            step_name: self.step_name,
            worker: self.worker,
            started_at: self.started_at,
            finished_at: self.finished_at,
            error: Self::error(self.error_code, self.error_message),
            events: number(self.events)?,
        })
    }

    pub(super) fn into_summary(self) -> Result<TaskSummary> {
        let id = parse_key(&self.key)?;
        let life = self.lifecycle()?;
        Ok(TaskSummary {
            id,
            submission: id.submission,
            step: self.step_name,
            form: self.form,
            form_version: number(self.form_version)?,
            pool: self.pool,
            priority: priority(self.priority.into())?,
            state: life.state,
            run_lease: life.run_lease,
            attempts: life.attempt,
            errors: life.errors,
            crashes: life.crashes,
            cancel_requested: life.cancel_requested,
            run_at: life.run_at,
            lease_until: life.lease_until,
            worker: self.worker,
            created_at: Millis(self.created_at),
            started_at: self.started_at.map(Millis),
            finished_at: self.finished_at.map(Millis),
            error: Self::error(self.error_code, self.error_message),
            dead_reason: life.dead_reason,
        })
    }

    /// The task with what its latest run left.
    pub(super) fn into_view(self, run: Option<RunDocument>) -> Result<TaskView> {
        let verdict = self.verdict;
        let of_this_run =
            |progress: &ProgressDocument| self.state == State::Running && progress.run_lease == self.run_lease;
        let progress = self.progress.clone().filter(of_this_run).map(|progress| TaskProgress {
            fraction: progress.fraction,
            message: progress.message,
            at: Millis(progress.at),
        });
        let summary = self.into_summary()?;
        let Some(run) = run else {
            return Ok(TaskView {
                summary,
                cpu_ms: None,
                provenance: None,
                result: None,
                progress,
            });
        };
        let provenance = run.provenance()?;
        // A failed run leaves no output; the verdict is there exactly when the task is completed.
        let result = match (run.output, verdict) {
            (Some(output), Some(verdict)) => Some(TaskOutput { output, verdict }),
            _ => None,
        };
        Ok(TaskView {
            summary,
            cpu_ms: run.cpu_ms,
            provenance,
            result,
            progress,
        })
    }
}

/// Fences and counters stay far below 2^63.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What the latest recorded run of a task left.
#[derive(Serialize, Deserialize)]
pub(super) struct RunDocument {
    #[serde(rename = "_id")]
    pub(super) task: String,
    pub(super) cpu_ms: Option<f64>,
    pub(super) provenance: Option<String>,
    pub(super) output: Option<String>,
}

impl RunDocument {
    pub(super) fn provenance(&self) -> Result<Option<Provenance>> {
        let parse = |text: &String| serde_json::from_str(text);
        let parsed = self.provenance.as_ref().map(parse).transpose();
        parsed.map_err(|error| Error::backend("read provenance", error))
    }
}

/// One line of a task's history; its key is the task's and the line's number with ten digits.
#[derive(Serialize, Deserialize)]
pub(super) struct EventDocument {
    #[serde(rename = "_id")]
    pub(super) key: String,
    pub(super) at: i64,
    pub(super) who: String,
    pub(super) from: Option<State>,
    pub(super) to: State,
    pub(super) run_lease: i64,
    pub(super) why: String,
}

impl EventDocument {
    pub(super) fn new(task: TaskId, line: TaskEvent) -> Self {
        Self {
            key: line_key(task, line.sequence),
            at: line.at.0,
            who: line.who,
            from: line.from,
            to: line.to,
            run_lease: signed(line.run_lease.0),
            why: line.why,
        }
    }

    pub(super) fn into_event(self) -> Result<TaskEvent> {
        let sequence = self
            .key
            .rsplit_once('-')
            .and_then(|(_, sequence)| sequence.parse().ok());
        Ok(TaskEvent {
            sequence: sequence.ok_or_else(|| Error::backend("read history", format!("bad key {:?}", self.key)))?,
            at: Millis(self.at),
            who: self.who,
            from: self.from,
            to: self.to,
            run_lease: RunLease(number(self.run_lease)?),
            why: self.why,
        })
    }
}

/// One export chunk; it is numbered when it is first read, see [`super::exports`].
#[derive(Serialize, Deserialize)]
pub(super) struct ExportDocument {
    #[serde(rename = "_id")]
    pub(super) task: String,
    pub(super) form: String,
    pub(super) form_version: i64,
    pub(super) step_name: String,
    pub(super) sequence: Option<i64>,
    pub(super) bytes: Binary,
}

impl ExportDocument {
    pub(super) fn submission(&self) -> Result<SubmissionId> {
        Ok(parse_key(&self.task)?.submission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ulid::Ulid;

    #[test]
    fn keys_sort_as_tasks_do() {
        let submission = |time| SubmissionId(Ulid::from_parts(time, 7));
        let tasks =
            [(1, 0), (1, 2), (1, 10), (2, 0), (2, u16::MAX)].map(|(time, step)| TaskId::new(submission(time), step));
        let keys = tasks.map(task_key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| parse_key(&key).expect("is a key")), tasks);
        assert!(parse_key("01J-x").is_err());
    }
}

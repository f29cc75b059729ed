//! The shapes of answers. Times are RFC 3339 in UTC, durations carry their unit in the name.

use formwork_engine::SnapshotStatus;
use formwork_pipeline::Pipeline;
use formwork_store::{
    FormSummary, FormVersion, ModelRef, PluginRef, SubmissionSummary, SubmissionView, TaskEvent, TaskProgress,
    TaskSummary, TaskView,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::clock::rfc3339;

/// A form and its version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FormRef {
    /// The form's id.
    #[schema(example = "support-request")]
    pub id: String,
    /// The version, from 1.
    #[schema(example = 1)]
    pub version: u32,
}

/// A form version without its definition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FormHead {
    /// The form's id.
    #[schema(example = "support-request")]
    pub id: String,
    /// The version, from 1.
    pub version: u32,
    /// The digest of its definition.
    #[schema(example = "sha256:5b0c…")]
    pub digest: String,
    /// When it was published.
    #[schema(example = "2026-03-14T09:26:53.589Z")]
    pub created_at: String,
}

/// A form version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FormAnswer {
    /// All but the definition.
    #[serde(flatten)]
    pub head: FormHead,
    /// The definition as published.
    #[schema(value_type = Object)]
    pub definition: Box<RawValue>,
    /// How far each step's snapshot is.
    pub snapshots: Vec<StepSnapshot>,
}

/// How far a step's snapshot is. Without one every submission prepares anew: slower, and just as right.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepSnapshot {
    /// The step's name.
    #[schema(example = "check")]
    step: String,
    /// Which rung of the step's fallback chain; absent: the step's own plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    rung: Option<usize>,
    /// `ready`, `making`, `absent` (the next submission asks for it) or `none` (there can be none).
    #[schema(example = "ready")]
    state: &'static str,
    /// Bytes of memory it holds, when it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<(&str, usize, SnapshotStatus)> for StepSnapshot {
    fn from((step, rung, status): (&str, usize, SnapshotStatus)) -> Self {
        let (state, bytes, reason) = match status {
            SnapshotStatus::Ready(info) => ("ready", Some(info.bytes), None),
            SnapshotStatus::Making => ("making", None, None),
            SnapshotStatus::Failed(error) => ("none", None, Some(error.to_string())),
            _ => ("absent", None, None),
        };
        Self {
            step: step.to_owned(),
            rung: (rung > 0).then_some(rung),
            state,
            bytes,
            reason,
        }
    }
}

/// What became of a published form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Published {
    /// The form's id.
    #[schema(example = "support-request")]
    pub id: String,
    /// The version that is now the latest.
    #[schema(example = 1)]
    pub version: u32,
    /// The form's title.
    pub title: Option<String>,
    /// Whether this request made it; if not, the definition is that of the latest version already.
    pub created: bool,
    /// The digest of its definition.
    pub digest: String,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// A plugin version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginAnswer {
    /// Its name.
    #[schema(example = "validate")]
    pub name: String,
    /// Its version.
    #[schema(example = "1.0.0")]
    pub version: String,
    /// The digest of its component file.
    pub digest: String,
}

/// A model version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelAnswer {
    /// Its name.
    #[schema(example = "encoder")]
    pub name: String,
    /// Its version.
    pub version: String,
    /// The sha256 of its file, in hex.
    pub sha256: String,
}

/// Why something failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorAnswer {
    /// A stable code.
    #[schema(example = "limit-cpu")]
    pub code: String,
    /// For people.
    pub message: String,
}

/// A submission that was recorded and is being worked on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// The submission's id.
    #[schema(example = "01KF0Q6V7W5Z1M4B9N8D3R2T6X")]
    pub id: String,
    /// The form version it is pinned to.
    pub form: FormRef,
    /// Where it is: `processing`, or further when the request was a repetition.
    #[schema(example = "processing")]
    pub status: String,
    /// Where its results are.
    #[schema(example = "/v1/submissions/01KF0Q6V7W5Z1M4B9N8D3R2T6X")]
    pub location: String,
    /// Follows the request into its tasks and their log lines.
    pub correlation_id: String,
}

/// What became of a request's lines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinesAccepted {
    /// The form version that the submissions are pinned to.
    pub form: FormRef,
    /// How many were recorded.
    pub recorded: usize,
    /// How many an earlier request had recorded under the same idempotency key.
    pub replayed: usize,
    /// How many could not be recorded; each has its `error`.
    pub failed: usize,
    /// One a line of the request that is not empty, in their order.
    pub items: Vec<LineAccepted>,
}

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineAccepted {
    /// The line's number.
    #[schema(example = 1)]
    pub line: usize,
    /// Its submission's id; absent when it could not be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "01KF0Q6V7W5Z1M4B9N8D3R2T6X")]
    pub id: Option<String>,
    /// Whether an earlier request had recorded it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// Why it could not be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<LineError>,
}

/// What is wrong with one of many documents. It does not concern the others.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineError {
    /// As in problem documents, for example `malformed-json` or `plugin-failed`.
    #[schema(example = "malformed-json")]
    code: &'static str,
    /// What is wrong, with the place.
    detail: String,
}

impl From<Problem> for LineError {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.code().as_str(),
            // Its document is one line.
            detail: problem.detail().replace("at line 1 column", "at column"),
        }
    }
}

/// A submission without data and steps.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubmissionHead {
    /// Its id.
    #[schema(example = "01KF0Q6V7W5Z1M4B9N8D3R2T6X")]
    pub id: String,
    /// The form version it is pinned to.
    pub form: FormRef,
    /// `processing`, `done`, `rejected` or `failed`.
    #[schema(example = "done")]
    pub status: String,
    /// When it was recorded.
    pub submitted_at: String,
    /// When it reached a final status.
    pub settled_at: Option<String>,
    /// Follows the request into its tasks and their log lines.
    pub correlation_id: String,
}

/// A submission with its results.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SubmissionAnswer {
    /// All but data and steps.
    #[serde(flatten)]
    pub head: SubmissionHead,
    /// The answers, as submitted.
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// The form's steps in order, with what they made of it.
    pub steps: Vec<StepAnswer>,
}

/// One step of a submission.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StepAnswer {
    /// The step's name.
    #[schema(example = "intent")]
    pub name: String,
    /// `waiting` for the steps before it, `skipped` because the pipeline ended before it, or its task's state.
    #[schema(example = "completed")]
    pub state: String,
    /// Its task's id, once there is one.
    pub task: Option<String>,
    /// The plugin that ran.
    pub plugin: Option<PluginAnswer>,
    /// The models it used.
    pub models: Vec<ModelAnswer>,
    /// Runs started.
    pub attempts: u32,
    /// CPU time of the plugin, milliseconds; inference is not in it.
    pub cpu_ms: Option<f64>,
    /// When its latest run started.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// What the plugin answered.
    #[schema(value_type = Option<Value>)]
    pub output: Option<Box<RawValue>>,
    /// The latest error, also when it is tried again.
    pub error: Option<ErrorAnswer>,
    /// How far it is, while it runs and if its plugin says so.
    pub progress: Option<ProgressAnswer>,
}

/// A task without its output.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskHead {
    /// Its id.
    #[schema(example = "01KF0Q6V7W5Z1M4B9N8D3R2T6X-0")]
    pub id: String,
    /// Its submission.
    pub submission: String,
    /// The form version.
    pub form: FormRef,
    /// The step it runs.
    pub step: String,
    /// The pool it waits in: `high`, `default` or `batched`.
    pub pool: String,
    /// Its place inside the pool, 0 (last) to 9 (first).
    pub priority: u8,
    /// `available`, `running`, `retryable`, `completed`, `cancelled` or `dead`.
    pub state: String,
    /// Runs started.
    pub attempts: u32,
    /// Runs that ended with an error.
    pub errors: u32,
    /// Runs whose worker vanished.
    pub crashes: u32,
    /// Whether a cancel waits for its worker.
    pub cancel_requested: bool,
    /// When it may run (again).
    pub run_at: String,
    /// Who runs it, or ran it last.
    pub worker: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// When its latest run started.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// The latest error.
    pub error: Option<ErrorAnswer>,
    /// Why it is dead.
    pub dead_reason: Option<String>,
}

/// A task with its output and history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskAnswer {
    /// All but output and history.
    #[serde(flatten)]
    pub head: TaskHead,
    /// The plugin that ran.
    pub plugin: Option<PluginAnswer>,
    /// The models it used.
    pub models: Vec<ModelAnswer>,
    /// CPU time of its latest run, milliseconds.
    pub cpu_ms: Option<f64>,
    /// How far it is, while it runs and if its plugin says so.
    pub progress: Option<ProgressAnswer>,
    /// What the plugin answered.
    #[schema(value_type = Option<Value>)]
    pub output: Option<Box<RawValue>>,
    /// Everything that happened to it, oldest first.
    pub history: Vec<EventAnswer>,
}

/// How far a task is, while it runs and if its plugin says so.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ProgressAnswer {
    /// From 0 to 1, if known.
    #[schema(example = 0.25)]
    pub fraction: Option<f64>,
    /// For people.
    #[schema(example = "page 1 of 4")]
    pub message: String,
    /// When the plugin said so.
    pub at: String,
}

/// One line of a task's history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventAnswer {
    /// Its number within the task, from 1.
    pub sequence: u32,
    /// When.
    pub at: String,
    /// Who: `pipeline`, `worker:NAME`, `reaper` or `operator`.
    pub who: String,
    /// The state before; null when the task was made.
    pub from: Option<String>,
    /// The state after.
    pub to: String,
    /// Why: a stable code, and the error's code behind it where there is one.
    pub why: String,
}

/// A stored JSON text as it is. The store gives back what was put in, which was checked there.
pub(crate) fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap_or_else(|error| {
        tracing::error!(%error, "a stored document is not JSON");
        RawValue::NULL.to_owned()
    })
}

impl From<FormSummary> for FormHead {
    fn from(form: FormSummary) -> Self {
        Self {
            id: form.id,
            version: form.version,
            digest: form.digest,
            created_at: rfc3339(form.created_at),
        }
    }
}

impl FormAnswer {
    pub(crate) fn new(form: FormVersion, snapshots: Vec<StepSnapshot>) -> Self {
        let definition = raw(&form.definition);
        let created_at = rfc3339(form.created_at);
        Self {
            head: FormHead {
                id: form.id,
                version: form.version,
                digest: form.digest,
                created_at,
            },
            definition,
            snapshots,
        }
    }
}

impl From<PluginRef> for PluginAnswer {
    fn from(plugin: PluginRef) -> Self {
        Self {
            name: plugin.name,
            version: plugin.version,
            digest: plugin.digest,
        }
    }
}

impl From<ModelRef> for ModelAnswer {
    fn from(model: ModelRef) -> Self {
        Self {
            name: model.name,
            version: model.version,
            sha256: model.sha256,
        }
    }
}

impl From<SubmissionSummary> for SubmissionHead {
    fn from(summary: SubmissionSummary) -> Self {
        Self {
            id: summary.id.to_string(),
            form: FormRef {
                id: summary.form,
                version: summary.form_version,
            },
            status: summary.status.to_string(),
            submitted_at: rfc3339(summary.submitted_at),
            settled_at: summary.settled_at.map(rfc3339),
            correlation_id: summary.correlation_id,
        }
    }
}

impl From<SubmissionSummary> for Accepted {
    fn from(summary: SubmissionSummary) -> Self {
        Self {
            id: summary.id.to_string(),
            location: format!("/v1/submissions/{}", summary.id),
            form: FormRef {
                id: summary.form,
                version: summary.form_version,
            },
            status: summary.status.to_string(),
            correlation_id: summary.correlation_id,
        }
    }
}

/// A submission with the steps of its form.
pub(crate) fn submission(view: SubmissionView, form: &Pipeline) -> SubmissionAnswer {
    let settled = view.summary.status.is_settled();
    let mut tasks = view.tasks;
    let steps = form.definition().pipeline.iter().map(|step| {
        let task = tasks
            .iter()
            .position(|task| task.summary.step == step.name)
            .map(|index| tasks.swap_remove(index));
        match task {
            Some(task) => StepAnswer::from(task),
            None => StepAnswer::without_task(&step.name, if settled { "skipped" } else { "waiting" }),
        }
    });
    let steps = steps.collect();
    SubmissionAnswer {
        head: view.summary.into(),
        data: raw(&view.data),
        steps,
    }
}

impl StepAnswer {
    fn without_task(name: &str, state: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: state.to_owned(),
            task: None,
            plugin: None,
            models: Vec::new(),
            attempts: 0,
            cpu_ms: None,
            started_at: None,
            finished_at: None,
            output: None,
            error: None,
            progress: None,
        }
    }
}

fn error(task: &TaskSummary) -> Option<ErrorAnswer> {
    let error = task.error.clone()?;
    Some(ErrorAnswer {
        code: error.code,
        message: error.message,
    })
}

impl From<TaskView> for StepAnswer {
    fn from(task: TaskView) -> Self {
        let error = error(&task.summary);
        let (plugin, models) = task
            .provenance
            .map_or((None, Vec::new()), |from| (Some(from.plugin), from.models));
        Self {
            task: Some(task.summary.id.to_string()),
            name: task.summary.step,
            state: task.summary.state.to_string(),
            plugin: plugin.map(PluginAnswer::from),
            models: models.into_iter().map(ModelAnswer::from).collect(),
            attempts: task.summary.attempts,
            cpu_ms: task.cpu_ms,
            started_at: task.summary.started_at.map(rfc3339),
            finished_at: task.summary.finished_at.map(rfc3339),
            output: task.result.map(|result| raw(&result.output)),
            error,
            progress: task.progress.map(ProgressAnswer::from),
        }
    }
}

impl From<TaskSummary> for TaskHead {
    fn from(task: TaskSummary) -> Self {
        let error = error(&task);
        Self {
            id: task.id.to_string(),
            submission: task.submission.to_string(),
            form: FormRef {
                id: task.form,
                version: task.form_version,
            },
            step: task.step,
            pool: task.pool.to_string(),
            priority: task.priority.level(),
            state: task.state.to_string(),
            attempts: task.attempts,
            errors: task.errors,
            crashes: task.crashes,
            cancel_requested: task.cancel_requested,
            run_at: rfc3339(task.run_at),
            worker: task.worker,
            created_at: rfc3339(task.created_at),
            started_at: task.started_at.map(rfc3339),
            finished_at: task.finished_at.map(rfc3339),
            error,
            dead_reason: task.dead_reason.map(|reason| reason.as_str().to_owned()),
        }
    }
}

/// A task with its history.
pub(crate) fn task(view: TaskView, history: Vec<TaskEvent>) -> TaskAnswer {
    let (plugin, models) = view
        .provenance
        .map_or((None, Vec::new()), |from| (Some(from.plugin), from.models));
    TaskAnswer {
        head: view.summary.into(),
        plugin: plugin.map(PluginAnswer::from),
        models: models.into_iter().map(ModelAnswer::from).collect(),
        cpu_ms: view.cpu_ms,
        progress: view.progress.map(ProgressAnswer::from),
        output: view.result.map(|result| raw(&result.output)),
        history: history.into_iter().map(EventAnswer::from).collect(),
    }
}

impl From<TaskProgress> for ProgressAnswer {
    fn from(progress: TaskProgress) -> Self {
        Self {
            fraction: progress.fraction,
            message: progress.message,
            at: rfc3339(progress.at),
        }
    }
}

impl From<TaskEvent> for EventAnswer {
    fn from(event: TaskEvent) -> Self {
        Self {
            sequence: event.sequence,
            at: rfc3339(event.at),
            who: event.who,
            from: event.from.map(|state| state.to_string()),
            to: event.to.to_string(),
            why: event.why,
        }
    }
}

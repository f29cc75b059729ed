//! Tasks as an operator sees them.

use axum::Json;
use axum::extract::State;
use formwork_store::{Cancel, Retry, TaskFilter, TaskId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::answers::{self, List, TaskAnswer, TaskHead};
use super::params::{InPath, InQuery, page};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use super::task_filter::{Selection, parsed};
use crate::clock;

/// Which tasks to list; everything given must match.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TaskQuery {
    /// `available`, `running`, `retryable`, `completed`, `cancelled` or `dead`.
    #[param(example = "dead")]
    state: Option<String>,
    #[serde(flatten)]
    #[param(ignore)]
    which: Selection,
    /// Items at most, 1 to 1,000; 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Tasks, those of the newest submission first.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", params(TaskQuery, Selection),
    responses((status = 200, description = "A page of tasks", body = List<TaskHead>),
        (status = 400, description = "`invalid-request`", body = ProblemDocument)))]
pub(crate) async fn list(
    State(app): State<App>,
    InQuery(query): InQuery<TaskQuery>,
) -> Result<Json<List<TaskHead>>, Problem> {
    let filter = TaskFilter {
        state: parsed(query.state)?,
        ..query.which.filter()?
    };
    let found = app.store.tasks(filter, page(query.limit, query.cursor)?).await?;
    Ok(Json(List {
        items: found.items.into_iter().map(TaskHead::from).collect(),
        next: found.next,
    }))
}

/// A task with its output and history.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", params(("id" = String, Path, description = "The task's id")),
    responses((status = 200, description = "The task", body = TaskAnswer),
        (status = 404, description = "`unknown-task`", body = ProblemDocument)))]
pub(crate) async fn get(State(app): State<App>, InPath(id): InPath<String>) -> Result<Json<TaskAnswer>, Problem> {
    answer(&app, task_id(&id)?).await.map(Json)
}

/// Cancel a task: one that waits never runs, one that runs is told to stop.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks", params(("id" = String, Path, description = "The task's id")),
    responses((status = 200, description = "The task, cancelled or with `cancel_requested`", body = TaskAnswer),
        (status = 404, description = "`unknown-task`", body = ProblemDocument),
        (status = 409, description = "`wrong-state`: it has ended", body = ProblemDocument)))]
pub(crate) async fn cancel(State(app): State<App>, InPath(id): InPath<String>) -> Result<Json<TaskAnswer>, Problem> {
    let id = task_id(&id)?;
    let outcome = app.store.cancel(id, clock::now()).await?;
    tracing::info!(task = %id, ?outcome, "cancel asked for");
    match outcome {
        Cancel::AlreadyFinished(state) => Err(wrong_state(state, "has ended already")),
        Cancel::Cancelled | Cancel::Requested => answer(&app, id).await.map(Json),
    }
}

/// Run a dead, cancelled or retryable task again, now, with its counters at zero.
#[utoipa::path(post, path = "/v1/tasks/{id}/retry", tag = "tasks", params(("id" = String, Path, description = "The task's id")),
    responses((status = 200, description = "The task, available again", body = TaskAnswer),
        (status = 404, description = "`unknown-task`", body = ProblemDocument),
        (status = 409, description = "`wrong-state`: it is not dead, cancelled or retryable", body = ProblemDocument)))]
pub(crate) async fn retry(State(app): State<App>, InPath(id): InPath<String>) -> Result<Json<TaskAnswer>, Problem> {
    let id = task_id(&id)?;
    let outcome = app.store.retry(id, clock::now()).await?;
    tracing::info!(task = %id, ?outcome, "retry asked for");
    match outcome {
        Retry::Refused(state) => Err(wrong_state(
            state,
            "can be retried only when dead, cancelled or retryable",
        )),
        Retry::Retried => answer(&app, id).await.map(Json),
    }
}

fn wrong_state(state: formwork_tasks::State, why: &str) -> Problem {
    Problem::new(Code::WrongState, format!("the task is {state}: it {why}")).with("state", state.as_str())
}

pub(super) fn task_id(text: &str) -> Result<TaskId, Problem> {
    text.parse()
        .map_err(|error: formwork_store::InvalidId| Problem::new(Code::UnknownTask, error.to_string()))
}

pub(super) fn unknown(id: TaskId) -> Problem {
    Problem::new(Code::UnknownTask, format!("unknown task: {id}"))
}

async fn answer(app: &App, id: TaskId) -> Result<TaskAnswer, Problem> {
    let task = app.store.task(id).await?.ok_or_else(|| unknown(id))?;
    let history = app.store.task_history(id).await?;
    Ok(answers::task(task, history))
}

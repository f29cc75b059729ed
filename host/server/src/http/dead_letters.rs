//! The dead-letter queue: tasks that nobody runs any more until an operator says so.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use formwork_store::{TaskFilter, limits};
use formwork_tasks::State as TaskState;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answers::{List, TaskHead};
use super::json_body::{self, Limits};
use super::params::{InQuery, page};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use super::task_filter::Selection;
use crate::clock;

/// Largest body of a redrive, bytes: a handful of short members.
const BODY_BYTES: usize = 16 << 10;

/// Which dead letters to list; everything given must match.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeadLetterQuery {
    #[serde(flatten)]
    #[param(ignore)]
    which: Selection,
    /// Items at most, 1 to 1,000; 50 when absent.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Which dead letters to run again: at least one filter, or `all`. Those that died before now when `until` is absent, so that
/// what dies again meanwhile is not run again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedriveRequest {
    #[serde(flatten)]
    which: Selection,
    /// Really all of them.
    #[serde(default)]
    all: bool,
    /// Tasks at most; as many as one transaction takes when absent.
    limit: Option<u32>,
}

/// What a redrive did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Redriven {
    /// Tasks that are available again, with their counters at zero.
    count: u32,
    /// Whether more match: send it again.
    more: bool,
}

/// Dead letters, those of the newest submission first.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "tasks", params(DeadLetterQuery, Selection),
    responses((status = 200, description = "A page of dead tasks", body = List<TaskHead>),
        (status = 400, description = "`invalid-request`", body = ProblemDocument)))]
pub(crate) async fn list(
    State(app): State<App>,
    InQuery(query): InQuery<DeadLetterQuery>,
) -> Result<Json<List<TaskHead>>, Problem> {
    let filter = TaskFilter {
        state: Some(TaskState::Dead),
        ..query.which.filter()?
    };
    let found = app.store.tasks(filter, page(query.limit, query.cursor)?).await?;
    Ok(Json(List {
        items: found.items.into_iter().map(TaskHead::from).collect(),
        next: found.next,
    }))
}

/// Run dead letters again, oldest submission first, with their counters at zero.
#[utoipa::path(post, path = "/v1/dead-letters/redrive", tag = "tasks", request_body = RedriveRequest,
    responses((status = 200, description = "How many, and whether there are more", body = Redriven),
        (status = 400, description = "`invalid-request`: neither a filter nor `all`", body = ProblemDocument)))]
pub(crate) async fn redrive(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Json<Redriven>, Problem> {
    let bounds = Limits {
        bytes: BODY_BYTES,
        depth: app.http.json_depth,
    };
    let request: RedriveRequest = json_body::typed(&headers, body, bounds).await?;
    let now = clock::now();
    let limit = request.limit.unwrap_or(limits::REDRIVE_TASKS);
    if !(1..=limits::REDRIVE_TASKS).contains(&limit) {
        let detail = format!("limit must be 1 to {}, got {limit}", limits::REDRIVE_TASKS);
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let filter = request.which.filter()?;
    if !request.all && filter == TaskFilter::default() {
        let detail = "name a filter (reason, code, pool, form, step, submission, from, until), or say \"all\": true";
        return Err(Problem::new(Code::InvalidRequest, detail));
    }
    let filter = TaskFilter {
        finished_until: filter.finished_until.or(Some(now)),
        ..filter
    };
    let done = app.store.redrive(filter, limit, now).await?;
    tracing::info!(count = done.count, more = done.more, "dead letters redriven");
    Ok(Json(Redriven {
        count: done.count,
        more: done.more,
    }))
}

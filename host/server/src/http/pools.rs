//! The pools: what waits in the store, and what this process's threads do.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use formwork_scheduler::{PoolStatus, Presence};
use formwork_store::{PoolControl, PoolControlChange, PoolStats};
use formwork_tasks::Pool;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::answers::List;
use super::json_body::{self, Limits};
use super::params::InPath;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use crate::clock;

/// One pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolAnswer {
    /// `high`, `default` or `batched`.
    #[schema(example = "high")]
    name: String,
    /// What this process does for it: `claims` its tasks, has its threads for `calls` only, or is `absent`.
    #[schema(example = "claims")]
    presence: &'static str,
    /// OS threads of this process.
    threads: usize,
    /// CPU limit of the pool in this process, CPUs; absent: its threads limit it.
    cpus: Option<f64>,
    /// CPUs it may use now: its limit, with `burst` also its share of what is to spare.
    cpu_rate: Option<f64>,
    /// Whether it may use more than its limit while nothing else wants the CPU.
    burst: bool,
    /// Its share of what is to spare when several pools burst.
    weight: u32,
    /// How the limit is enforced: `none` (there is no limit), `budget`, `cgroup-v1` or `cgroup-v2`.
    #[schema(example = "budget")]
    enforcement: &'static str,
    /// Tasks this process may have claimed at once.
    permits: u32,
    /// Whether it claims nothing because an operator paused it.
    paused: bool,
    /// Share of the last second in which its threads were busy, 0 to 1.
    busy_ratio: f64,
    /// CPU time it has used since the start, seconds: its threads and native inference for them.
    cpu_seconds: f64,
    /// Of that, native inference.
    native_cpu_seconds: f64,
    /// Guests that wait because the CPU budget is used up.
    parked: usize,
    /// How long guests and generations have waited for CPU budget, added up, seconds.
    parked_seconds: f64,
    /// How long all permits were taken, seconds.
    permit_wait_seconds: f64,
    /// Periods in which the kernel's quota stopped its threads; absent without a cgroup.
    throttled: Option<u64>,
    /// Tasks and calls that were claimed and wait for a thread.
    queued: usize,
    /// Tasks waiting for a worker; this and the counts below are over all processes.
    available: u64,
    /// Being run.
    running: u64,
    /// Waiting for their next attempt.
    retryable: u64,
    /// Completed, ever.
    completed: u64,
    /// Cancelled and not retried.
    cancelled: u64,
    /// In the dead-letter queue.
    dead: u64,
    /// How long the longest waiting task has been waiting, milliseconds.
    oldest_available_ms: Option<u64>,
}

impl PoolAnswer {
    fn of(stats: &PoolStats, here: &PoolStatus) -> Self {
        Self {
            name: stats.pool.to_string(),
            presence: match here.presence {
                Presence::Claims => "claims",
                Presence::Calls => "calls",
                Presence::Absent => "absent",
            },
            threads: here.threads,
            cpus: here.cpus,
            cpu_rate: here.cpu_rate,
            burst: here.burst,
            weight: here.weight,
            enforcement: here.enforcement.as_str(),
            permits: here.permits,
            paused: here.paused,
            busy_ratio: here.busy_ratio,
            cpu_seconds: here.cpu_seconds,
            native_cpu_seconds: here.native_cpu_seconds,
            parked: here.parked,
            parked_seconds: here.parked_seconds,
            permit_wait_seconds: here.permit_wait_seconds,
            throttled: here.throttled,
            queued: here.queued,
            available: stats.available,
            running: stats.running,
            retryable: stats.retryable,
            completed: stats.completed,
            cancelled: stats.cancelled,
            dead: stats.dead,
            oldest_available_ms: stats.oldest_available_ms,
        }
    }
}

/// The pools and their load.
#[utoipa::path(get, path = "/v1/pools", tag = "operation",
    responses((status = 200, description = "The pools", body = List<PoolAnswer>)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<List<PoolAnswer>>, Problem> {
    let stats = app.store.pool_stats(clock::now()).await?;
    let status = app.scheduler.status();
    let items = stats.into_iter().filter_map(|stats| {
        let here = status.iter().find(|status| status.pool == stats.pool)?;
        Some(PoolAnswer::of(&stats, here))
    });
    Ok(Json(List {
        items: items.collect(),
        next: None,
    }))
}

/// Largest body of a change, bytes.
const BODY_BYTES: usize = 4 << 10;

/// What an operator has set for a pool, on every node and across restarts; `null`: what each node's configuration says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolControlAnswer {
    /// The pool.
    name: String,
    /// Whether no task of it is claimed.
    paused: bool,
    /// CPU limit on each node, CPUs.
    cpus: Option<f64>,
    /// Whether it may use more while nothing else wants the CPU.
    burst: Option<bool>,
    /// Tasks each node may have claimed at once.
    permits: Option<u32>,
}

/// What to change; a member that is absent stays, `null` goes back to the configuration.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolChange {
    /// CPU limit on each node, CPUs.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<f64>)]
    cpus: Option<Option<f64>>,
    /// Whether it may use more while nothing else wants the CPU.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<bool>)]
    burst: Option<Option<bool>>,
    /// Tasks each node may have claimed at once.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    permits: Option<Option<u32>>,
}

/// Tells `null` from a member that is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(source: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(source).map(Some)
}

/// Claim no more tasks of a pool, on every node and across restarts; what runs goes on.
#[utoipa::path(post, path = "/v1/pools/{pool}/pause", tag = "operation", params(("pool" = String, Path, description = "The pool")),
    responses((status = 200, description = "What is set now", body = PoolControlAnswer),
        (status = 404, description = "`unknown-pool`", body = ProblemDocument)))]
pub(crate) async fn pause(
    State(app): State<App>,
    InPath(pool): InPath<String>,
) -> Result<Json<PoolControlAnswer>, Problem> {
    set_paused(&app, &pool, true).await
}

/// Claim tasks of a paused pool again.
#[utoipa::path(post, path = "/v1/pools/{pool}/resume", tag = "operation", params(("pool" = String, Path, description = "The pool")),
    responses((status = 200, description = "What is set now", body = PoolControlAnswer),
        (status = 404, description = "`unknown-pool`", body = ProblemDocument)))]
pub(crate) async fn resume(
    State(app): State<App>,
    InPath(pool): InPath<String>,
) -> Result<Json<PoolControlAnswer>, Problem> {
    set_paused(&app, &pool, false).await
}

async fn set_paused(app: &App, pool: &str, paused: bool) -> Result<Json<PoolControlAnswer>, Problem> {
    let change = PoolControlChange {
        paused: Some(paused),
        ..PoolControlChange::default()
    };
    set(app, named(pool)?, change).await
}

/// Change what a pool may use, on every node and across restarts.
#[utoipa::path(patch, path = "/v1/pools/{pool}", tag = "operation", params(("pool" = String, Path, description = "The pool")),
    request_body = PoolChange,
    responses((status = 200, description = "What is set now", body = PoolControlAnswer),
        (status = 400, description = "`invalid-request`: a value is out of range", body = ProblemDocument),
        (status = 404, description = "`unknown-pool`", body = ProblemDocument)))]
pub(crate) async fn change(
    State(app): State<App>,
    InPath(pool): InPath<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PoolControlAnswer>, Problem> {
    let pool = named(&pool)?;
    let bounds = Limits {
        bytes: BODY_BYTES,
        depth: app.http.json_depth,
    };
    let PoolChange { cpus, burst, permits } = json_body::typed(&headers, body, bounds).await?;
    let change = PoolControlChange {
        paused: None,
        cpus,
        burst,
        permits,
    };
    let wanted = change.applied_to(PoolControl::default());
    app.scheduler
        .limits_under(pool, &wanted)
        .map_err(|error| Problem::new(Code::InvalidRequest, error.to_string()))?;
    set(&app, pool, change).await
}

async fn set(app: &App, pool: Pool, change: PoolControlChange) -> Result<Json<PoolControlAnswer>, Problem> {
    let control = app.store.set_pool_control(pool, change, clock::now()).await?;
    tracing::info!(%pool, ?control, "pool control set");
    Ok(Json(PoolControlAnswer {
        name: pool.to_string(),
        paused: control.paused,
        cpus: control.cpus,
        burst: control.burst,
        permits: control.permits,
    }))
}

fn named(pool: &str) -> Result<Pool, Problem> {
    pool.parse()
        .map_err(|error: formwork_tasks::UnknownPool| Problem::new(Code::UnknownPool, error.to_string()))
}

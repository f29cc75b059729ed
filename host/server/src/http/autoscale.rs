//! What a pool could use, for whoever starts and stops workers.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use formwork_scheduler::{Demand, PoolStatus};
use formwork_store::PoolStats;
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::List;
use super::problem::{Problem, ProblemDocument};
use super::state::App;
use crate::clock;

/// What one pool could use. Counts are over all nodes; `permits`, `busy_ratio` and `target_wait_seconds` are this node's.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolDemand {
    /// `high`, `default` or `batched`.
    #[schema(example = "batched")]
    pool: String,
    /// Whether an operator paused it: what waits then asks for nobody.
    paused: bool,
    /// Tasks waiting for a worker.
    waiting: u64,
    /// How long the oldest of them has waited.
    oldest_wait_seconds: f64,
    /// Tasks being run.
    running: u64,
    /// Tasks one worker runs at once.
    permits: u32,
    /// Share of the last second in which the pool's threads were busy, 0 to 1.
    busy_ratio: f64,
    /// How long a task may wait before more workers are asked for: `pools.POOL.target_wait_ms`.
    target_wait_seconds: f64,
    /// Workers like this one that the pool could use now; 0 when there is nothing to do.
    wanted_workers: u64,
}

impl PoolDemand {
    fn of(stats: &PoolStats, here: &PoolStatus) -> Self {
        let demand = demand(stats, here);
        Self {
            pool: stats.pool.to_string(),
            paused: here.paused,
            waiting: demand.waiting,
            oldest_wait_seconds: demand.oldest.as_secs_f64(),
            running: demand.running,
            permits: demand.permits,
            busy_ratio: here.busy_ratio,
            target_wait_seconds: demand.target.as_secs_f64(),
            wanted_workers: demand.wanted_workers(),
        }
    }
}

/// The load of a pool over all nodes, for workers like this one.
pub(super) fn demand(stats: &PoolStats, here: &PoolStatus) -> Demand {
    Demand {
        waiting: stats.available,
        oldest: Duration::from_millis(stats.oldest_available_ms.unwrap_or(0)),
        running: stats.running,
        paused: here.paused,
        permits: here.permits,
        target: Duration::from_millis(here.target_wait_ms),
    }
}

/// What each pool could use: `wanted_workers` is `workers × oldest wait ÷ target`, from the workers that what runs takes; at
/// most twice as many at a time, never more than there are tasks for.
#[utoipa::path(get, path = "/v1/autoscale", tag = "operation",
    responses((status = 200, description = "Each pool", body = List<PoolDemand>),
        (status = 503, description = "`unavailable`", body = ProblemDocument)))]
pub(crate) async fn get(State(app): State<App>) -> Result<Json<List<PoolDemand>>, Problem> {
    let stats = app.store.pool_stats(clock::now()).await?;
    let status = app.scheduler.status();
    let items = stats.iter().filter_map(|stats| {
        let here = status.iter().find(|status| status.pool == stats.pool)?;
        Some(PoolDemand::of(stats, here))
    });
    Ok(Json(List {
        items: items.collect(),
        next: None,
    }))
}

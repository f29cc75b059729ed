//! The pools: what waits in the store, and what this process's threads do.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::List;
use super::problem::Problem;
use super::state::App;
use crate::clock;

/// One pool.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PoolAnswer {
    /// `high`, `default` or `batched`.
    #[schema(example = "high")]
    name: String,
    /// OS threads of this process: the CPU the pool can use at most.
    threads: usize,
    /// Tasks this process may have claimed at once.
    permits: u32,
    /// Whether it claims nothing because an operator paused it.
    paused: bool,
    /// Share of the last second in which its threads were busy, 0 to 1.
    busy_ratio: f64,
    /// CPU time its threads have used since the start, seconds.
    cpu_seconds: f64,
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

/// The pools and their load.
#[utoipa::path(get, path = "/v1/pools", tag = "operation",
    responses((status = 200, description = "The pools", body = List<PoolAnswer>)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<List<PoolAnswer>>, Problem> {
    let stats = app.store.pool_stats(clock::now()).await?;
    let status = app.scheduler.status();
    let items = stats.into_iter().filter_map(|stats| {
        let here = status.iter().find(|status| status.pool == stats.pool)?;
        Some(PoolAnswer {
            name: stats.pool.to_string(),
            threads: here.threads,
            permits: here.permits,
            paused: here.paused,
            busy_ratio: here.busy_ratio,
            cpu_seconds: here.cpu_seconds,
            queued: here.queued,
            available: stats.available,
            running: stats.running,
            retryable: stats.retryable,
            completed: stats.completed,
            cancelled: stats.cancelled,
            dead: stats.dead,
            oldest_available_ms: stats.oldest_available_ms,
        })
    });
    Ok(Json(List {
        items: items.collect(),
        next: None,
    }))
}

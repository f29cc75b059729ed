//! What waits and what is dead, as gauges, read from the store when somebody scrapes. Every node tells the same, so take the
//! `max` over nodes, not the `sum`.
//!
//! They are made anew for each scrape instead of being kept: what the store does not answer is then left out, not old.

use std::time::Duration;

use formwork_store::PoolStats;
use formwork_tasks::State;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use super::autoscale::demand;
use super::state::App;
use crate::clock;

/// How long a scrape waits for the store.
const PATIENCE: Duration = Duration::from_secs(2);

/// The gauges now; none when the store does not answer.
pub(super) async fn gather(app: &App) -> Vec<MetricFamily> {
    let looked = tokio::time::timeout(PATIENCE, app.store.pool_stats(clock::now())).await;
    let stats = match looked {
        Ok(Ok(stats)) => stats,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the store has no figures for a scrape");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    families(app, &stats).unwrap_or_else(|error| {
        tracing::error!(%error, "the queues' metrics could not be made");
        Vec::new()
    })
}

fn families(app: &App, stats: &[PoolStats]) -> prometheus::Result<Vec<MetricFamily>> {
    let tasks = IntGaugeVec::new(
        Opts::new(
            "formwork_queue_tasks",
            "Tasks of all nodes by pool and state; completed ones ever, also those that were deleted since.",
        ),
        &["pool", "state"],
    )?;
    let oldest = GaugeVec::new(
        Opts::new(
            "formwork_queue_oldest_wait_seconds",
            "How long the longest waiting task of a pool has waited, over all nodes, seconds; 0 when none waits.",
        ),
        &["pool"],
    )?;
    let wanted = IntGaugeVec::new(
        Opts::new(
            "formwork_autoscale_wanted_workers",
            "Workers like this one that a pool could use now, as in /v1/autoscale.",
        ),
        &["pool"],
    )?;
    let status = app.scheduler.status();
    for stats in stats {
        let pool = stats.pool.as_str();
        for (state, count) in by_state(stats) {
            let gauge = tasks.with_label_values(&[pool, state.as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let waited = Duration::from_millis(stats.oldest_available_ms.unwrap_or(0));
        oldest.with_label_values(&[pool]).set(waited.as_secs_f64());
        if let Some(here) = status.iter().find(|here| here.pool == stats.pool) {
            let workers = demand(stats, here).wanted_workers();
            let gauge = wanted.with_label_values(&[pool]);
            gauge.set(i64::try_from(workers).unwrap_or(i64::MAX));
        }
    }
    let registry = Registry::new();
    registry.register(Box::new(tasks))?;
    registry.register(Box::new(oldest))?;
    registry.register(Box::new(wanted))?;
    Ok(registry.gather())
}

fn by_state(stats: &PoolStats) -> [(State, u64); 6] {
    [
        (State::Available, stats.available),
        (State::Running, stats.running),
        (State::Retryable, stats.retryable),
        (State::Completed, stats.completed),
        (State::Cancelled, stats.cancelled),
        (State::Dead, stats.dead),
    ]
}

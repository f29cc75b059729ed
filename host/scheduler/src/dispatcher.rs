//! Claims tasks for one pool.
//!
//! A permit comes before the claim: what is claimed has room and is handed to the pool's threads at once, so no task
//! waits in this process while another one could run it; for the same reason nothing is claimed while the pool's CPU
//! budget is overdrawn. One claim asks for as many tasks as there are free permits,
//! so under load the claims of a pool share one commit. Between claims the dispatcher sleeps until an event, an ended
//! run, the next due retry, or the poll that covers for a missed event.

use crate::{clock, executor, limits, permits::Permit, scheduler::PoolState, scheduler::Shared};
use formwork_store::{Claimed, limits::CLAIM_TASKS};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Claims until the scheduler drains.
pub(crate) async fn run(shared: Arc<Shared>, state: Arc<PoolState>) {
    let mut recovered = shared.recovered.subscribe();
    tokio::select! {
        () = shared.draining.cancelled() => return,
        _ = recovered.wait_for(|recovered| *recovered) => {}
    }
    let mut backoff = limits::STORE_BACKOFF_FIRST;
    loop {
        let Some(permits) = free_permits(&shared, &state).await else {
            return;
        };
        let wait = match claim(&shared, &state, permits).await {
            Ok(Found::More) => {
                backoff = limits::STORE_BACKOFF_FIRST;
                continue;
            }
            Ok(Found::All) => {
                backoff = limits::STORE_BACKOFF_FIRST;
                next_look(&shared, &state).await
            }
            Err(error) => {
                tracing::warn!(pool = %state.pool, %error, retry_in = ?backoff, "claim failed");
                let wait = backoff;
                backoff = (backoff * 2).min(limits::STORE_BACKOFF_LONGEST);
                // Events must not turn a failing store into a busy loop.
                tokio::select! {
                    () = shared.draining.cancelled() => return,
                    () = tokio::time::sleep(wait) => continue,
                }
            }
        };
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = state.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// All permits that are free, at least one; `None` when the scheduler drains.
async fn free_permits(shared: &Shared, state: &PoolState) -> Option<Permit> {
    loop {
        while state.paused.load(Ordering::Acquire) {
            tokio::select! {
                () = shared.draining.cancelled() => return None,
                () = state.wake.notified() => {}
            }
        }
        let permits = tokio::select! {
            biased;
            () = shared.draining.cancelled() => return None,
            permits = async {
                state.lane.budget().credit().await;
                state.permits.take_free().await
            } => permits,
        };
        if state.paused.load(Ordering::Acquire) {
            continue;
        }
        return Some(permits);
    }
}

/// What a claim tells about the tasks that wait.
enum Found {
    /// As many as were asked for: there may be more.
    More,
    /// Fewer: none is left.
    All,
}

/// Claims up to as many tasks as there are permits and starts them; the other permits are free again.
async fn claim(shared: &Arc<Shared>, state: &Arc<PoolState>, mut permits: Permit) -> formwork_store::Result<Found> {
    let limit = permits.count().min(CLAIM_TASKS);
    let claimed_at = Instant::now();
    // Never dropped half-way, not even by a drain: the store might have leased tasks to nobody.
    let claimed: Vec<Claimed> = shared
        .store
        .claim(state.pool, &shared.worker, limit, shared.options.lease_ms, clock::now())
        .await?;
    let found = if claimed.len() < limit as usize {
        Found::All
    } else {
        Found::More
    };
    for task in claimed {
        let run = shared.runs.insert(task.id, task.run_lease, state.pool, claimed_at);
        let permit = permits.split_one();
        let work = executor::run(Arc::clone(shared), Arc::clone(state), task, run);
        tokio::spawn(async move {
            work.await;
            drop(permit);
        });
    }
    Ok(found)
}

/// How long to sleep if nothing wakes us: until the next retry is due, or the poll.
async fn next_look(shared: &Shared, state: &PoolState) -> Duration {
    let poll = shared.options.pool(state.pool).poll();
    match shared.store.next_due(state.pool).await {
        Ok(Some(due)) => Duration::from_millis(due.since(clock::now()))
            .max(limits::DUE_WAIT_LEAST)
            .min(poll),
        Ok(None) => poll,
        Err(error) => {
            tracing::debug!(pool = %state.pool, %error, "next due time unknown, polling");
            poll
        }
    }
}

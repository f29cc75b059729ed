//! Applies what operators have set for the pools.
//!
//! The store keeps it, so that it holds on every node and over restarts. An event tells the node that took the change at
//! once; the others look every [`limits::CONTROLS_EVERY`].

use crate::{
    limits,
    scheduler::{PoolState, Shared},
};
use formwork_store::PoolControl;
use std::sync::{Arc, atomic::Ordering};

/// Looks until the scheduler ends. A store that does not answer leaves everything as it was.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = shared.controls_changed.notified() => {}
            () = tokio::time::sleep(limits::CONTROLS_EVERY) => {}
        }
        if let Err(error) = look(&shared).await {
            tracing::debug!(%error, "pool controls could not be read");
        }
    }
}

/// Reads and applies the controls of all pools.
pub(crate) async fn look(shared: &Shared) -> formwork_store::Result<()> {
    let _turn = shared.controls.lock().await;
    for (pool, control) in shared.store.pool_controls().await? {
        apply(shared, shared.pool(pool), control);
    }
    Ok(())
}

fn apply(shared: &Shared, state: &PoolState, control: PoolControl) {
    match shared.options.pool(state.pool).limits_under(state.pool, &control) {
        Ok(limits) => state.set_limits(limits),
        Err(error) => {
            tracing::warn!(pool = %state.pool, %error, "the pool keeps its limits, what was set for it is wrong");
        }
    }
    if state.paused.swap(control.paused, Ordering::AcqRel) != control.paused {
        tracing::info!(pool = %state.pool, paused = control.paused, "pool switched");
        state.wake.notify_one();
    }
}

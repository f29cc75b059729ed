//! Takes back the tasks of a former process, before anything is claimed.
//!
//! After a crash the tasks that ran are still leased, for up to a lease. An embedded store has exactly one process, and
//! this one has claimed nothing yet: whatever runs is run by nobody. So the leases are settled as if the last of them
//! had just ended. The only trace of that is the time of these lines in the history, which is when the lease would
//! have ended (at most one lease ahead), not the moment of the restart.
//!
//! Where other processes claim too (`sole_process` off), leases end by themselves.

use crate::{clock, controls, heartbeat, limits, scheduler::Shared};
use formwork_store::{Page, TaskFilter, limits::PAGE_ITEMS};
use formwork_tasks::{Millis, State};
use std::sync::Arc;

/// Recovers, then lets the dispatchers begin.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut backoff = limits::STORE_BACKOFF_FIRST;
    while let Err(error) = recover(&shared).await {
        tracing::warn!(%error, retry_in = ?backoff, "claiming cannot begin yet");
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(limits::STORE_BACKOFF_LONGEST);
    }
    shared.recovered.send_replace(true);
}

async fn recover(shared: &Shared) -> formwork_store::Result<()> {
    // A pool that is paused shall not claim in the moment of a restart.
    controls::look(shared).await?;
    if !shared.options.sole_process {
        return Ok(());
    }
    let Some(last) = last_lease(shared).await? else {
        return Ok(());
    };
    let tasks = heartbeat::reap(shared, last.max(clock::now())).await?;
    tracing::info!(tasks, "tasks of the former process taken back");
    Ok(())
}

/// When the last of the running tasks' leases ends.
async fn last_lease(shared: &Shared) -> formwork_store::Result<Option<Millis>> {
    let mut last = None;
    let mut after = None;
    loop {
        let filter = TaskFilter {
            state: Some(State::Running),
            ..TaskFilter::default()
        };
        let page = Page {
            limit: PAGE_ITEMS,
            after,
        };
        let page = shared.store.tasks(filter, page).await?;
        last = last.max(page.items.iter().filter_map(|task| task.lease_until).max());
        after = page.next;
        if after.is_none() {
            return Ok(last);
        }
    }
}

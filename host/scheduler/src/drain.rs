//! The graceful end: nothing new, what runs may finish, the rest goes back unspent.

use crate::{limits, runs::Stop, scheduler::Shared};
use serde::Serialize;
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time;

/// What became of the tasks that were running when a drain began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainReport {
    /// Ended by themselves and were recorded.
    pub finished: u64,
    /// Given back without spending an attempt.
    pub released: u64,
    /// Neither: the store did not answer, or the lease was lost. They come back when their lease ends.
    pub abandoned: u64,
}

/// Drains, reports, and ends the threads (also the one this runs on).
pub(crate) async fn run(shared: Arc<Shared>, grace: Duration) {
    let until = time::Instant::now() + grace;
    let tally = &shared.tally;
    let recorded = tally.recorded.load(Ordering::Relaxed);
    let released = tally.released.load(Ordering::Relaxed);
    shared.draining.cancel();
    let dispatchers: Vec<_> = {
        let mut dispatchers = shared.dispatchers.lock().unwrap_or_else(PoisonError::into_inner);
        dispatchers.drain(..).collect()
    };
    tracing::info!(running = shared.runs.all().len(), grace = ?grace, "draining");

    // A claim on its way is let in, so that its tasks are not leased to nobody.
    let claims_end = time::timeout_at(until + limits::DRAIN_RELEASE, async {
        for dispatcher in dispatchers {
            let _ = dispatcher.await;
        }
    });
    if claims_end.await.is_err() {
        tracing::warn!("a claim did not come back, its tasks come back when their lease ends");
    }
    if time::timeout_at(until, shared.runs.none()).await.is_err() {
        for run in shared.runs.all() {
            run.stop(Stop::Drain);
        }
        let patience = shared.options.stop_grace() + limits::DRAIN_RELEASE;
        let _ = time::timeout(patience, shared.runs.none()).await;
    }
    let abandoned = shared.runs.all().len() as u64;
    let report = DrainReport {
        finished: tally.recorded.load(Ordering::Relaxed) - recorded,
        released: tally.released.load(Ordering::Relaxed) - released,
        abandoned,
    };
    tracing::info!(
        finished = report.finished,
        released = report.released,
        abandoned = report.abandoned,
        "drained"
    );
    // Before the report: whoever gets it may start again on the same store. Nothing is awaited from here on, so the
    // thread this runs on does not end before the report is out.
    shared.end();
    shared.drained.send_replace(Some(report));
}

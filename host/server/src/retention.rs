//! Deletes what was kept long enough.
//!
//! **Promise.** In slices, so that nobody waits for a sweep; only what is settled; several nodes may sweep at once.
//! **Cost.** A read of every submission's head, each [`SWEEP_EVERY`]. **Rejected.** An index by the time a submission settled:
//! it would be written with every submission, for a sweep that has all night.

use std::sync::Arc;
use std::time::Duration;

use formwork_store::{Retention, Store, limits};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock;

/// How often everything is looked through: retention is counted in days.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Between two slices, so that a sweep takes a small part of the store's time.
const BETWEEN_SLICES: Duration = Duration::from_millis(50);

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long things are kept, in days from when a submission settled; 0: for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionDays {
    /// Submissions that are done or rejected, with tasks, history and idempotency keys.
    pub results_days: u32,
    /// Submissions that failed or have a dead task.
    pub failed_days: u32,
    /// Lines of exports, counted from when the submission was made.
    pub exports_days: u32,
}

impl RetentionDays {
    fn of_store(self) -> Retention {
        Retention {
            results_ms: milliseconds(self.results_days),
            failed_ms: milliseconds(self.failed_days),
        }
    }
}

fn milliseconds(days: u32) -> Option<u64> {
    (days > 0).then(|| u64::from(days) * DAY_MS)
}

/// Sweeps now and then until `stopped`; does nothing when everything is kept for ever.
pub fn start(store: Arc<dyn Store>, days: RetentionDays, stopped: CancellationToken) {
    if days == RetentionDays::default() {
        return;
    }
    tokio::spawn(async move {
        let mut turns = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                _ = turns.tick() => {}
            }
            tokio::select! {
                () = stopped.cancelled() => return,
                swept = sweep(&*store, days) => match swept {
                    Ok((0, 0)) => {}
                    Ok((submissions, exports)) => tracing::info!(submissions, exports, "deleted what was kept long enough"),
                    Err(error) => tracing::warn!(%error, "retention sweep broke off, the next one goes on"),
                },
            }
        }
    });
}

/// Deletes what has been kept long enough; answers how many submissions and lines of exports.
async fn sweep(store: &dyn Store, days: RetentionDays) -> formwork_store::Result<(u64, u64)> {
    let (mut submissions, mut exports) = (0, 0);
    if days.of_store() != Retention::default() {
        let mut after = None;
        loop {
            let slice = store.expire(days.of_store(), after, clock::now()).await?;
            submissions += u64::from(slice.submissions);
            after = slice.next;
            if after.is_none() {
                break;
            }
            tokio::time::sleep(BETWEEN_SLICES).await;
        }
    }
    if let Some(older_than_ms) = milliseconds(days.exports_days) {
        loop {
            let gone = store.expire_exports(older_than_ms, clock::now()).await?;
            exports += u64::from(gone);
            if gone < limits::EXPIRE_EXPORTS {
                break;
            }
            tokio::time::sleep(BETWEEN_SLICES).await;
        }
    }
    Ok((submissions, exports))
}

//! How far running tasks are, as their heartbeats told.

use super::{rows::change, writer::Write};
use crate::{NewProgress, Result, TaskId, TaskProgress};
use formwork_tasks::{Millis, RunLease};
use rusqlite::params;

/// Records what the run with this lease says. The lease stands beside it, so that it is never taken for the progress of a
/// later run.
pub(super) fn record(
    write: &mut Write<'_>,
    id: TaskId,
    lease: RunLease,
    progress: &NewProgress,
    now: Millis,
) -> Result<()> {
    let kept = TaskProgress::kept(progress, now);
    change(
        write.connection,
        "INSERT INTO task_progress (submission, step, run_lease, fraction, message, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET run_lease = excluded.run_lease, fraction = excluded.fraction,
             message = excluded.message, at = excluded.at",
        params![
            id.submission.to_string(),
            id.step,
            lease.0,
            kept.fraction,
            kept.message,
            kept.at.0
        ],
    )?;
    write.effects.changed(id);
    Ok(())
}

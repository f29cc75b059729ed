//! Deleting what has been kept long enough.
//!
//! No index by settling time: it would be written with every submission that settles, for a sweep that runs now and then.
//! Ids sort by time, so a sweep walks them from the oldest and ends at the first that cannot have been kept long enough.

use super::{
    failure::sql,
    rows::{all, change, maybe_millis, parsed, pool},
    writer::Write,
};
use crate::{Expired, Result, Retention, SubmissionId, limits};
use formwork_tasks::{Millis, State, SubmissionStatus};
use rusqlite::params;

/// Tables with rows of a submission besides its own, tasks last.
const PARTS: [&str; 6] = [
    "DELETE FROM submission_data WHERE submission = ?1",
    "DELETE FROM idempotency WHERE submission = ?1",
    "DELETE FROM task_runs WHERE submission = ?1",
    "DELETE FROM task_events WHERE submission = ?1",
    "DELETE FROM task_progress WHERE submission = ?1",
    "DELETE FROM tasks WHERE submission = ?1",
];

struct Candidate {
    id: SubmissionId,
    status: SubmissionStatus,
    submitted_at: Millis,
    settled_at: Option<Millis>,
    dead: bool,
}

/// One slice of a sweep.
pub(super) fn expire(
    write: &mut Write<'_>,
    retention: Retention,
    after: Option<SubmissionId>,
    now: Millis,
) -> Result<Expired> {
    let Some(shortest) = [retention.results_ms, retention.failed_ms].into_iter().flatten().min() else {
        return Ok(Expired::default());
    };
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let candidates = all(
        write.connection,
        "SELECT id, status, submitted_at, settled_at,
             EXISTS (SELECT 1 FROM tasks WHERE tasks.submission = id AND tasks.state = 'dead')
         FROM submissions WHERE id > ?1 ORDER BY id LIMIT ?2",
        params![after, limits::EXPIRE_SUBMISSIONS],
        |row| {
            Ok(Candidate {
                id: parsed(row, 0)?,
                status: parsed(row, 1)?,
                submitted_at: Millis(row.get(2)?),
                settled_at: maybe_millis(row, 3)?,
                dead: row.get(4)?,
            })
        },
    )?;
    let full = candidates.len() == limits::EXPIRE_SUBMISSIONS as usize;
    let last = candidates.last().map(|last| (last.id, last.submitted_at));
    let mut expired = Expired::default();
    for candidate in candidates {
        let failed = candidate.dead || candidate.status == SubmissionStatus::Failed;
        // Only what is settled has a time of settling.
        if let Some(settled_at) = candidate.settled_at
            && candidate.status.is_settled()
            && retention.has_passed(settled_at, failed, now)
        {
            delete(write, candidate.id)?;
            expired.submissions += 1;
        }
    }
    // What comes later was submitted later, and settled later than that.
    expired.next = last
        .filter(|(_, submitted_at)| full && now.since(*submitted_at) >= shortest)
        .map(|(id, _)| id);
    Ok(expired)
}

fn delete(write: &mut Write<'_>, id: SubmissionId) -> Result<()> {
    let text = id.to_string();
    let tasks = all(
        write.connection,
        "SELECT pool, state FROM tasks WHERE submission = ?1",
        params![text],
        |row| Ok((pool(row, 0)?, parsed::<State>(row, 1)?)),
    )?;
    for (pool, state) in tasks {
        debug_assert!(state.is_terminal(), "{id} has a task that is {state}");
        write.effects.forget(pool, state);
    }
    for statement in PARTS {
        change(write.connection, statement, params![text])?;
    }
    change(write.connection, "DELETE FROM submissions WHERE id = ?1", params![text]).map(drop)
}

/// Deletes the oldest export chunks.
pub(super) fn expire_exports(write: &mut Write<'_>, older_than_ms: u64, now: Millis) -> Result<u32> {
    let oldest = all(
        write.connection,
        "SELECT sequence, submission FROM exports ORDER BY sequence LIMIT ?1",
        params![limits::EXPIRE_EXPORTS],
        |row| Ok((row.get::<_, i64>(0)?, parsed::<SubmissionId>(row, 1)?)),
    )?;
    let old = oldest
        .into_iter()
        .take_while(|(_, submission)| now.since(submission.made_at()) >= older_than_ms);
    let Some((last, _)) = old.last() else {
        return Ok(0);
    };
    let deleted = write
        .connection
        .prepare_cached("DELETE FROM exports WHERE sequence <= ?1")
        .and_then(|mut statement| statement.execute(params![last]))
        .map_err(sql("expire exports"))?;
    Ok(u32::try_from(deleted).unwrap_or(u32::MAX))
}

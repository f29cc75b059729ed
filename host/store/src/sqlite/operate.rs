//! What operators and clients do to tasks, and the numbers they look at.

use super::{
    rows::{all, change, maybe_millis, one, parsed},
    submissions::settle,
    transition,
    writer::Write,
};
use crate::{Cancel, Error, PoolStats, Result, Retry, StoreEvent, TaskId};
use formwork_tasks::{Change, Command, Millis, Pool, Priority, State};
use rusqlite::{Connection, params};

/// Cancels a task, or asks its worker to.
pub(super) fn cancel(write: &mut Write<'_>, id: TaskId, now: Millis) -> Result<Cancel> {
    let mut task = transition::load(write.connection, id)?.ok_or(Error::UnknownTask(id))?;
    match transition::apply(write, &mut task, Command::Cancel, now, None)? {
        Ok(Change::Moved(_)) => {
            settle(write, id.submission, now)?;
            Ok(Cancel::Cancelled)
        }
        Ok(Change::Kept) => {
            write.effects.tell(StoreEvent::CancelRequested { task: id });
            Ok(Cancel::Requested)
        }
        Err(_) => Ok(Cancel::AlreadyFinished(task.lifecycle.state)),
    }
}

/// Makes a task available again.
pub(super) fn retry(write: &mut Write<'_>, id: TaskId, now: Millis) -> Result<Retry> {
    let mut task = transition::load(write.connection, id)?.ok_or(Error::UnknownTask(id))?;
    match transition::apply(write, &mut task, Command::Retry, now, None)? {
        Ok(_) => {
            settle(write, id.submission, now)?;
            Ok(Retry::Retried)
        }
        Err(_) => Ok(Retry::Refused(task.lifecycle.state)),
    }
}

/// A write that changes nothing anybody reads, to prove that writing works.
pub(super) fn probe(write: &mut Write<'_>) -> Result<()> {
    change(
        write.connection,
        "INSERT INTO probe (id, at) VALUES (1, CAST(unixepoch('subsec') * 1000 AS INTEGER))
         ON CONFLICT DO UPDATE SET at = CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        [],
    )
    .map(drop)
}

/// When the pool's next retry is due.
pub(super) fn next_due(connection: &Connection, pool: Pool) -> Result<Option<Millis>> {
    let due = one(
        connection,
        "SELECT min(run_at) FROM tasks INDEXED BY tasks_retryable
         WHERE state = 'retryable' AND pool = ?1",
        params![pool.as_str()],
        |row| maybe_millis(row, 0),
    )?;
    Ok(due.flatten())
}

/// The load of every pool.
pub(super) fn pool_stats(connection: &Connection, now: Millis) -> Result<Vec<PoolStats>> {
    let counts = all(connection, "SELECT pool, state, count FROM pool_counts", [], |row| {
        Ok((parsed::<Pool>(row, 0)?, parsed::<State>(row, 1)?, row.get::<_, i64>(2)?))
    })?;
    let count = |pool: Pool, state: State| {
        counts
            .iter()
            .find(|(of, in_state, _)| *of == pool && *in_state == state)
            .map_or(0, |(_, _, count)| u64::try_from(*count).unwrap_or(0))
    };
    Pool::ALL
        .into_iter()
        .map(|pool| {
            Ok(PoolStats {
                pool,
                available: count(pool, State::Available),
                running: count(pool, State::Running),
                retryable: count(pool, State::Retryable),
                completed: count(pool, State::Completed),
                cancelled: count(pool, State::Cancelled),
                dead: count(pool, State::Dead),
                oldest_available_ms: oldest_available(connection, pool)?.map(|since| now.since(since)),
            })
        })
        .collect()
}

/// One look at the index for each priority: the index is ordered by priority first.
fn oldest_available(connection: &Connection, pool: Pool) -> Result<Option<Millis>> {
    let mut oldest: Option<Millis> = None;
    for level in Priority::LOWEST.level()..=Priority::HIGHEST.level() {
        let first = one(
            connection,
            "SELECT min(run_at) FROM tasks INDEXED BY tasks_available
             WHERE state = 'available' AND pool = ?1 AND priority = ?2",
            params![pool.as_str(), level],
            |row| maybe_millis(row, 0),
        )?
        .flatten();
        oldest = match (oldest, first) {
            (Some(oldest), Some(first)) => Some(oldest.min(first)),
            (oldest, first) => oldest.or(first),
        };
    }
    Ok(oldest)
}

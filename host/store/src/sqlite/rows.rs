//! Reading rows into values.

use super::failure::sql;
use crate::{Result, SubmissionId, TaskId};
use formwork_tasks::{DeadReason, Lifecycle, Millis, Pool, Priority, RunLease, State, UnknownState, Verdict};
use rusqlite::{Connection, OptionalExtension, Params, Row, types::Type};
use std::str::FromStr;

/// The first row of a cached statement, if there is one.
pub(super) fn one<T>(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.query_row(parameters, read).optional())
        .map_err(sql("read"))
}

/// All rows of a cached statement.
pub(super) fn all<T>(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.query_map(parameters, read)?.collect())
        .map_err(sql("read"))
}

/// Runs a cached statement that changes rows; says how many.
pub(super) fn change(connection: &Connection, statement: &'static str, parameters: impl Params) -> Result<usize> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute(parameters))
        .map_err(sql("write"))
}

/// A decoding error as rusqlite's, with the column it happened in.
pub(super) fn decode<T, E>(column: usize, result: Result<T, E>) -> rusqlite::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// A text column as the value it spells.
pub(super) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    decode(column, row.get_ref(column)?.as_str()?.parse())
}

/// As [`parsed`], for a column that may be null.
pub(super) fn maybe_parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(column)?.as_str_or_null()? {
        Some(text) => decode(column, text.parse().map(Some)),
        None => Ok(None),
    }
}

/// A verdict column.
pub(super) fn verdict(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Verdict>> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some("accepted") => Ok(Some(Verdict::Accepted)),
        Some("rejected") => Ok(Some(Verdict::Rejected)),
        Some(other) => decode(column, Err(UnknownState(other.to_owned()))),
    }
}

/// A nullable column of milliseconds.
pub(super) fn maybe_millis(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Millis>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Millis))
}

/// A task's identifier in two neighbouring columns.
pub(super) fn task_id(row: &Row<'_>, column: usize) -> rusqlite::Result<TaskId> {
    Ok(TaskId::new(parsed::<SubmissionId>(row, column)?, row.get(column + 1)?))
}

/// The columns of [`lifecycle`], in its order.
macro_rules! lifecycle_columns {
    () => {
        "state, tasks.run_lease, attempt, errors, crashes, run_at, lease_until, cancel_requested, \
         verdict, dead_reason"
    };
}
pub(super) use lifecycle_columns;

/// How many columns [`lifecycle`] reads.
pub(super) const LIFECYCLE_COLUMNS: usize = 10;

/// The deciding part of a task, from neighbouring columns.
pub(super) fn lifecycle(row: &Row<'_>, first: usize) -> rusqlite::Result<Lifecycle> {
    Ok(Lifecycle {
        state: parsed::<State>(row, first)?,
        run_lease: RunLease(row.get(first + 1)?),
        attempt: row.get(first + 2)?,
        errors: row.get(first + 3)?,
        crashes: row.get(first + 4)?,
        run_at: Millis(row.get(first + 5)?),
        lease_until: maybe_millis(row, first + 6)?,
        cancel_requested: row.get(first + 7)?,
        verdict: verdict(row, first + 8)?,
        dead_reason: maybe_parsed::<DeadReason>(row, first + 9)?,
    })
}

/// A pool column.
pub(super) fn pool(row: &Row<'_>, column: usize) -> rusqlite::Result<Pool> {
    parsed(row, column)
}

/// A priority column.
pub(super) fn priority(row: &Row<'_>, column: usize) -> rusqlite::Result<Priority> {
    decode(column, Priority::try_new(row.get(column)?))
}

//! The counters of the pools, written once per commit.

use super::failure::sql;
use crate::{Result, effects::Effects};
use rusqlite::{Connection, params};

/// Writes the counters, inside the transaction.
pub(super) fn write_counts(connection: &Connection, effects: &Effects) -> Result<()> {
    for (pool, state, change) in effects.counts() {
        connection
            .prepare_cached(
                "INSERT INTO pool_counts (pool, state, count) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET count = count + excluded.count",
            )
            .and_then(|mut statement| statement.execute(params![pool.as_str(), state.as_str(), change]))
            .map_err(sql("count"))?;
    }
    Ok(())
}

//! What operators have set for the pools.

use super::{
    rows::{self, change, parsed},
    writer::Write,
};
use crate::{PoolControl, PoolControlChange, Result, StoreEvent};
use formwork_tasks::{Millis, Pool};
use rusqlite::{Connection, params};

/// The control of every pool.
pub(super) fn all(connection: &Connection) -> Result<Vec<(Pool, PoolControl)>> {
    let set = rows::all(
        connection,
        "SELECT pool, paused, cpus, burst, permits FROM pool_controls",
        [],
        |row| {
            let control = PoolControl {
                paused: row.get(1)?,
                cpus: row.get(2)?,
                burst: row.get(3)?,
                permits: row.get(4)?,
            };
            Ok((parsed::<Pool>(row, 0)?, control))
        },
    )?;
    let of = |pool: Pool| set.iter().find(|(of, _)| *of == pool).map(|(_, control)| *control);
    Ok(Pool::ALL
        .into_iter()
        .map(|pool| (pool, of(pool).unwrap_or_default()))
        .collect())
}

/// Changes the control of one pool.
pub(super) fn set(write: &mut Write<'_>, pool: Pool, changed: PoolControlChange, now: Millis) -> Result<PoolControl> {
    let before = all(write.connection)?;
    let before = before.into_iter().find(|(of, _)| *of == pool);
    let control = changed.applied_to(before.map(|(_, control)| control).unwrap_or_default());
    change(
        write.connection,
        "INSERT INTO pool_controls (pool, paused, cpus, burst, permits, changed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET paused = excluded.paused, cpus = excluded.cpus, burst = excluded.burst,
             permits = excluded.permits, changed_at = excluded.changed_at",
        params![
            pool.as_str(),
            control.paused,
            control.cpus,
            control.burst,
            control.permits,
            now.0
        ],
    )?;
    write.effects.tell(StoreEvent::ControlsChanged);
    Ok(control)
}

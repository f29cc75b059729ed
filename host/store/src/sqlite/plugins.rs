//! Pushed plugins: few, large, never changed.

use super::{
    rows::{all, change, one},
    writer::Write,
};
use crate::{NewPlugin, PutPlugin, Result, StoreEvent, StoredPlugin};
use formwork_tasks::Millis;
use rusqlite::{Connection, params};

/// Keeps a plugin's component.
pub(super) fn put(write: &mut Write<'_>, plugin: &NewPlugin, now: Millis) -> Result<PutPlugin> {
    let held = one(
        write.connection,
        "SELECT digest FROM plugins WHERE name = ?1 AND version = ?2",
        params![plugin.name, plugin.version],
        |row| row.get::<_, String>(0),
    )?;
    match held {
        Some(digest) if digest == plugin.digest => return Ok(PutPlugin::Unchanged),
        Some(digest) => return Ok(PutPlugin::VersionTaken { digest }),
        None => {}
    }
    change(
        write.connection,
        "INSERT INTO plugins (name, version, digest, created_at, bytes, component) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            plugin.name,
            plugin.version,
            plugin.digest,
            now.0,
            plugin.component.len(),
            plugin.component
        ],
    )?;
    write.effects.tell(StoreEvent::PluginsChanged);
    Ok(PutPlugin::Created)
}

/// Every pushed plugin, oldest first.
pub(super) fn list(connection: &Connection) -> Result<Vec<StoredPlugin>> {
    all(
        connection,
        "SELECT name, version, digest, created_at, bytes FROM plugins ORDER BY created_at, name, version",
        [],
        |row| {
            Ok(StoredPlugin {
                name: row.get(0)?,
                version: row.get(1)?,
                digest: row.get(2)?,
                created_at: Millis(row.get(3)?),
                bytes: row.get(4)?,
            })
        },
    )
}

/// The component with this digest.
pub(super) fn component(connection: &Connection, digest: &str) -> Result<Option<Vec<u8>>> {
    one(
        connection,
        "SELECT component FROM plugins WHERE digest = ?1",
        params![digest],
        |row| row.get(0),
    )
}

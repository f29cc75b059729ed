//! Opening connections, and proving that they are what the promises need.

use super::failure::sql;
use crate::{Error, Result, limits};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{path::Path, time::Duration};

/// When an acknowledged write is on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged (`synchronous=FULL`).
    #[default]
    Sync,
    /// At most this many milliseconds (plus one fsync) after it was acknowledged; survives the process being
    /// killed at any time, not a power cut.
    Interval {
        /// The longest loss window, in milliseconds.
        ms: u64,
    },
}

/// Refuses SQLite libraries that are known to lose data.
pub(super) fn check_library() -> Result<()> {
    if rusqlite::version_number() < limits::SQLITE_VERSION_LEAST {
        return Err(Error::Unsupported {
            what: "sqlite library",
            found: rusqlite::version().to_owned(),
            need: "3.51.3 or later, use the bundled one".to_owned(),
        });
    }
    Ok(())
}

/// Opens the only connection that writes.
pub(super) fn open_writer(path: &Path, durability: Durability) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql("open"))?;
    prepare(&connection)?;

    let mode: String = connection
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(sql("set journal mode"))?;
    expect_setting("journal_mode", "wal", mode)?;

    let (name, level) = match durability {
        Durability::Sync => ("FULL", 2_i64),
        Durability::Interval { .. } => ("NORMAL", 1),
    };
    set(&connection, "synchronous", name)?;
    let read_back: i64 = connection
        .query_row("PRAGMA synchronous", [], |row| row.get(0))
        .map_err(sql("read settings"))?;
    expect_setting("synchronous", &level.to_string(), read_back.to_string())?;

    // The writer checkpoints by itself, after it has answered.
    set(&connection, "wal_autocheckpoint", "0")?;
    set(&connection, "journal_size_limit", &limits::WAL_FILE_BYTES.to_string())?;
    Ok(connection)
}

/// Opens a connection that cannot write.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    // Not SQLITE_OPEN_READ_ONLY: a read-only connection cannot always recover a write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sql("open reader"))?;
    prepare(&connection)?;
    set(&connection, "query_only", "ON")?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<()> {
    connection
        .busy_timeout(Duration::from_millis(limits::BUSY_MS))
        .map_err(sql("set busy timeout"))?;
    connection.set_prepared_statement_cache_capacity(limits::STATEMENTS);
    // Without it the planner looks at bound values, and a cached statement is planned again on each use.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(sql("set query planner stability"))?;
    set(connection, "foreign_keys", "OFF")?; // one writer, whole submissions: every key is made with its rows
    set(connection, "mmap_size", "0")?; // an i/o error on a mapped page would kill the process
    set(connection, "cache_size", &format!("-{}", limits::PAGE_CACHE_KIB))?;
    set(connection, "temp_store", "MEMORY")
}

fn set(connection: &Connection, name: &'static str, value: &str) -> Result<()> {
    // Some pragmas answer with a row, which `execute` refuses.
    connection
        .prepare(&format!("PRAGMA {name} = {value}"))
        .and_then(|mut statement| statement.query([])?.next().map(drop))
        .map_err(sql("set a pragma"))
}

fn expect_setting(what: &'static str, need: &str, found: String) -> Result<()> {
    if found == need {
        return Ok(());
    }
    Err(Error::Unsupported {
        what,
        found,
        need: need.to_owned(),
    })
}

//! The tables, and how an older file becomes a newer one.
//!
//! Wide and changing parts are kept apart: a task's row is rewritten with every state, so its output, and a
//! submission's data, are rows of their own that are written once.

use super::failure::sql;
use crate::{Error, Result};
use rusqlite::Connection;

/// Each entry takes a file from the version of its index to the next. Released entries never change.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4];

const V1: &str = "
CREATE TABLE forms (
    id          TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    digest      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    steps       TEXT    NOT NULL,
    definition  TEXT    NOT NULL,
    PRIMARY KEY (id, version)
) STRICT;

CREATE TABLE submissions (
    id             TEXT    NOT NULL PRIMARY KEY,
    form           TEXT    NOT NULL,
    form_version   INTEGER NOT NULL,
    status         TEXT    NOT NULL,
    priority       INTEGER,
    correlation_id TEXT    NOT NULL,
    submitted_at   INTEGER NOT NULL,
    settled_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX submissions_by_form ON submissions (form, id);

CREATE TABLE submission_data (
    submission TEXT NOT NULL PRIMARY KEY,
    data       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    form        TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    submission  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (form, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    submission       TEXT    NOT NULL,
    step             INTEGER NOT NULL,
    step_name        TEXT    NOT NULL,
    form             TEXT    NOT NULL,
    form_version     INTEGER NOT NULL,
    pool             TEXT    NOT NULL,
    priority         INTEGER NOT NULL,
    state            TEXT    NOT NULL,
    run_lease        INTEGER NOT NULL,
    attempt          INTEGER NOT NULL,
    errors           INTEGER NOT NULL,
    crashes          INTEGER NOT NULL,
    run_at           INTEGER NOT NULL,
    lease_until      INTEGER,
    cancel_requested INTEGER NOT NULL,
    verdict          TEXT,
    dead_reason      TEXT,
    worker           TEXT,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    error_code       TEXT,
    error_message    TEXT,
    events           INTEGER NOT NULL,
    PRIMARY KEY (submission, step)
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_available ON tasks (pool, priority DESC, run_at, submission, step)
    WHERE state = 'available';
CREATE INDEX tasks_running   ON tasks (lease_until)            WHERE state = 'running';
CREATE INDEX tasks_retryable ON tasks (pool, run_at)           WHERE state = 'retryable';
CREATE INDEX tasks_cancelled ON tasks (submission, step, pool) WHERE state = 'cancelled';
CREATE INDEX tasks_dead      ON tasks (submission, step, pool) WHERE state = 'dead';

CREATE TABLE task_runs (
    submission TEXT    NOT NULL,
    step       INTEGER NOT NULL,
    cpu_ms     REAL,
    provenance TEXT,
    output     TEXT,
    PRIMARY KEY (submission, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE task_events (
    submission TEXT    NOT NULL,
    step       INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    who        TEXT    NOT NULL,
    from_state TEXT,
    to_state   TEXT    NOT NULL,
    run_lease  INTEGER NOT NULL,
    why        TEXT    NOT NULL,
    PRIMARY KEY (submission, step, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE exports (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    form         TEXT    NOT NULL,
    form_version INTEGER NOT NULL,
    step_name    TEXT    NOT NULL,
    submission   TEXT    NOT NULL,
    step         INTEGER NOT NULL,
    bytes        BLOB    NOT NULL,
    UNIQUE (submission, step)
) STRICT;
CREATE INDEX exports_by_step ON exports (form, form_version, step_name, sequence);

CREATE TABLE pool_counts (
    pool  TEXT    NOT NULL,
    state TEXT    NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (pool, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE probe (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
";

/// Progress is a table of its own: few tasks have any, and the row of a task, which every move rewrites, stays short.
const V2: &str = "
CREATE TABLE task_progress (
    submission TEXT    NOT NULL,
    step       INTEGER NOT NULL,
    run_lease  INTEGER NOT NULL,
    fraction   REAL,
    message    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (submission, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE pool_controls (
    pool       TEXT    NOT NULL PRIMARY KEY,
    paused     INTEGER NOT NULL,
    cpus       REAL,
    burst      INTEGER,
    permits    INTEGER,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_submission ON idempotency (submission);
";

/// The component is the last column: listing the others does not read it.
const V3: &str = "
CREATE TABLE plugins (
    name       TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    digest     TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    component  BLOB    NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;
CREATE INDEX plugins_by_digest ON plugins (digest);
";

/// The first line of a history says nothing that the task's row does not: it was a row more to write with every
/// submission.
const V4: &str = "
DELETE FROM task_events WHERE sequence = 1;
";

/// Brings the file to the newest version, each step in a transaction of its own; refuses newer files.
pub(super) fn migrate(connection: &mut Connection) -> Result<()> {
    let newest = MIGRATIONS.len();
    let found: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sql("read schema version"))?;
    let mut version = usize::try_from(found)
        .ok()
        .filter(|version| *version <= newest)
        .ok_or_else(|| Error::Unsupported {
            what: "database schema",
            found: format!("version {found}"),
            need: format!("version {newest} or older, this program is older than the file"),
        })?;
    while let Some(migration) = MIGRATIONS.get(version) {
        version += 1;
        let transaction = connection.transaction().map_err(sql("migrate"))?;
        transaction
            .execute_batch(&format!("{migration} PRAGMA user_version = {version};"))
            .map_err(sql("migrate"))?;
        transaction.commit().map_err(sql("migrate"))?;
        tracing::info!(version, "database schema migrated");
    }
    Ok(())
}

-- A database of schema version 1 with one running task, as the first release made it. Never edit.
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

INSERT INTO forms VALUES ('contact', 1, 'sha256:0', 1700000000000, '[{"name":"check","pool":"high"},{"name":"archive"}]', '{}');
INSERT INTO submissions VALUES ('01HF7YAT00000000000000000A', 'contact', 1, 'processing', NULL, 'request-1', 1700000000000, NULL);
INSERT INTO submission_data VALUES ('01HF7YAT00000000000000000A', '{"message":"hello"}');
INSERT INTO idempotency VALUES ('contact', 'order-7', 'a', '01HF7YAT00000000000000000A', 1700000000000);
INSERT INTO tasks VALUES ('01HF7YAT00000000000000000A', 0, 'check', 'contact', 1, 'high', 5, 'running', 1, 1, 0, 0,
    1700000000000, 1700000030000, 0, NULL, NULL, 'w-1', 1700000000000, 1700000000001, NULL, NULL, NULL, 2);
INSERT INTO task_events VALUES ('01HF7YAT00000000000000000A', 0, 1, 1700000000000, 'pipeline', NULL, 'available', 0, 'created');
INSERT INTO task_events VALUES ('01HF7YAT00000000000000000A', 0, 2, 1700000000001, 'worker:w-1', 'available', 'running', 1, 'claimed');
INSERT INTO pool_counts VALUES ('high', 'available', 0);
INSERT INTO pool_counts VALUES ('high', 'running', 1);
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;

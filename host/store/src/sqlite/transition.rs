//! Making and moving one task: the row, its history line and its counter always change together. The first line needs
//! no row of its own ([`super::views::history`]).

use super::{
    rows::{change, lifecycle, lifecycle_columns, one, pool, priority},
    writer::Write,
};
use crate::{
    Result, TaskError, TaskEvent, TaskId,
    record::{Applied, TaskRecord},
};
use formwork_tasks::{Change, Command, Millis, Refusal, State};
use rusqlite::{Connection, params};

/// Loads a task's row.
pub(super) fn load(connection: &Connection, id: TaskId) -> Result<Option<TaskRecord>> {
    one(
        connection,
        concat!(
            "SELECT ",
            lifecycle_columns!(),
            ", pool, form, form_version, step_name, worker, started_at, finished_at,
               error_code, error_message, events, priority
             FROM tasks WHERE submission = ?1 AND step = ?2"
        ),
        params![id.submission.to_string(), id.step],
        |row| {
            let code: Option<String> = row.get(17)?;
            let message: Option<String> = row.get(18)?;
            Ok(TaskRecord {
                id,
                lifecycle: lifecycle(row, 0)?,
                pool: pool(row, 10)?,
                priority: priority(row, 20)?,
                form: row.get(11)?,
                form_version: row.get(12)?,
                step_name: row.get(13)?,
                worker: row.get(14)?,
                started_at: row.get(15)?,
                finished_at: row.get(16)?,
                error: code.map(|code| TaskError {
                    code,
                    message: message.unwrap_or_default(),
                }),
                events: row.get(19)?,
            })
        },
    )
}

/// Applies a command to a loaded task and stores what came out; a refusal stores nothing. `detail` follows
/// the reason in the history.
pub(super) fn apply(
    write: &mut Write<'_>,
    task: &mut TaskRecord,
    command: Command,
    now: Millis,
    detail: Option<&str>,
) -> Result<Result<Change, Refusal>> {
    let applied = match task.apply(command, now, detail) {
        Ok(applied) => applied,
        Err(refusal) => return Ok(Err(refusal)),
    };
    save(write.connection, task)?;
    let done = applied.change();
    if let Applied::Moved(moved, line) = applied {
        record(write.connection, task.id, &line)?;
        write.effects.moved(task.pool, Some(moved.from), moved.to);
        write.effects.changed(task.id);
    }
    Ok(Ok(done))
}

fn save(connection: &Connection, task: &TaskRecord) -> Result<()> {
    let life = &task.lifecycle;
    let changed = change(
        connection,
        "UPDATE tasks SET state = ?3, run_lease = ?4, attempt = ?5, errors = ?6, crashes = ?7,
             run_at = ?8, lease_until = ?9, cancel_requested = ?10, verdict = ?11,
             dead_reason = ?12, worker = ?13, started_at = ?14, finished_at = ?15,
             error_code = ?16, error_message = ?17, events = ?18
         WHERE submission = ?1 AND step = ?2",
        params![
            task.id.submission.to_string(),
            task.id.step,
            life.state.as_str(),
            life.run_lease.0,
            life.attempt,
            life.errors,
            life.crashes,
            life.run_at.0,
            life.lease_until.map(|until| until.0),
            life.cancel_requested,
            life.verdict.map(|verdict| verdict.as_str()),
            life.dead_reason.map(|reason| reason.as_str()),
            task.worker,
            task.started_at,
            task.finished_at,
            task.error.as_ref().map(|error| &error.code),
            task.error.as_ref().map(|error| &error.message),
            task.events,
        ],
    )?;
    debug_assert_eq!(changed, 1, "{}", task.id);
    Ok(())
}

fn record(connection: &Connection, id: TaskId, line: &TaskEvent) -> Result<()> {
    change(
        connection,
        "INSERT INTO task_events
             (submission, step, sequence, at, who, from_state, to_state, run_lease, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id.submission.to_string(),
            id.step,
            line.sequence,
            line.at.0,
            line.who,
            line.from.map(State::as_str),
            line.to.as_str(),
            line.run_lease.0,
            line.why,
        ],
    )?;
    Ok(())
}

/// Makes the task of a step that may run now.
pub(super) fn create(
    write: &mut Write<'_>,
    id: TaskId,
    form: &str,
    form_version: u32,
    step: &formwork_tasks::Step,
    priority: formwork_tasks::Priority,
    now: Millis,
) -> Result<()> {
    let task = TaskRecord::create(id, form, form_version, step, priority, now);
    change(
        write.connection,
        "INSERT INTO tasks (submission, step, step_name, form, form_version, pool, priority,
             state, run_lease, attempt, errors, crashes, run_at, cancel_requested, created_at,
             events)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, 0, 0, ?9, 0, ?9, 1)",
        params![
            id.submission.to_string(),
            id.step,
            task.step_name,
            task.form,
            task.form_version,
            task.pool.as_str(),
            task.priority.level(),
            task.lifecycle.state.as_str(),
            now.0,
        ],
    )?;
    write.effects.moved(task.pool, None, State::Available);
    Ok(())
}

//! Moving one task: the row, its history line and its counter always change together.

use super::{
    rows::{change, lifecycle, lifecycle_columns, one, pool},
    writer::Write,
};
use crate::{Result, StoreEvent, TaskError, TaskId};
use formwork_tasks::{Actor, Change, Command, Lifecycle, Millis, Pool, Refusal, State};
use rusqlite::{Connection, params};

/// The part of a task's row that changes, and what is needed to change it.
pub(super) struct TaskRow {
    pub(super) id: TaskId,
    pub(super) pool: Pool,
    pub(super) form: String,
    pub(super) form_version: u32,
    pub(super) step_name: String,
    pub(super) lifecycle: Lifecycle,
    pub(super) worker: Option<String>,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) error: Option<TaskError>,
    events: u32,
}

/// Loads a task's row.
pub(super) fn load(connection: &Connection, id: TaskId) -> Result<Option<TaskRow>> {
    one(
        connection,
        concat!(
            "SELECT ",
            lifecycle_columns!(),
            ", pool, form, form_version, step_name, worker, started_at, finished_at,
               error_code, error_message, events
             FROM tasks WHERE submission = ?1 AND step = ?2"
        ),
        params![id.submission.to_string(), id.step],
        |row| {
            let code: Option<String> = row.get(17)?;
            let message: Option<String> = row.get(18)?;
            Ok(TaskRow {
                id,
                lifecycle: lifecycle(row, 0)?,
                pool: pool(row, 10)?,
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
    task: &mut TaskRow,
    command: Command,
    now: Millis,
    detail: Option<&str>,
) -> Result<Result<Change, Refusal>> {
    let done = match task.lifecycle.apply(command, now) {
        Ok(done) => done,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let Change::Moved(moved) = done else {
        save(write.connection, task)?;
        return Ok(Ok(done));
    };
    match moved.to {
        State::Running => {
            task.started_at = Some(now.0);
            task.finished_at = None;
        }
        to if to.is_terminal() => task.finished_at = Some(now.0),
        _ => task.finished_at = None,
    }
    task.events += 1;
    save(write.connection, task)?;
    let who = match (moved.actor, &task.worker) {
        (Actor::Worker, Some(worker)) => format!("worker:{worker}"),
        (actor, _) => actor.as_str().to_owned(),
    };
    let why = match detail {
        Some(detail) => format!("{}: {detail}", moved.why),
        None => moved.why.to_owned(),
    };
    record(
        write.connection,
        task.id,
        task.events,
        now,
        &who,
        Some(moved.from),
        task,
        &why,
    )?;
    write.effects.count(task.pool, Some(moved.from), moved.to);
    if moved.to == State::Available {
        write.effects.tell(StoreEvent::TasksAvailable { pool: task.pool });
    }
    Ok(Ok(done))
}

fn save(connection: &Connection, task: &TaskRow) -> Result<()> {
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

#[expect(clippy::too_many_arguments, reason = "one history line has this many columns")]
fn record(
    connection: &Connection,
    id: TaskId,
    sequence: u32,
    now: Millis,
    who: &str,
    from: Option<State>,
    task: &TaskRow,
    why: &str,
) -> Result<()> {
    change(
        connection,
        "INSERT INTO task_events
             (submission, step, sequence, at, who, from_state, to_state, run_lease, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            id.submission.to_string(),
            id.step,
            sequence,
            now.0,
            who,
            from.map(State::as_str),
            task.lifecycle.state.as_str(),
            task.lifecycle.run_lease.0,
            why,
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
    let task = TaskRow {
        id,
        pool: step.pool,
        form: form.to_owned(),
        form_version,
        step_name: step.name.clone(),
        lifecycle: Lifecycle::new(now),
        worker: None,
        started_at: None,
        finished_at: None,
        error: None,
        events: 1,
    };
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
            priority.level(),
            task.lifecycle.state.as_str(),
            now.0,
        ],
    )?;
    let who = Actor::Pipeline.as_str();
    record(write.connection, id, 1, now, who, None, &task, "created")?;
    write.effects.count(task.pool, None, State::Available);
    write.effects.tell(StoreEvent::TasksAvailable { pool: task.pool });
    Ok(())
}

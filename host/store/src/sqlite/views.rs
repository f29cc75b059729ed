//! Reading submissions, tasks, payloads and exports.

use super::{
    rows::{
        LIFECYCLE_COLUMNS, all, decode, lifecycle, lifecycle_columns, maybe_millis, one, parsed, pool, priority,
        task_id, verdict,
    },
    work::Taken,
};
use crate::{
    Claimed, Error, ExportRow, Page, Paged, Provenance, Result, StepOutput, SubmissionId, SubmissionSummary,
    SubmissionView, TaskError, TaskEvent, TaskId, TaskOutput, TaskProgress, TaskSummary, TaskView, limits, paging,
};
use formwork_tasks::{Millis, RunLease, SubmissionStatus};
use rusqlite::{Connection, Row, params};

const SUBMISSION_COLUMNS: &str = "id, form, form_version, status, correlation_id, submitted_at, settled_at";

macro_rules! task_columns {
    () => {
        concat!(
            lifecycle_columns!(),
            ", tasks.submission, tasks.step, step_name, tasks.form, tasks.form_version, pool, \
             tasks.priority, worker, created_at, started_at, finished_at, error_code, error_message"
        )
    };
}
pub(super) use task_columns;

const TASK_COLUMNS: usize = LIFECYCLE_COLUMNS + 13;

fn submission_summary(row: &Row<'_>) -> rusqlite::Result<SubmissionSummary> {
    Ok(SubmissionSummary {
        id: parsed(row, 0)?,
        form: row.get(1)?,
        form_version: row.get(2)?,
        status: parsed::<SubmissionStatus>(row, 3)?,
        correlation_id: row.get(4)?,
        submitted_at: Millis(row.get(5)?),
        settled_at: maybe_millis(row, 6)?,
    })
}

pub(super) fn task_summary(row: &Row<'_>) -> rusqlite::Result<TaskSummary> {
    const AT: usize = LIFECYCLE_COLUMNS;
    let life = lifecycle(row, 0)?;
    let id = task_id(row, AT)?;
    let code: Option<String> = row.get(AT + 11)?;
    let message: Option<String> = row.get(AT + 12)?;
    Ok(TaskSummary {
        id,
        submission: id.submission,
        step: row.get(AT + 2)?,
        form: row.get(AT + 3)?,
        form_version: row.get(AT + 4)?,
        pool: pool(row, AT + 5)?,
        priority: priority(row, AT + 6)?,
        state: life.state,
        run_lease: life.run_lease,
        attempts: life.attempt,
        errors: life.errors,
        crashes: life.crashes,
        cancel_requested: life.cancel_requested,
        run_at: life.run_at,
        lease_until: life.lease_until,
        worker: row.get(AT + 7)?,
        created_at: Millis(row.get(AT + 8)?),
        started_at: maybe_millis(row, AT + 9)?,
        finished_at: maybe_millis(row, AT + 10)?,
        error: code.map(|code| TaskError {
            code,
            message: message.unwrap_or_default(),
        }),
        dead_reason: life.dead_reason,
    })
}

/// What [`task_view`] reads.
const TASK_VIEW: &str = concat!(
    "SELECT ",
    task_columns!(),
    ", cpu_ms, provenance, output, fraction, message, at
     FROM tasks LEFT JOIN task_runs USING (submission, step)
     LEFT JOIN task_progress ON task_progress.submission = tasks.submission AND task_progress.step = tasks.step
         AND tasks.state = 'running' AND task_progress.run_lease = tasks.run_lease"
);

fn task_view(row: &Row<'_>) -> rusqlite::Result<TaskView> {
    let summary = task_summary(row)?;
    let provenance: Option<String> = row.get(TASK_COLUMNS + 1)?;
    let output: Option<String> = row.get(TASK_COLUMNS + 2)?;
    // A failed run leaves no output; the verdict is there exactly when the task is completed.
    let result = match (output, lifecycle(row, 0)?.verdict) {
        (Some(output), Some(verdict)) => Some(TaskOutput { output, verdict }),
        _ => None,
    };
    Ok(TaskView {
        summary,
        cpu_ms: row.get(TASK_COLUMNS)?,
        provenance: provenance
            .map(|text| decode(TASK_COLUMNS + 1, serde_json::from_str(&text)))
            .transpose()?,
        result,
        progress: maybe_millis(row, TASK_COLUMNS + 5)?
            .map(|at| -> rusqlite::Result<_> {
                Ok(TaskProgress {
                    fraction: row.get(TASK_COLUMNS + 3)?,
                    message: row.get(TASK_COLUMNS + 4)?,
                    at,
                })
            })
            .transpose()?,
    })
}

/// A submission with its tasks.
pub(super) fn submission(connection: &Connection, id: SubmissionId) -> Result<Option<SubmissionView>> {
    let text = id.to_string();
    let found = one(
        connection,
        "SELECT id, form, form_version, status, correlation_id, submitted_at, settled_at, data
         FROM submissions JOIN submission_data ON submission = id WHERE id = ?1",
        params![text],
        |row| Ok((submission_summary(row)?, row.get::<_, String>(7)?)),
    )?;
    let Some((summary, data)) = found else {
        return Ok(None);
    };
    let tasks = all(
        connection,
        &format!("{TASK_VIEW} WHERE tasks.submission = ?1 ORDER BY tasks.step"),
        params![text],
        task_view,
    )?;
    Ok(Some(SubmissionView { summary, data, tasks }))
}

/// Submissions, newest first.
pub(super) fn submissions(
    connection: &Connection,
    form: Option<&str>,
    page: &Page,
) -> Result<Paged<SubmissionSummary>> {
    let before = paging::after::<SubmissionId>(page)?.map(|id| id.to_string());
    let fetch = paging::fetch(page);
    let bound = "(?1 IS NULL OR id < ?1)";
    let items = match form {
        Some(form) => all(
            connection,
            &format!(
                "SELECT {SUBMISSION_COLUMNS} FROM submissions INDEXED BY submissions_by_form
                 WHERE form = ?3 AND {} ORDER BY id DESC LIMIT ?2",
                if before.is_some() { "id < ?1" } else { bound }
            ),
            params![before, fetch, form],
            submission_summary,
        )?,
        None => all(
            connection,
            &format!(
                "SELECT {SUBMISSION_COLUMNS} FROM submissions WHERE {} ORDER BY id DESC LIMIT ?2",
                if before.is_some() { "id < ?1" } else { bound }
            ),
            params![before, fetch],
            submission_summary,
        )?,
    };
    Ok(paging::paged(page, items, |submission| submission.id.to_string()))
}

/// One task with its output.
pub(super) fn task(connection: &Connection, id: TaskId) -> Result<Option<TaskView>> {
    one(
        connection,
        &format!("{TASK_VIEW} WHERE tasks.submission = ?1 AND tasks.step = ?2"),
        params![id.submission.to_string(), id.step],
        task_view,
    )
}

/// Everything that happened to a task. That it was made is said by its row, all later moves by lines of their own.
pub(super) fn history(connection: &Connection, id: TaskId) -> Result<Vec<TaskEvent>> {
    all(
        connection,
        "SELECT 1 AS sequence, created_at, NULL, NULL, NULL, NULL, NULL FROM tasks
         WHERE submission = ?1 AND step = ?2
         UNION ALL
         SELECT sequence, at, who, from_state, to_state, run_lease, why FROM task_events
         WHERE submission = ?1 AND step = ?2
         ORDER BY sequence",
        params![id.submission.to_string(), id.step],
        |row| {
            let (sequence, at) = (row.get(0)?, Millis(row.get(1)?));
            if sequence == 1 {
                return Ok(TaskEvent::created(at));
            }
            Ok(TaskEvent {
                sequence,
                at,
                who: row.get(2)?,
                from: super::rows::maybe_parsed(row, 3)?,
                to: parsed(row, 4)?,
                run_lease: RunLease(row.get(5)?),
                why: row.get(6)?,
            })
        },
    )
}

/// What the workers of just claimed tasks need. Data and outputs of completed steps never change, so reading
/// them after the claim's commit reads the same as within it.
pub(super) fn payloads(connection: &Connection, taken: &[Taken]) -> Result<Vec<Claimed>> {
    taken.iter().map(|task| payload(connection, *task)).collect()
}

fn payload(connection: &Connection, task: Taken) -> Result<Claimed> {
    let submission = task.id.submission.to_string();
    let outputs = all(
        connection,
        "SELECT step_name, output, verdict, provenance
         FROM tasks JOIN task_runs USING (submission, step)
         WHERE tasks.submission = ?1 AND tasks.state = 'completed' ORDER BY tasks.step",
        params![submission],
        |row| {
            let provenance = row.get_ref(3)?.as_str()?;
            Ok(StepOutput {
                step: row.get(0)?,
                output: row.get(1)?,
                verdict: verdict(row, 2)?.unwrap_or_default(),
                provenance: decode(3, serde_json::from_str::<Provenance>(provenance))?,
            })
        },
    )?;
    one(
        connection,
        "SELECT step_name, tasks.form, tasks.form_version, data, submitted_at, correlation_id
         FROM tasks
         JOIN submissions ON submissions.id = tasks.submission
         JOIN submission_data ON submission_data.submission = tasks.submission
         WHERE tasks.submission = ?1 AND tasks.step = ?2",
        params![submission, task.id.step],
        |row| {
            Ok(Claimed {
                id: task.id,
                run_lease: task.run_lease,
                attempt: task.attempt,
                crashes: task.crashes,
                step: row.get(0)?,
                form: row.get(1)?,
                form_version: row.get(2)?,
                data: row.get(3)?,
                submitted_at: Millis(row.get(4)?),
                run_at: task.run_at,
                correlation_id: row.get(5)?,
                outputs,
            })
        },
    )?
    .ok_or_else(|| Error::backend("read payload", format!("no data for {}", task.id)))
}

/// Export chunks after a sequence.
pub(super) fn export_chunks(
    connection: &Connection,
    form: &str,
    form_version: u32,
    step: &str,
    after_sequence: u64,
    limit: u32,
) -> Result<Vec<ExportRow>> {
    let after = i64::try_from(after_sequence).unwrap_or(i64::MAX);
    all(
        connection,
        "SELECT sequence, submission, bytes FROM exports INDEXED BY exports_by_step
         WHERE form = ?1 AND form_version = ?2 AND step_name = ?3 AND sequence > ?4
         ORDER BY sequence LIMIT ?5",
        params![form, form_version, step, after, limit.clamp(1, limits::PAGE_ITEMS)],
        |row| {
            Ok(ExportRow {
                sequence: row.get(0)?,
                submission: parsed(row, 1)?,
                bytes: row.get(2)?,
            })
        },
    )
}

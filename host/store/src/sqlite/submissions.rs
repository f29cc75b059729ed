//! Recording submissions, and carrying them through their pipeline.

use super::{
    failure::{is_duplicate, sql},
    rows::{change, lifecycle, lifecycle_columns, maybe_parsed, one, parsed},
    transition,
    writer::Write,
};
use crate::{Error, NewSubmission, Result, StoreEvent, SubmissionId, Submit, TaskId};
use formwork_tasks::{Command, Millis, Priority, Progress, SubmissionStatus};
use rusqlite::params;

/// Records a submission with its first tasks.
pub(super) fn submit(write: &mut Write<'_>, new: &NewSubmission, now: Millis) -> Result<Submit> {
    if let Some(idempotency) = &new.idempotency {
        let before = one(
            write.connection,
            "SELECT fingerprint, submission FROM idempotency WHERE form = ?1 AND key = ?2",
            params![new.form, idempotency.key],
            |row| Ok((row.get::<_, String>(0)?, parsed::<SubmissionId>(row, 1)?)),
        )?;
        match before {
            Some((fingerprint, id)) if fingerprint == idempotency.fingerprint => {
                return Ok(Submit::Replayed { id });
            }
            Some((_, id)) => return Ok(Submit::KeyReused { id }),
            None => {}
        }
    }
    // Also the check that the form version exists.
    write.plans.get(write.connection, &new.form, new.form_version)?;
    insert(write, new, now)?;
    let submission = Submission {
        id: new.id,
        form: new.form.clone(),
        form_version: new.form_version,
        priority: new.priority,
        status: SubmissionStatus::Processing,
    };
    advance(write, &submission, Vec::new(), now)?;
    Ok(Submit::Created)
}

fn insert(write: &mut Write<'_>, new: &NewSubmission, now: Millis) -> Result<()> {
    let id = new.id.to_string();
    write
        .connection
        .prepare_cached(
            "INSERT INTO submissions
                 (id, form, form_version, status, priority, correlation_id, submitted_at)
             VALUES (?1, ?2, ?3, 'processing', ?4, ?5, ?6)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                id,
                new.form,
                new.form_version,
                new.priority.map(Priority::level),
                new.correlation_id,
                now.0
            ])
        })
        .map_err(|error| {
            if is_duplicate(&error) {
                Error::DuplicateSubmission(new.id)
            } else {
                sql("write submission")(error)
            }
        })?;
    change(
        write.connection,
        "INSERT INTO submission_data (submission, data) VALUES (?1, ?2)",
        params![id, new.data],
    )?;
    if let Some(idempotency) = &new.idempotency {
        change(
            write.connection,
            "INSERT INTO idempotency (form, key, fingerprint, submission, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![new.form, idempotency.key, idempotency.fingerprint, id, now.0],
        )?;
    }
    Ok(())
}

/// What [`advance`] needs to know about a submission.
struct Submission {
    id: SubmissionId,
    form: String,
    form_version: u32,
    priority: Option<Priority>,
    status: SubmissionStatus,
}

/// Draws the consequences of a changed task: makes the steps that may run now, stops those that never
/// will, and sets the submission's status.
pub(super) fn settle(write: &mut Write<'_>, id: SubmissionId, now: Millis) -> Result<()> {
    let text = id.to_string();
    let submission = one(
        write.connection,
        "SELECT form, form_version, priority, status FROM submissions WHERE id = ?1",
        params![text],
        |row| {
            Ok(Submission {
                id,
                form: row.get(0)?,
                form_version: row.get(1)?,
                priority: row
                    .get::<_, Option<u8>>(2)?
                    .map(|level| super::rows::decode(2, Priority::try_new(level)))
                    .transpose()?,
                status: maybe_parsed(row, 3)?.unwrap_or(SubmissionStatus::Processing),
            })
        },
    )?;
    let Some(submission) = submission else {
        return Err(Error::backend("settle submission", format!("no submission {id}")));
    };
    let mut tasks: Vec<Option<Progress>> = Vec::new();
    let found = super::rows::all(
        write.connection,
        concat!(
            "SELECT ",
            lifecycle_columns!(),
            ", step FROM tasks WHERE submission = ?1 ORDER BY step"
        ),
        params![text],
        |row| {
            let life = lifecycle(row, 0)?;
            let step: u16 = row.get(super::rows::LIFECYCLE_COLUMNS)?;
            Ok((
                usize::from(step),
                Progress {
                    state: life.state,
                    verdict: life.verdict,
                },
            ))
        },
    )?;
    for (step, progress) in found {
        if tasks.len() <= step {
            tasks.resize(step + 1, None);
        }
        tasks[step] = Some(progress);
    }
    advance(write, &submission, tasks, now)
}

fn advance(write: &mut Write<'_>, submission: &Submission, tasks: Vec<Option<Progress>>, now: Millis) -> Result<()> {
    let plan = write
        .plans
        .get(write.connection, &submission.form, submission.form_version)?;
    let assessment = plan.assess(&tasks);
    for &index in &assessment.ready {
        let step = &plan.steps()[index];
        let id = task_id(submission.id, index)?;
        let priority = submission.priority.unwrap_or(step.priority);
        transition::create(
            write,
            id,
            &submission.form,
            submission.form_version,
            step,
            priority,
            now,
        )?;
    }
    for &index in &assessment.stop {
        let id = task_id(submission.id, index)?;
        if let Some(mut task) = transition::load(write.connection, id)? {
            // Only waiting tasks are named, and nobody else writes now.
            let _ = transition::apply(write, &mut task, Command::Stop, now, None)?;
        }
    }
    if assessment.status == submission.status {
        return Ok(());
    }
    let settled_at = assessment.status.is_settled().then_some(now.0);
    change(
        write.connection,
        "UPDATE submissions SET status = ?2, settled_at = ?3 WHERE id = ?1",
        params![submission.id.to_string(), assessment.status.as_str(), settled_at],
    )?;
    if assessment.status.is_settled() {
        write.effects.tell(StoreEvent::SubmissionSettled { id: submission.id });
    }
    Ok(())
}

fn task_id(submission: SubmissionId, index: usize) -> Result<TaskId> {
    let step = u16::try_from(index).map_err(|error| Error::backend("plan", error))?;
    Ok(TaskId::new(submission, step))
}

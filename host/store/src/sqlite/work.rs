//! What workers do: claim, heartbeat, record, give back; and the reaper that comes after those who vanish.

use super::{
    progress,
    rows::{all, change, task_id},
    submissions::settle,
    transition,
    writer::Write,
};
use crate::{
    Beat, Error, Failure, HeartbeatReply, Provenance, Reaped, Record, Result, TaskError, TaskId, TaskResult, limits,
    record::TaskRecord,
};
use formwork_tasks::{Change, Command, Millis, Pool, Refusal, RunLease};
use rusqlite::params;

/// The statement that finds what to claim. It walks the partial index from its start, so its cost is that of
/// the rows it returns, however many wait.
pub(super) const CLAIM: &str = "
    SELECT submission, step FROM tasks INDEXED BY tasks_available
    WHERE state = 'available' AND pool = ?1
    ORDER BY priority DESC, run_at, submission, step LIMIT ?2";

/// The statement that finds retries whose time has come.
pub(super) const DUE: &str = "
    SELECT submission, step FROM tasks INDEXED BY tasks_retryable
    WHERE state = 'retryable' AND pool = ?1 AND run_at <= ?2
    ORDER BY run_at LIMIT ?3";

/// The statement that finds ended leases.
pub(super) const ENDED: &str = "
    SELECT submission, step FROM tasks INDEXED BY tasks_running
    WHERE state = 'running' AND lease_until <= ?1
    ORDER BY lease_until LIMIT ?2";

/// What a worker took; its payload is read afterwards, off the writer.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    pub(super) id: TaskId,
    pub(super) run_lease: RunLease,
    pub(super) attempt: u32,
    pub(super) crashes: u32,
    pub(super) run_at: Millis,
}

/// Takes up to `limit` tasks of a pool.
pub(super) fn claim(
    write: &mut Write<'_>,
    pool: Pool,
    worker: &str,
    limit: u32,
    lease_ms: u64,
    now: Millis,
) -> Result<Vec<Taken>> {
    let due = all(
        write.connection,
        DUE,
        params![pool.as_str(), now.0, limits::PROMOTE_TASKS],
        |row| task_id(row, 0),
    )?;
    for id in due {
        let mut task = present(write, id)?;
        must(transition::apply(write, &mut task, Command::Promote, now, None)?, id)?;
    }

    let limit = limit.min(limits::CLAIM_TASKS);
    let available = all(write.connection, CLAIM, params![pool.as_str(), limit], |row| {
        task_id(row, 0)
    })?;
    let mut taken = Vec::with_capacity(available.len());
    for id in available {
        let mut task = present(write, id)?;
        task.worker = Some(worker.to_owned());
        let command = Command::Claim {
            until: now.plus(lease_ms),
        };
        must(transition::apply(write, &mut task, command, now, None)?, id)?;
        taken.push(Taken {
            id,
            run_lease: task.lifecycle.run_lease,
            attempt: task.lifecycle.attempt,
            crashes: task.lifecycle.crashes,
            run_at: task.lifecycle.run_at,
        });
    }
    Ok(taken)
}

/// Prolongs leases.
pub(super) fn heartbeat(write: &mut Write<'_>, runs: &[Beat], lease_ms: u64, now: Millis) -> Result<HeartbeatReply> {
    let mut reply = HeartbeatReply::default();
    for beat in runs {
        let (id, lease) = (beat.task, beat.run_lease);
        let Some(mut task) = transition::load(write.connection, id)? else {
            reply.lost.push(id);
            continue;
        };
        let command = Command::Heartbeat {
            lease,
            until: now.plus(lease_ms),
        };
        if transition::apply(write, &mut task, command, now, None)?.is_err() {
            reply.lost.push(id);
            continue;
        }
        if task.lifecycle.cancel_requested {
            reply.cancel.push(id);
        }
        if let Some(new) = &beat.progress {
            progress::record(write, id, lease, new, now)?;
        }
    }
    Ok(reply)
}

/// Records a result and everything that follows from it.
pub(super) fn complete(
    write: &mut Write<'_>,
    id: TaskId,
    lease: RunLease,
    result: &TaskResult,
    now: Millis,
) -> Result<Record> {
    let Some(mut task) = transition::load(write.connection, id)? else {
        return Ok(Record::Stale);
    };
    task.error = None; // stays unsaved if the fence refuses
    let command = Command::Complete {
        lease,
        verdict: result.verdict,
    };
    if transition::apply(write, &mut task, command, now, None)?.is_err() {
        return Ok(Record::Stale);
    }
    let run = Run {
        cpu_ms: Some(result.cpu_ms),
        provenance: Some(&result.provenance),
        output: Some(&result.output),
    };
    record_run(write, id, run)?;
    if let Some(chunk) = &result.export {
        change(
            write.connection,
            "INSERT INTO exports (form, form_version, step_name, submission, step, bytes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                task.form,
                task.form_version,
                task.step_name,
                id.submission.to_string(),
                id.step,
                chunk.bytes
            ],
        )?;
    }
    settle(write, id.submission, now)?;
    Ok(Record::Recorded)
}

/// Records a run that failed or was cancelled. A task that waits again is settled too: a step may have rejected the
/// submission while it ran, and then it must not run again.
pub(super) fn fail(
    write: &mut Write<'_>,
    id: TaskId,
    lease: RunLease,
    failure: &Failure,
    now: Millis,
) -> Result<Record> {
    let Some(mut task) = transition::load(write.connection, id)? else {
        return Ok(Record::Stale);
    };
    let error = TaskError::cut(&failure.code, &failure.message);
    task.error = Some(error.clone());
    let command = Command::Fail {
        lease,
        disposition: failure.disposition,
    };
    if transition::apply(write, &mut task, command, now, Some(&error.code))?.is_err() {
        return Ok(Record::Stale);
    }
    let run = Run {
        cpu_ms: failure.cpu_ms,
        provenance: failure.provenance.as_ref(),
        output: None,
    };
    record_run(write, id, run)?;
    settle(write, id.submission, now)?;
    Ok(Record::Recorded)
}

/// Gives a task back without spending an attempt.
pub(super) fn release(write: &mut Write<'_>, id: TaskId, lease: RunLease, now: Millis) -> Result<Record> {
    let Some(mut task) = transition::load(write.connection, id)? else {
        return Ok(Record::Stale);
    };
    if transition::apply(write, &mut task, Command::Release { lease }, now, None)?.is_err() {
        return Ok(Record::Stale);
    }
    settle(write, id.submission, now)?;
    Ok(Record::Recorded)
}

/// Settles runs whose lease has ended.
pub(super) fn reap(write: &mut Write<'_>, now: Millis, max_crashes: u32) -> Result<Vec<Reaped>> {
    let ended = all(write.connection, ENDED, params![now.0, limits::REAP_TASKS], |row| {
        task_id(row, 0)
    })?;
    let mut reaped = Vec::with_capacity(ended.len());
    for id in ended {
        let mut task = present(write, id)?;
        let command = Command::Expire { max_crashes };
        must(transition::apply(write, &mut task, command, now, None)?, id)?;
        settle(write, id.submission, now)?;
        reaped.push(Reaped {
            id,
            pool: task.pool,
            // Settling stops it if a step has rejected the submission meanwhile.
            outcome: present(write, id)?.reaped_as(),
        });
    }
    Ok(reaped)
}

struct Run<'a> {
    cpu_ms: Option<f64>,
    provenance: Option<&'a Provenance>,
    output: Option<&'a str>,
}

fn record_run(write: &mut Write<'_>, id: TaskId, run: Run<'_>) -> Result<()> {
    let provenance = run
        .provenance
        .map(serde_json::to_string)
        .transpose()
        .map_err(|error| Error::backend("write provenance", error))?;
    change(
        write.connection,
        "INSERT INTO task_runs (submission, step, cpu_ms, provenance, output)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET cpu_ms = excluded.cpu_ms,
             provenance = excluded.provenance, output = excluded.output",
        params![id.submission.to_string(), id.step, run.cpu_ms, provenance, run.output],
    )?;
    Ok(())
}

/// A task that an index has just named.
fn present(write: &Write<'_>, id: TaskId) -> Result<TaskRecord> {
    transition::load(write.connection, id)?.ok_or_else(|| Error::backend("read task", format!("no task {id}")))
}

/// A command that the row just read must allow.
fn must(result: Result<Change, Refusal>, id: TaskId) -> Result<()> {
    result
        .map(drop)
        .map_err(|refusal| Error::backend("move task", format!("{id}: {refusal}")))
}

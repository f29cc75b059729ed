//! Tells the store how a run ended.
//!
//! A store that is busy or out of space for a moment must not cost a finished result: the report is repeated, as long
//! as the lease can still be ours. Repeating is safe because of the fence: a report that was recorded although its
//! answer was lost is `Stale` the second time.

use crate::{
    clock, limits,
    options::SchedulerOptions,
    runner::RunOutcome,
    runs::{Run, Stop},
    scheduler::{PoolState, Shared},
};
use formwork_store::{Claimed, Error, Failure, Provenance, Record, TaskResult};
use formwork_tasks::{DeadReason, Disposition, Pool, RetryPolicy, RetryRules, StepMaxima, Verdict};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// How a run ended, as far as the executor saw.
#[derive(Debug)]
pub(crate) enum End {
    /// The runner came back.
    Returned(RunOutcome),
    /// The runner panicked.
    Panicked(String),
    /// It was told to stop; it had not started, or did not come back.
    Dropped,
    /// The lane is closed: it never ran.
    Refused,
}

/// What decides whether there is another attempt.
pub(crate) struct Retries {
    pool: RetryPolicy,
    most: StepMaxima,
    attempt: u32,
}

impl Retries {
    /// Vanished workers are counted apart (`max_crashes`), so they do not use up the attempts for errors.
    pub(crate) fn of(task: &Claimed, options: &SchedulerOptions, pool: Pool) -> Self {
        Self {
            pool: options.pool(pool).retry,
            most: options.step_maxima,
            attempt: task.attempt.saturating_sub(task.crashes).max(1),
        }
    }

    /// What becomes of a run that ended with an error of this code.
    fn disposition(&self, run: &Run, code: &str, curable: bool, retry_after: Option<Duration>) -> Disposition {
        let unspoken = RetryRules::default();
        let rules = run.rules.get().map_or(&unspoken, |rules| &rules.retry);
        let Some(policy) = rules.after(code, curable, &self.pool, &self.most) else {
            return Disposition::Dead(DeadReason::Failed);
        };
        let at_least = u64::try_from(retry_after.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        policy.after_failure(self.attempt, clock::now(), rand::random(), at_least)
    }
}

/// What to tell the store.
enum Report {
    Complete(TaskResult),
    Fail(Failure),
    Release,
}

/// Records the end of a run; returns the outcome's name for the metrics.
pub(crate) async fn record(
    shared: &Shared,
    state: &PoolState,
    run: &Run,
    end: End,
    retries: &Retries,
    span: &tracing::Span,
) -> &'static str {
    let mut report = report(run, end, retries);
    let outcome = match tell(shared, run, &mut report, span).await {
        Told::Recorded => name(&report),
        Told::Stale => "stale",
        Told::Not => "unrecorded",
    };
    match outcome {
        "stale" => span.in_scope(|| tracing::info!("run is stale, its result was dropped")),
        "unrecorded" => {}
        "released" => {
            shared.tally.released.fetch_add(1, Ordering::Relaxed);
        }
        _ => {
            shared.tally.recorded.fetch_add(1, Ordering::Relaxed);
        }
    }
    if outcome == "retry" {
        // The dispatcher sleeps until the due time it knew before.
        state.wake.notify_one();
    }
    outcome
}

fn name(report: &Report) -> &'static str {
    match report {
        Report::Complete(result) if result.verdict == Verdict::Rejected => "rejected",
        Report::Complete(_) => "completed",
        Report::Fail(failure) => match failure.disposition {
            Disposition::RetryAt(_) => "retry",
            Disposition::Dead(_) => "dead",
            Disposition::Cancelled => "cancelled",
        },
        Report::Release => "released",
    }
}

fn report(run: &Run, end: End, retries: &Retries) -> Report {
    let failed = |code: &str, message: String| {
        Report::Fail(Failure {
            code: code.to_owned(),
            message,
            disposition: retries.disposition(run, code, true, None),
            provenance: None,
            cpu_ms: None,
        })
    };
    let outcome = match end {
        // A result counts even if the run was told to stop meanwhile.
        End::Returned(RunOutcome::Done(result)) => return Report::Complete(result),
        End::Returned(outcome) => Some(outcome),
        End::Panicked(message) => {
            if run.reason() != Some(Stop::Cancel) {
                return failed("panic", message);
            }
            None
        }
        End::Refused => return Report::Release,
        End::Dropped => None,
    };
    match (run.reason(), outcome) {
        (Some(Stop::Cancel), outcome) => {
            let (provenance, cpu_ms) = traces(outcome);
            Report::Fail(Failure {
                code: "cancelled".to_owned(),
                message: "stopped on request".to_owned(),
                disposition: Disposition::Cancelled,
                provenance,
                cpu_ms,
            })
        }
        (Some(Stop::Drain | Stop::Lost), _) => Report::Release,
        (
            _,
            Some(RunOutcome::Failed {
                code,
                message,
                retryable,
                retry_after,
                provenance,
                cpu_ms,
            }),
        ) => Report::Fail(Failure {
            disposition: retries.disposition(run, &code, retryable, retry_after),
            code,
            message,
            provenance,
            cpu_ms,
        }),
        (Some(Stop::Deadline), _) => {
            let limit = run.rules.get().map_or(0, |rules| rules.hard.as_millis());
            failed(
                "deadline-exceeded",
                format!("no result within the {limit} ms that a run of this step may take"),
            )
        }
        (None, _) => failed("cancelled", "the run stopped without being asked to".into()),
    }
}

fn traces(outcome: Option<RunOutcome>) -> (Option<Provenance>, Option<f64>) {
    match outcome {
        Some(RunOutcome::Failed { provenance, cpu_ms, .. }) => (provenance, cpu_ms),
        _ => (None, None),
    }
}

enum Told {
    Recorded,
    Stale,
    Not,
}

/// Tells the store, again while it is busy; `report` is then what it was told.
async fn tell(shared: &Shared, run: &Run, report: &mut Report, span: &tracing::Span) -> Told {
    let give_up_at = Instant::now() + shared.options.lease();
    let mut backoff = limits::RECORD_BACKOFF_FIRST;
    loop {
        if run.is_lost() {
            return Told::Stale;
        }
        let (store, now) = (&shared.store, clock::now());
        let (id, lease) = (run.id, run.lease);
        let answer = match &*report {
            Report::Complete(result) => store.complete(id, lease, result.clone(), now).await,
            Report::Fail(failure) => store.fail(id, lease, failure.clone(), now).await,
            Report::Release => store.release(id, lease, now).await,
        };
        let error = match answer {
            Ok(Record::Recorded) => return Told::Recorded,
            Ok(Record::Stale) => return Told::Stale,
            Err(error) => error,
        };
        if let (Error::TooLarge { .. }, Report::Complete(result)) = (&error, &*report) {
            // It will not become smaller: the task is dead, and says why.
            *report = Report::Fail(Failure {
                code: "result-too-large".to_owned(),
                message: error.to_string(),
                disposition: Disposition::Dead(DeadReason::Failed),
                provenance: Some(result.provenance.clone()),
                cpu_ms: Some(result.cpu_ms),
            });
            continue;
        }
        let transient = matches!(
            error,
            Error::Full { .. } | Error::Unavailable { .. } | Error::Backend { .. }
        );
        if !transient || Instant::now() + backoff >= give_up_at {
            span.in_scope(|| {
                tracing::error!(%error, "run could not be recorded, the task comes back when its lease ends");
            });
            return Told::Not;
        }
        span.in_scope(|| tracing::warn!(%error, retry_in = ?backoff, "recording failed"));
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(limits::RECORD_BACKOFF_LONGEST);
    }
}

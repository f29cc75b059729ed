//! Prolongs the leases of this process and settles those of workers that vanished.
//!
//! It has its own OS thread with its own runtime: whatever guests, requests or dispatchers do, leases are prolonged. Settling
//! goes on beside it: however long that takes, no lease of our own ends meanwhile.
//! One call covers all runs, and takes along how far they say they are; for that alone it also comes early, at most once
//! every [`limits::PROGRESS_EVERY`]. Only after a heartbeat that succeeded are ended leases settled, so that a process that
//! was stopped for longer than its lease (a suspended machine) keeps its own runs if nobody else took them.

use crate::{clock, limits, metrics, runs::Run, runs::Stop, scheduler::Shared};
use formwork_store::{Beat, HeartbeatReply, Reaped, ReapedAs, limits::REAP_TASKS};
use formwork_tasks::Millis;
use std::{io, sync::Arc, thread, time::Instant};
use tokio::{runtime::Builder, sync::Notify, time};

/// Starts the thread.
pub(crate) fn start(shared: Arc<Shared>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new()
        .name("fw-heartbeat".to_owned())
        .spawn(move || runtime.block_on(run(&shared)))?;
    Ok(())
}

async fn run(shared: &Shared) {
    let alive = Notify::new();
    tokio::select! {
        () = shared.shutdown.cancelled() => {}
        () = beats(shared, &alive) => {}
        () = reaps(shared, &alive) => {}
    }
}

/// Settles ended leases, once after each regular heartbeat that succeeded.
async fn reaps(shared: &Shared, alive: &Notify) {
    loop {
        alive.notified().await;
        if let Err(error) = reap(shared, clock::now()).await {
            tracing::warn!(%error, "ended leases could not be settled");
        }
    }
}

async fn beats(shared: &Shared, alive: &Notify) {
    let mut regular = time::interval(shared.options.heartbeat());
    regular.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut progress_from = time::Instant::now();
    loop {
        let progressed = async {
            // Lost when another branch is first; that one's beat tells the progress too.
            shared.runs.progressed.notified().await;
            time::sleep_until(progress_from).await;
        };
        let (is_regular, runs) = tokio::select! {
            _ = regular.tick() => (true, due(shared)),
            () = shared.runs.beat_now.notified() => (false, shared.runs.all()),
            () = progressed => (false, shared.runs.with_progress()),
        };
        progress_from = time::Instant::now() + limits::PROGRESS_EVERY;
        if beat(shared, runs).await && is_regular {
            alive.notify_one();
        }
    }
}

/// Runs whose lease must be prolonged by this beat: the others are younger than half a heartbeat, so it is early enough at
/// the next one. Most tasks end before they need any.
fn due(shared: &Shared) -> Vec<Arc<Run>> {
    let mut runs = shared.runs.all();
    runs.retain(|run| run.unrenewed() >= shared.options.heartbeat() / 2);
    runs
}

/// One heartbeat for these runs; whether the store took it.
async fn beat(shared: &Shared, runs: Vec<Arc<Run>>) -> bool {
    let runs: Vec<_> = runs.into_iter().filter(|run| !run.is_lost()).collect();
    if runs.is_empty() {
        return true;
    }
    let beats: Vec<Beat> = runs
        .iter()
        .map(|run| Beat {
            task: run.id,
            run_lease: run.lease,
            progress: run.take_progress(),
        })
        .collect();
    let sent_at = Instant::now();
    let lease_ms = shared.options.lease_ms;
    let mut call = shared.store.heartbeat(&beats, lease_ms, clock::now());
    // A second call while the first one is under way would be in its way, and both in that of the results.
    let answer = loop {
        match time::timeout(shared.options.heartbeat(), &mut call).await {
            Ok(answer) => break Some(answer),
            Err(_) if sent_at.elapsed() >= shared.options.lease() / 2 => break None,
            // A store that hangs must not keep us from noticing that our own leases have ended.
            Err(_) => give_up(shared, &runs),
        }
    };
    drop(call);
    let (reply, failure) = match answer {
        Some(Ok(reply)) => (reply, None),
        Some(Err(error)) => (none_prolonged(&runs), Some(error.to_string())),
        None => (
            none_prolonged(&runs),
            Some("the store did not answer in time".to_owned()),
        ),
    };
    for (run, beat) in runs.iter().zip(beats) {
        if reply.lost.contains(&run.id) {
            // Ended meanwhile (recorded a moment ago), or taken by somebody else.
            run.stop(Stop::Lost);
            continue;
        }
        if reply.cancel.contains(&run.id) {
            run.stop(Stop::Cancel);
        }
        if !reply.missed.contains(&run.id) {
            run.renew(sent_at);
        } else if let Some(progress) = beat.progress {
            run.untold_progress(progress);
        }
    }
    give_up(shared, &runs);
    if let Some(error) = failure {
        metrics::HEARTBEATS_FAILED.inc();
        tracing::warn!(error, runs = runs.len(), "heartbeat failed");
        return false;
    }
    if !reply.missed.is_empty() {
        tracing::debug!(
            runs = reply.missed.len(),
            "leases could not be prolonged, will be tried again"
        );
    }
    true
}

/// What a heartbeat that failed comes to.
fn none_prolonged(runs: &[Arc<Run>]) -> HeartbeatReply {
    HeartbeatReply {
        missed: runs.iter().map(|run| run.id).collect(),
        ..HeartbeatReply::default()
    }
}

/// Leases that have ended by our own clock are not ours any more, whatever the store would say.
fn give_up(shared: &Shared, runs: &[Arc<Run>]) {
    for run in runs {
        if run.unrenewed() >= shared.options.lease() && !run.is_lost() {
            tracing::error!(task = %run.id, "lease ended without a heartbeat, stopping the run");
            run.stop(Stop::Lost);
        }
    }
}

/// Settles all leases that have ended at `now`.
pub(crate) async fn reap(shared: &Shared, now: Millis) -> formwork_store::Result<usize> {
    let mut count = 0;
    loop {
        let reaped: Vec<Reaped> = shared.store.reap(now, shared.options.max_crashes).await?;
        for task in &reaped {
            let outcome = match task.outcome {
                ReapedAs::Recovered => "recovered",
                ReapedAs::Dead => "dead",
                ReapedAs::Cancelled => "cancelled",
            };
            tracing::warn!(task = %task.id, pool = %task.pool, outcome, "worker vanished, task settled");
            metrics::REAPED.with_label_values(&[task.pool.as_str(), outcome]).inc();
        }
        count += reaped.len();
        if reaped.len() < REAP_TASKS as usize {
            return Ok(count);
        }
    }
}

//! One run: hands a claimed task to a thread of its pool, stops it when it must stop, and has its end recorded.

use crate::{
    clock, metrics, recorder,
    runner::{ProgressReporter, RunContext, RunOutcome},
    runs::{Run, Stop},
    scheduler::{PoolState, Shared},
};
use crate::{lane::LaneError, recorder::End};
use formwork_store::Claimed;
use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, time};

/// Runs a claimed task to its recorded end.
pub(crate) async fn run(shared: Arc<Shared>, state: Arc<PoolState>, task: Claimed, run: Arc<Run>) {
    // However this ends: a run that stays in the table would be kept alive by the heartbeat for ever.
    let _entry = Entry(&shared, &run);
    let retries = recorder::Retries::of(&task, &shared.options.pool(state.pool).retry);
    let span = tracing::info_span!(
        "task",
        task = %task.id,
        run_lease = %task.run_lease,
        pool = %state.pool,
        form = task.form,
        step = task.step,
        correlation_id = task.correlation_id,
    );
    let end = attempt(&shared, &state, task, &run, &span).await;
    if let Some(started) = run.started.get() {
        metrics::RUN_SECONDS
            .with_label_values(&[state.pool.as_str()])
            .observe(started.elapsed().as_secs_f64());
    }
    let outcome = recorder::record(&shared, &state, &run, end, &retries, &span).await;
    metrics::OUTCOMES
        .with_label_values(&[state.pool.as_str(), outcome])
        .inc();
}

struct Entry<'a>(&'a Shared, &'a Run);

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.0.runs.remove(self.1);
    }
}

async fn attempt(shared: &Arc<Shared>, state: &PoolState, task: Claimed, run: &Arc<Run>, span: &tracing::Span) -> End {
    let (limit, soft_limit) = run.limits;
    let (tell_start, started) = oneshot::channel();
    let mut work = pin!(state.lane.spawn_task({
        let (shared, runner, run) = (Arc::clone(shared), Arc::clone(&shared.runner), Arc::clone(run));
        let (pool, worker) = (state.pool, shared.worker.clone());
        let budget = state.lane.budget().clone();
        move || {
            let now = Instant::now();
            let _ = run.started.set(now);
            let _ = tell_start.send(());
            let waited = clock::now().since(task.run_at);
            metrics::WAIT_SECONDS
                .with_label_values(&[pool.as_str()])
                .observe(Duration::from_millis(waited).as_secs_f64());
            let context = RunContext {
                cancel: run.cancel.clone(),
                pool,
                worker,
                deadline: now + limit,
                progress: ProgressReporter::new(move |progress| shared.runs.progress(&run, progress)),
                soft_deadline: now + soft_limit,
                budget,
            };
            async move { runner.run(task, context).await }
        }
    }));
    let time_is_up = async {
        if started.await.is_err() {
            // Never started; how it ended comes from the lane.
            std::future::pending::<()>().await;
        }
        time::sleep(limit).await;
    };
    tokio::select! {
        biased;
        result = &mut work => return end(result),
        () = run.cancel.cancelled() => {}
        () = time_is_up => run.stop(Stop::Deadline),
    }
    if run.started.get().is_none() {
        return End::Dropped;
    }
    match time::timeout(shared.options.stop_grace(), &mut work).await {
        Ok(result) => end(result),
        Err(_) => {
            span.in_scope(|| {
                tracing::error!(reason = ?run.reason(), "run did not stop in time, dropping it");
            });
            End::Dropped
        }
    }
}

fn end(result: Result<RunOutcome, LaneError>) -> End {
    match result {
        Ok(outcome) => End::Returned(outcome),
        Err(LaneError::Panicked { message, .. }) => End::Panicked(message),
        Err(_) => End::Refused,
    }
}

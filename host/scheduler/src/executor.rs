//! One run: hands a claimed task to a thread of its pool, stops it when it must stop, and has its end recorded.

use crate::{
    clock, metrics, recorder,
    runner::{ProgressReporter, RunContext, RunOutcome, StepRules},
    runs::{Rules, Run, Stop},
    scheduler::{PoolState, Shared},
};
use crate::{lane::LaneError, recorder::End};
use formwork_store::Claimed;
use formwork_tasks::TimeLimits;
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
    let retries = recorder::Retries::of(&task, &shared.options, state.pool);
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
    let (tell_start, started) = oneshot::channel();
    let mut work = pin!(state.lane.spawn_task({
        let (shared, runner, run) = (Arc::clone(shared), Arc::clone(&shared.runner), Arc::clone(run));
        let (pool, worker) = (state.pool, shared.worker.clone());
        let budget = state.lane.budget().clone();
        move || {
            let now = Instant::now();
            let _ = run.started.set(now);
            let waited = clock::now().since(task.run_at);
            metrics::WAIT_SECONDS
                .with_label_values(&[pool.as_str()])
                .observe(Duration::from_millis(waited).as_secs_f64());
            async move {
                let rules = rules_of(&shared, &run, &task).await;
                let context = RunContext {
                    cancel: run.cancel.clone(),
                    pool,
                    worker,
                    deadline: now + rules.hard,
                    soft_deadline: now + rules.soft,
                    progress: ProgressReporter::new({
                        let run = Arc::clone(&run);
                        move |progress| shared.runs.progress(&run, progress)
                    }),
                    budget,
                };
                let _ = tell_start.send(());
                runner.run(task, context).await
            }
        }
    }));
    let time_is_up = async {
        let told = started
            .await
            .ok()
            .and_then(|()| Some((run.started.get()?, run.rules.get()?)));
        let Some((started, rules)) = told else {
            // Never started; how it ended comes from the lane.
            return std::future::pending().await;
        };
        if rules.soft < rules.hard {
            time::sleep_until((*started + rules.soft).into()).await;
            metrics::SOFT_LIMITS.with_label_values(&[state.pool.as_str()]).inc();
            let (soft, hard) = (rules.soft, rules.hard);
            span.in_scope(|| tracing::warn!(?soft, ?hard, "run is over its soft time limit, inference ends"));
        }
        time::sleep_until((*started + rules.hard).into()).await;
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

/// What the step says, within what its pool and the operator say.
async fn rules_of<'a>(shared: &Shared, run: &'a Run, task: &Claimed) -> &'a Rules {
    let options = shared.options.pool(run.pool);
    let most = &shared.options.step_maxima;
    let (patience, _) = options.run_limits(TimeLimits::default(), most);
    // A store that does not answer must not hold a run that nobody times yet.
    let asked = time::timeout(patience, shared.runner.rules(task)).await;
    let StepRules { retry, limits } = asked.unwrap_or_default();
    let (hard, soft) = options.run_limits(limits, most);
    run.rules.get_or_init(|| Rules { hard, soft, retry })
}

fn end(result: Result<RunOutcome, LaneError>) -> End {
    match result {
        Ok(outcome) => End::Returned(outcome),
        Err(LaneError::Panicked { message, .. }) => End::Panicked(message),
        Err(_) => End::Refused,
    }
}

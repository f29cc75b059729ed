//! What pools may use: CPU, permits, time; and which pools a process works for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

use formwork_scheduler::{
    CpuEnforcement, Enforcement, LaneError, PoolStatus, Presence, Roles, RunContext, RunOutcome, Scheduler,
    SchedulerOptions, StepRules, TaskRunner,
};
use formwork_store::{Cancel, Claimed, PoolControl, PoolControlChange, TaskId};
use formwork_tasks::{Pool, RetryPolicy, State, SubmissionStatus, TimeLimits};
use std::{sync::Arc, time::Duration};
use support::{Bench, done, options, runner, soon};
use tokio::sync::{Notify, mpsc};

fn status(scheduler: &Scheduler, pool: Pool) -> PoolStatus {
    scheduler.status()[pool as usize]
}

/// Sets what an operator may set, and waits until it is in force.
async fn control(bench: &Bench, scheduler: &Scheduler, pool: Pool, change: PoolControlChange) {
    bench
        .store
        .set_pool_control(pool, change, support::now())
        .await
        .unwrap();
    scheduler.refresh_controls().await.unwrap();
}

/// Takes the CPU limit away.
const UNLIMITED: PoolControlChange = PoolControlChange {
    paused: None,
    cpus: Some(Some(0.0)),
    burst: None,
    permits: None,
};

fn permits(count: u32) -> PoolControlChange {
    PoolControlChange {
        permits: Some(Some(count)),
        ..PoolControlChange::default()
    }
}

/// A runner whose tasks of `batched` cost an hour of CPU.
fn expensive() -> Arc<dyn TaskRunner> {
    runner(|_, context| async move {
        if context.pool == Pool::Batched {
            context.budget.charge(Duration::from_secs(3_600));
        }
        done("1")
    })
}

#[tokio::test]
async fn a_pool_that_used_up_its_cpu_starts_nothing_until_it_has_credit_and_holds_up_nobody_else() {
    let bench = Bench::new().await;
    let mut options = options();
    options.batched.cpus = Some(0.5);
    options.batched.poll_ms = 1;
    let scheduler = bench.start(options, expensive());
    let first = bench.submit("batched").await;
    assert_eq!(bench.settled(first).await.summary.status, SubmissionStatus::Done);
    let held = bench.submit("batched").await;
    for pool in ["high", "default"] {
        let other = bench.submit(pool).await;
        bench.settled(other).await;
    }
    assert_eq!(bench.task(held).await.summary.state, State::Available);
    let used = status(&scheduler, Pool::Batched);
    assert!(used.native_cpu_seconds >= 3_600.0 && used.cpu_seconds >= used.native_cpu_seconds);
    assert_eq!((used.cpus, used.enforcement), (Some(0.5), Enforcement::Budget));

    control(&bench, &scheduler, Pool::Batched, UNLIMITED).await;
    assert_eq!(bench.settled(held).await.summary.status, SubmissionStatus::Done);
    assert_eq!(status(&scheduler, Pool::Batched).enforcement, Enforcement::None);
}

#[tokio::test]
async fn calls_from_outside_the_queue_wait_for_credit_too() {
    let bench = Bench::new().await;
    let mut options = options();
    options.high.cpus = Some(0.5);
    let scheduler = bench.start(options, runner(|_, _| async { done("1") }));
    let lane = scheduler.lane(Pool::High).clone();
    lane.budget().charge(Duration::from_secs(3_600));
    let call = tokio::spawn({
        let lane = lane.clone();
        async move { lane.spawn(|| async { 1 }).await }
    });
    while lane.usage().queued == 0 {
        tokio::task::yield_now().await;
    }
    // Another pool's thread has come and gone meanwhile.
    let other = scheduler.lane(Pool::Default).spawn(|| async { 2 });
    assert_eq!(soon("other", other).await, Ok(2));
    assert_eq!(lane.usage().queued, 1);
    control(&bench, &scheduler, Pool::High, UNLIMITED).await;
    assert_eq!(soon("call", call).await.unwrap(), Ok(1));
}

/// Starts a scheduler whose only task is parked for an hour, and waits until it is.
async fn parked(bench: &Bench) -> (Scheduler, TaskId) {
    let (told, mut started) = mpsc::unbounded_channel();
    let mut options = options();
    options.batched.cpus = Some(0.5);
    let scheduler = bench.start(
        options,
        runner(move |_, context: RunContext| {
            let told = told.clone();
            async move {
                context.budget.charge(Duration::from_secs(3_600));
                told.send(()).unwrap();
                tokio::select! {
                    () = context.budget.park() => done("1"),
                    () = context.cancel.cancelled() => RunOutcome::Cancelled,
                }
            }
        }),
    );
    let submission = bench.submit("batched").await;
    soon("start", started.recv()).await;
    while status(&scheduler, Pool::Batched).parked == 0 {
        tokio::task::yield_now().await;
    }
    (scheduler, TaskId::new(submission, 0))
}

#[tokio::test]
async fn a_drain_gives_a_parked_run_back_without_spending_an_attempt() {
    let bench = Bench::new().await;
    let (scheduler, id) = parked(&bench).await;
    let report = soon("drain", scheduler.drain(Duration::ZERO)).await;
    assert_eq!((report.finished, report.released, report.abandoned), (0, 1, 0));
    let task = bench.store.task(id).await.unwrap().unwrap();
    assert_eq!((task.summary.state, task.summary.attempts), (State::Available, 0));
    assert!(status(&scheduler, Pool::Batched).parked_seconds > 0.0);
}

#[tokio::test]
async fn a_parked_run_is_cancelled() {
    let bench = Bench::new().await;
    let (_scheduler, id) = parked(&bench).await;
    let asked = bench.store.cancel(id, support::now()).await.unwrap();
    assert!(matches!(asked, Cancel::Requested), "{asked:?}");
    let view = bench.settled(id.submission).await;
    assert_eq!(view.tasks[0].summary.state, State::Cancelled);
}

#[tokio::test]
async fn permits_change_while_tasks_run() {
    let bench = Bench::new().await;
    let (told, mut started) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let mut options = options();
    options.default.permits = 1;
    let scheduler = bench.start(
        options,
        runner({
            let go = Arc::clone(&go);
            move |_, _| {
                let (go, told) = (Arc::clone(&go), told.clone());
                async move {
                    told.send(()).unwrap();
                    go.notified().await;
                    done("1")
                }
            }
        }),
    );
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(bench.submit("default").await);
    }
    soon("first", started.recv()).await;
    let available = async || {
        let mut count = 0;
        for id in &ids {
            count += usize::from(bench.task(*id).await.summary.state == State::Available);
        }
        count
    };
    assert_eq!(available().await, 3);
    control(&bench, &scheduler, Pool::Default, permits(3)).await;
    soon("second", started.recv()).await;
    soon("third", started.recv()).await;
    assert_eq!(available().await, 1);
    assert_eq!(status(&scheduler, Pool::Default).permits, 3);
    // Two of the three places are withdrawn: the next to end makes no room.
    control(&bench, &scheduler, Pool::Default, permits(1)).await;
    go.notify_one();
    while status(&scheduler, Pool::Default).running > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(available().await, 1);
    go.notify_one();
    go.notify_one();
    soon("fourth", started.recv()).await;
    go.notify_waiters();
    go.notify_one();
    for id in &ids {
        bench.settled(*id).await;
    }
    assert!(status(&scheduler, Pool::Default).permit_wait_seconds > 0.0);
}

#[tokio::test]
async fn what_is_set_out_of_range_changes_nothing() {
    let bench = Bench::new().await;
    let mut options = options();
    options.high.cpus = Some(1.5);
    let scheduler = bench.start(options, runner(|_, _| async { done("1") }));
    for (cpus, permits) in [(-1.0, 1), (f64::NAN, 1), (9_999.0, 1), (0.5, 0)] {
        let wrong = PoolControl {
            cpus: Some(cpus),
            permits: Some(permits),
            ..PoolControl::default()
        };
        let refused = scheduler.limits_under(Pool::High, &wrong).unwrap_err();
        assert!(refused.option.starts_with("high."), "{refused}");
    }
    control(&bench, &scheduler, Pool::High, permits(0)).await;
    let high = status(&scheduler, Pool::High);
    assert_eq!((high.cpus, high.permits), (Some(1.5), support::options().high.permits));
    let half = PoolControlChange {
        cpus: Some(Some(0.5)),
        burst: Some(Some(true)),
        permits: Some(None),
        ..PoolControlChange::default()
    };
    control(&bench, &scheduler, Pool::High, half).await;
    let high = status(&scheduler, Pool::High);
    assert_eq!((high.cpus, high.burst), (Some(0.5), true));
    let as_configured = PoolControlChange {
        cpus: Some(None),
        burst: Some(None),
        ..PoolControlChange::default()
    };
    control(&bench, &scheduler, Pool::High, as_configured).await;
    let high = status(&scheduler, Pool::High);
    assert_eq!((high.cpus, high.burst, high.cpu_rate), (Some(1.5), false, Some(1.5)));
}

#[tokio::test]
async fn a_process_works_only_for_its_pools_and_says_so() {
    let bench = Bench::new().await;
    let mut options = options();
    options.roles = Roles {
        claims: [Pool::Default].into(),
        calls: [Pool::High].into(),
    };
    for pool in [&mut options.high, &mut options.batched] {
        pool.poll_ms = 1;
    }
    let scheduler = bench.start(options, runner(|_, _| async { done("1") }));
    let elsewhere = [bench.submit("high").await, bench.submit("batched").await];
    let here = bench.submit("default").await;
    bench.settled(here).await;
    for id in elsewhere {
        assert_eq!(bench.task(id).await.summary.state, State::Available);
    }
    let shown: Vec<_> = scheduler
        .status()
        .iter()
        .map(|pool| (pool.presence, pool.threads))
        .collect();
    assert_eq!(
        shown,
        [(Presence::Calls, 1), (Presence::Claims, 1), (Presence::Absent, 0)]
    );
    assert_eq!(scheduler.lane(Pool::High).spawn(|| async { 1 }).await, Ok(1));
    let refused = scheduler.lane(Pool::Batched).spawn(|| async { 1 }).await;
    assert_eq!(refused, Err(LaneError::NotHere(Pool::Batched)));
    let report = soon("drain", scheduler.drain(Duration::ZERO)).await;
    assert_eq!(report.abandoned, 0);
}

/// A runner whose steps set their own limits.
struct Hasty(TimeLimits);

#[async_trait::async_trait]
impl TaskRunner for Hasty {
    async fn run(&self, _task: Claimed, context: RunContext) -> RunOutcome {
        let left = context.deadline - context.soft_deadline;
        if self.0.hard_ms == Some(1) {
            context.cancel.cancelled().await;
            return RunOutcome::Cancelled;
        }
        done(&left.as_millis().to_string())
    }

    async fn rules(&self, _task: &Claimed) -> StepRules {
        StepRules {
            limits: self.0,
            ..StepRules::default()
        }
    }
}

#[tokio::test]
async fn a_steps_own_limits_go_before_the_pools() {
    let left = async |step: TimeLimits, change: fn(&mut SchedulerOptions)| {
        let bench = Bench::new().await;
        let mut options = options();
        change(&mut options);
        let _scheduler = bench.start(options, Arc::new(Hasty(step)));
        let id = bench.submit("default").await;
        let view = bench.settled(id).await;
        view.tasks[0].result.as_ref().map(|result| result.output.clone())
    };
    let pool = TimeLimits::default();
    assert_eq!(left(pool, |_| {}).await.as_deref(), Some("6000"));
    assert_eq!(
        left(pool, |o| o.default.soft_limit_ms = 59_000).await.as_deref(),
        Some("1000")
    );
    assert_eq!(
        left(pool, |o| o.default.soft_limit_ms = 99_000).await.as_deref(),
        Some("0")
    );
    let own = TimeLimits {
        hard_ms: Some(20_000),
        soft_ms: None,
    };
    assert_eq!(
        left(own, |o| o.default.soft_limit_ms = 10_000).await.as_deref(),
        Some("2000")
    );
    let both = TimeLimits {
        hard_ms: Some(20_000),
        soft_ms: Some(5_000),
    };
    assert_eq!(left(both, |_| {}).await.as_deref(), Some("15000"));
}

#[tokio::test]
async fn a_step_is_stopped_at_its_own_hard_limit() {
    let bench = Bench::new().await;
    let mut options = options();
    options.default.retry = RetryPolicy::try_new(1, 1, 5).unwrap();
    let hasty = Hasty(TimeLimits {
        hard_ms: Some(1),
        soft_ms: None,
    });
    let _scheduler = bench.start(options, Arc::new(hasty));
    let id = bench.submit("default").await;
    let view = bench.settled(id).await;
    let error = view.tasks[0].summary.error.clone().unwrap();
    assert_eq!(error.code, "deadline-exceeded");
    assert!(error.message.contains("1 ms"), "{}", error.message);
}

/// Where cgroups can be made the kernel is told; elsewhere the budget holds alone and the status says so.
#[tokio::test]
async fn cgroups_are_used_when_asked_for_and_possible() {
    let bench = Bench::new().await;
    let mut options = options();
    options.cpu_enforcement = CpuEnforcement::Cgroup;
    options.batched.cpus = Some(0.5);
    let scheduler = bench.start(options, runner(|_, _| async { done("1") }));
    let id = bench.submit("batched").await;
    bench.settled(id).await;
    let limited = status(&scheduler, Pool::Batched);
    match limited.enforcement {
        Enforcement::Budget => assert_eq!(limited.throttled, None),
        Enforcement::CgroupV1 | Enforcement::CgroupV2 => assert!(limited.throttled.is_some()),
        other => panic!("{other:?}"),
    }
    assert_eq!(status(&scheduler, Pool::High).enforcement, Enforcement::None);
}

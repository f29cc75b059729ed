//! Starting, pausing, draining, recovering.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

use formwork_scheduler::{DrainReport, RunOutcome, Scheduler, SchedulerOptions, StartError};
use formwork_store::StoreEvent;
use formwork_tasks::{DeadReason, Pool, State, SubmissionStatus};
use std::{sync::Arc, time::Duration};
use support::{Bench, done, now, options, runner, soon};
use tokio::sync::{Notify, mpsc};

#[tokio::test]
async fn tasks_of_a_killed_process_run_again_at_once() {
    let bench = Bench::new().await;
    let id = bench.submit("default").await;
    let hour = 3_600_000;
    let ghost = bench.store.claim(Pool::Default, "w-ghost", 9, hour, now()).await;
    assert_eq!(ghost.unwrap().len(), 1);
    let scheduler = bench.start(options(), runner(|_, _| async { done("1") }));
    soon("ready", scheduler.ready()).await;
    assert!(scheduler.is_ready());
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
    assert_eq!(view.tasks[0].summary.crashes, 1);
    assert_eq!(view.tasks[0].summary.run_lease.0, 2);
}

#[tokio::test]
async fn a_task_that_kills_every_worker_ends_in_the_dead_letters() {
    let bench = Bench::new().await;
    let id = bench.submit("default").await;
    let mut options = options();
    options.max_crashes = 2;
    for _ in 0..2 {
        let claimed = bench.store.claim(Pool::Default, "w-ghost", 9, 60_000, now()).await;
        assert_eq!(claimed.unwrap().len(), 1);
        // What the scheduler claims goes back at the drain and is the next ghost's.
        let deaf = runner(|_, _| std::future::pending());
        let scheduler = bench.start(options.clone(), deaf);
        soon("ready", scheduler.ready()).await;
        soon("drain", scheduler.drain(Duration::ZERO)).await;
    }
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Failed);
    assert_eq!(view.tasks[0].summary.dead_reason, Some(DeadReason::Crashed));
}

#[tokio::test]
async fn a_second_scheduler_on_the_same_store_is_refused_and_harms_nothing() {
    let bench = Bench::new().await;
    let go = Arc::new(Notify::new());
    let (told, mut started) = mpsc::unbounded_channel();
    let work = runner({
        let go = Arc::clone(&go);
        move |_, _| {
            let (go, told) = (Arc::clone(&go), told.clone());
            async move {
                told.send(()).unwrap();
                go.notified().await;
                done("1")
            }
        }
    });
    let first = bench.start(options(), Arc::clone(&work));
    let id = bench.submit("high").await;
    soon("start", started.recv()).await;
    let second = Scheduler::start(options(), Arc::clone(&bench.store), Arc::clone(&work));
    assert!(matches!(second, Err(StartError::AlreadyStarted)));
    go.notify_one();
    let view = bench.settled(id).await;
    assert_eq!(view.tasks[0].summary.run_lease.0, 1);
    first.drain(Duration::ZERO).await;
    bench.start(options(), work);
}

#[tokio::test]
async fn a_paused_pool_claims_nothing_until_it_is_resumed() {
    let bench = Bench::new().await;
    let scheduler = bench.start(options(), runner(|_, _| async { done("1") }));
    soon("ready", scheduler.ready()).await;
    // A task through the pool first, so that its dispatcher is known to be idle behind its claim.
    let before = bench.submit("high").await;
    bench.settled(before).await;
    bench.set_paused(&scheduler, Pool::High, true).await;
    let waiting = bench.submit("high").await;
    let other = bench.submit("default").await;
    bench.settled(other).await;
    assert_eq!(bench.task(waiting).await.summary.state, State::Available);
    // A pause outlives the process.
    scheduler.drain(Duration::ZERO).await;
    let scheduler = bench.start(options(), runner(|_, _| async { done("2") }));
    let other = bench.submit("default").await;
    bench.settled(other).await;
    assert_eq!(bench.task(waiting).await.summary.state, State::Available);
    bench.set_paused(&scheduler, Pool::High, false).await;
    let view = bench.settled(waiting).await;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
}

#[tokio::test]
async fn a_drain_lets_tasks_finish_within_its_grace() {
    let bench = Bench::new().await;
    let (told, mut started) = mpsc::unbounded_channel();
    let go = Arc::new(Notify::new());
    let scheduler = bench.start(
        options(),
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
    let id = bench.submit("default").await;
    soon("start", started.recv()).await;
    let draining = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.drain(Duration::from_secs(60)).await }
    });
    while !scheduler.is_draining() {
        tokio::task::yield_now().await;
    }
    let late = bench.submit("default").await;
    go.notify_one();
    let report = soon("drain", draining).await.unwrap();
    assert_eq!(
        report,
        DrainReport {
            finished: 1,
            released: 0,
            abandoned: 0
        }
    );
    assert_eq!(bench.task(id).await.summary.state, State::Completed);
    assert_eq!(bench.task(late).await.summary.state, State::Available);
}

#[tokio::test]
async fn a_drain_gives_the_rest_back_without_spending_an_attempt() {
    let bench = Bench::new().await;
    let (told, mut started) = mpsc::unbounded_channel();
    let scheduler = bench.start(
        options(),
        runner(move |task, context| {
            let told = told.clone();
            async move {
                told.send(()).unwrap();
                if task.form == "batched" {
                    // Deaf: must be dropped.
                    std::future::pending::<()>().await;
                }
                context.cancel.cancelled().await;
                RunOutcome::Cancelled
            }
        }),
    );
    let polite = bench.submit("default").await;
    let deaf = bench.submit("batched").await;
    soon("start", started.recv()).await;
    soon("start", started.recv()).await;
    let both = async {
        tokio::join!(
            scheduler.drain(Duration::ZERO),
            scheduler.drain(Duration::from_secs(3_600))
        )
    };
    let (one, two) = soon("drain", both).await;
    assert_eq!(one, two);
    assert_eq!((one.finished, one.released, one.abandoned), (0, 2, 0));
    assert_eq!(soon("again", scheduler.drain(Duration::ZERO)).await, one);
    for id in [polite, deaf] {
        let task = bench.task(id).await.summary;
        assert_eq!(task.state, State::Available);
        assert_eq!((task.attempts, task.errors, task.crashes), (0, 0, 0));
    }
    let _next = bench.start(options(), runner(|_, _| async { done("1") }));
    for id in [polite, deaf] {
        let view = bench.settled(id).await;
        assert_eq!(view.tasks[0].summary.attempts, 1);
    }
}

#[tokio::test]
async fn a_dropped_scheduler_stops_claiming() {
    let bench = Bench::new().await;
    let scheduler = bench.start(options(), runner(|_, _| async { done("1") }));
    let id = bench.submit("high").await;
    bench.settled(id).await;
    drop(scheduler);
    let mut events = bench.store.subscribe();
    let id = bench.submit("high").await;
    let told = soon("event", events.recv()).await.unwrap();
    assert_eq!(told, StoreEvent::TasksAvailable { pool: Pool::High });
    assert_eq!(bench.task(id).await.summary.state, State::Available);
}

#[test]
fn options_keep_each_pools_defaults_and_refuse_what_they_do_not_know() {
    let text = r#"{"high": {"threads": 3}, "lease_ms": 40000}"#;
    let options: SchedulerOptions = serde_json::from_str(text).unwrap();
    let defaults = SchedulerOptions::default();
    assert_eq!(options.high.threads, 3);
    assert_eq!(options.high.limit_ms, defaults.high.limit_ms);
    assert_eq!(options.batched, defaults.batched);
    assert_eq!(options.check(), Ok(()));
    for text in [r#"{"hihg": {}}"#, r#"{"high": {"thread": 3}}"#] {
        assert!(serde_json::from_str::<SchedulerOptions>(text).is_err());
    }
    let mut wrong = SchedulerOptions::default();
    wrong.heartbeat_ms = wrong.lease_ms;
    let error = wrong.check().unwrap_err();
    assert_eq!(
        error.to_string(),
        "scheduler option heartbeat_ms is 30000, expected 1 to 15000"
    );
    wrong = SchedulerOptions::default();
    wrong.batched.permits = 0;
    assert_eq!(wrong.check().unwrap_err().option, "batched.permits");
    let round = serde_json::to_string(&defaults).unwrap();
    let round: SchedulerOptions = serde_json::from_str(&round).unwrap();
    assert_eq!(round, defaults);
}

//! The life of tasks under a scheduler: flow, retry, dead letters, cancel, lost leases, panics, deadlines.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

use formwork_scheduler::RunOutcome;
use formwork_store::{Cancel, NewProgress, TaskId};
use formwork_tasks::{DeadReason, Millis, Pool, RetryPolicy, State, Step, SubmissionStatus};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc as blocking,
    },
    thread,
    time::Duration,
};
use support::{Bench, done, failed, options, runner, soon};
use tokio::sync::{Notify, Semaphore, mpsc};

#[tokio::test]
async fn tasks_flow_through_a_pipeline_each_on_the_threads_of_its_pool() {
    let bench = Bench::new().await;
    let steps = vec![
        Step::new("check").in_pool(Pool::High),
        Step::new("label").in_pool(Pool::Batched),
    ];
    bench.form("two", steps).await;
    let scheduler = bench.start(
        options(),
        runner(|task, context| async move {
            let thread = thread::current().name().unwrap().to_owned();
            assert!(thread.starts_with(&format!("fw-{}-", context.pool)), "{thread}");
            let before: Vec<_> = task.outputs.iter().map(|o| o.output.clone()).collect();
            done(&format!("{:?}", format!("{} {before:?}", task.step)))
        }),
    );
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(bench.submit("two").await);
    }
    for id in ids {
        let view = bench.settled(id).await;
        assert_eq!(view.summary.status, SubmissionStatus::Done);
        let worker = view.tasks[0].summary.worker.clone();
        assert_eq!(worker.as_deref(), Some(scheduler.worker()));
        let output = &view.tasks[1].result.as_ref().unwrap().output;
        assert!(output.contains("label") && output.contains("check"), "{output}");
    }
}

#[tokio::test]
async fn a_failed_run_is_tried_again_and_its_success_recorded() {
    let bench = Bench::new().await;
    let _scheduler = bench.start(
        options(),
        runner(|task, _| async move {
            if task.attempt < 3 {
                failed("model-loading", true)
            } else {
                done("1")
            }
        }),
    );
    let id = bench.submit("default").await;
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
    assert_eq!(view.tasks[0].summary.attempts, 3);
    assert_eq!(view.tasks[0].summary.errors, 2);
}

#[tokio::test]
async fn the_next_attempt_does_not_come_before_the_failing_side_allows_it() {
    let bench = Bench::new().await;
    let _scheduler = bench.start(
        options(),
        runner(|task, _| async move {
            if task.attempt > 1 {
                return done("1");
            }
            RunOutcome::Failed {
                code: "busy".into(),
                message: "come again".into(),
                retryable: true,
                retry_after: Some(Duration::from_millis(300)),
                provenance: None,
                cpu_ms: None,
            }
        }),
    );
    let id = bench.submit("default").await;
    let view = bench.settled(id).await;
    let history = bench.store.task_history(TaskId::new(id, 0)).await.unwrap();
    let at = |why: &str| history.iter().find(|line| line.why == why).unwrap().at;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
    assert!(at("due").since(view.summary.submitted_at) >= 300);
}

#[tokio::test]
async fn hopeless_and_exhausted_tasks_are_dead_with_their_reason() {
    let bench = Bench::new().await;
    let _scheduler = bench.start(
        options(),
        runner(|task, _| async move { failed("broken", task.form == "high") }),
    );
    let hopeless = bench.submit("default").await;
    let exhausted = bench.submit("high").await;
    let view = bench.settled(hopeless).await;
    assert_eq!(view.summary.status, SubmissionStatus::Failed);
    assert_eq!(view.tasks[0].summary.dead_reason, Some(DeadReason::Failed));
    assert_eq!(view.tasks[0].summary.attempts, 1);
    let view = bench.settled(exhausted).await;
    assert_eq!(view.tasks[0].summary.dead_reason, Some(DeadReason::Exhausted));
    assert_eq!(view.tasks[0].summary.errors, 3);
    assert_eq!(view.tasks[0].summary.error.as_ref().unwrap().code, "broken");
}

#[tokio::test]
async fn a_cancel_reaches_a_running_task_at_once() {
    let bench = Bench::new().await;
    let (told, mut started) = mpsc::unbounded_channel();
    let mut options = options();
    // Only the event can be the messenger.
    options.lease_ms = 7_200_000;
    options.heartbeat_ms = 3_600_000;
    options.stop_grace_ms = 3_600_000;
    let _scheduler = bench.start(
        options,
        runner(move |_, context| {
            let told = told.clone();
            async move {
                told.send(()).unwrap();
                context.cancel.cancelled().await;
                RunOutcome::Cancelled
            }
        }),
    );
    let id = bench.submit("batched").await;
    soon("start", started.recv()).await;
    let answer = bench.store.cancel(TaskId::new(id, 0), support::now()).await;
    assert_eq!(answer.unwrap(), Cancel::Requested);
    let view = bench.settled(id).await;
    assert_eq!(view.tasks[0].summary.state, State::Cancelled);
}

#[tokio::test]
async fn a_cancelled_run_that_does_not_come_back_is_dropped() {
    struct Told(mpsc::UnboundedSender<&'static str>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let bench = Bench::new().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let _scheduler = bench.start(
        options(),
        runner(move |_, _| {
            let told = told.clone();
            async move {
                told.send("started").unwrap();
                let _guard = Told(told);
                std::future::pending().await
            }
        }),
    );
    let id = bench.submit("batched").await;
    assert_eq!(soon("start", heard.recv()).await, Some("started"));
    let task = TaskId::new(id, 0);
    bench.store.cancel(task, support::now()).await.unwrap();
    let view = bench.settled(id).await;
    assert_eq!(view.tasks[0].summary.state, State::Cancelled);
    assert_eq!(soon("drop", heard.recv()).await, Some("dropped"));
}

#[tokio::test]
async fn a_run_whose_task_was_taken_by_another_run_records_nothing() {
    let bench = Bench::new().await;
    let (told, mut started) = mpsc::unbounded_channel();
    let _scheduler = bench.start(
        options(),
        runner(move |task, context| {
            let told = told.clone();
            async move {
                told.send(task.run_lease).unwrap();
                if task.run_lease.0 > 1 {
                    return done("\"fresh\"");
                }
                context.cancel.cancelled().await;
                done("\"stale\"")
            }
        }),
    );
    let id = bench.submit("default").await;
    soon("first run", started.recv()).await;
    // Somebody whose clock is far ahead holds the lease for ended.
    let reaped = bench.store.reap(Millis(i64::MAX), 9).await.unwrap();
    assert_eq!(reaped.len(), 1);
    let view = bench.settled(id).await;
    assert_eq!(view.tasks[0].result.as_ref().unwrap().output, "\"fresh\"");
    assert_eq!(view.tasks[0].summary.run_lease.0, 2);
    let moves = bench.moves(id).await;
    assert_eq!(moves.iter().filter(|why| *why == "completed").count(), 1);
}

#[tokio::test]
async fn a_heartbeat_stops_a_run_whose_lease_is_lost() {
    let bench = Bench::new().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let mut options = options();
    options.heartbeat_ms = 10;
    let scheduler = bench.start(
        options,
        runner(move |_, context| {
            let told = told.clone();
            async move {
                told.send("started").unwrap();
                context.cancel.cancelled().await;
                told.send("stopped").unwrap();
                done("1")
            }
        }),
    );
    let id = bench.submit("default").await;
    assert_eq!(soon("start", heard.recv()).await, Some("started"));
    bench.set_paused(&scheduler, Pool::Default, true).await;
    bench.store.reap(Millis(i64::MAX), 9).await.unwrap();
    assert_eq!(soon("stop", heard.recv()).await, Some("stopped"));
    scheduler.drain(Duration::from_secs(10)).await;
    assert_eq!(bench.task(id).await.summary.state, State::Available);
}

#[tokio::test]
async fn progress_is_shown_long_before_the_next_heartbeat_and_only_while_the_run_goes_on() {
    let bench = Bench::new().await;
    let go = Arc::new(Notify::new());
    let mut options = options();
    options.heartbeat_ms = 15_000;
    let _scheduler = bench.start(
        options,
        runner({
            let go = Arc::clone(&go);
            move |_, context| {
                let go = Arc::clone(&go);
                async move {
                    for page in 1..=1_000_u32 {
                        context.progress.report(NewProgress {
                            fraction: Some(f64::from(page) / 1_000.0),
                            message: format!("page {page}"),
                        });
                    }
                    go.notified().await;
                    done("1")
                }
            }
        }),
    );
    let id = bench.submit("default").await;
    let shown = soon("progress", async {
        loop {
            let progress = bench.task(id).await.progress;
            // The first words may have gone ahead of the last ones.
            if let Some(progress) = progress.filter(|progress| progress.fraction == Some(1.0)) {
                return progress;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(shown.await.message, "page 1000");
    go.notify_one();
    let view = bench.settled(id).await;
    assert_eq!(view.tasks[0].progress, None);
    assert_eq!(bench.moves(id).await, ["created", "claimed", "completed"]);
}

#[tokio::test]
async fn heartbeats_keep_a_long_run_alive_past_its_lease() {
    let bench = Bench::new().await;
    let mut options = options();
    options.lease_ms = 200;
    options.heartbeat_ms = 20;
    let _scheduler = bench.start(
        options,
        runner(|_, _| async move {
            // The guest computes for several leases without ever yielding.
            thread::sleep(Duration::from_millis(900));
            done("1")
        }),
    );
    let id = bench.submit("default").await;
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
    assert_eq!(view.tasks[0].summary.run_lease.0, 1);
    assert_eq!(view.tasks[0].summary.crashes, 0);
}

#[tokio::test]
async fn a_panic_is_a_failed_run_and_the_thread_lives_on() {
    let bench = Bench::new().await;
    let errors = Arc::new(AtomicUsize::new(0));
    let _scheduler = bench.start(
        options(),
        runner({
            let errors = Arc::clone(&errors);
            move |task, _| {
                let errors = Arc::clone(&errors);
                async move {
                    if task.attempt == 1 {
                        errors.fetch_add(1, Ordering::Relaxed);
                        panic!("a bug in the host");
                    }
                    done("1")
                }
            }
        }),
    );
    let id = bench.submit("high").await;
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
    assert_eq!(view.tasks[0].summary.errors, 1);
    assert_eq!(errors.load(Ordering::Relaxed), 1);
    let moves = bench.moves(id).await;
    assert!(moves.contains(&"retry: panic".to_owned()), "{moves:?}");
}

#[tokio::test]
async fn a_run_beyond_the_hard_limit_fails_even_if_it_ignores_its_token() {
    let bench = Bench::new().await;
    let mut options = options();
    options.high.limit_ms = 20;
    options.high.retry = RetryPolicy::try_new(1, 1, 1).unwrap();
    let _scheduler = bench.start(
        options,
        runner(|_, context| async move {
            assert!(context.deadline > std::time::Instant::now());
            std::future::pending().await
        }),
    );
    let id = bench.submit("high").await;
    let view = bench.settled(id).await;
    let task = &view.tasks[0].summary;
    assert_eq!(task.state, State::Dead);
    assert_eq!(task.error.as_ref().unwrap().code, "deadline-exceeded");
}

#[tokio::test]
async fn a_run_that_blocks_its_thread_fails_at_the_limit_all_the_same() {
    let bench = Bench::new().await;
    let (release, blocked) = blocking::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let mut options = options();
    options.high.limit_ms = 20;
    options.high.retry = RetryPolicy::try_new(1, 1, 1).unwrap();
    let _scheduler = bench.start(
        options,
        runner(move |_, _| {
            let blocked = Arc::clone(&blocked);
            async move {
                let _ = blocked.lock().unwrap().recv();
                done("1")
            }
        }),
    );
    let id = bench.submit("high").await;
    let view = bench.settled(id).await;
    let task = &view.tasks[0].summary;
    assert_eq!(task.error.as_ref().unwrap().code, "deadline-exceeded");
    drop(release);
}

#[tokio::test]
async fn no_more_tasks_run_than_there_are_permits() {
    let bench = Bench::new().await;
    let mut options = options();
    options.batched.permits = 3;
    options.batched.runs_per_thread = 16;
    let (told, mut started) = mpsc::unbounded_channel();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let go = Arc::new(Semaphore::new(0));
    let scheduler = bench.start(
        options,
        runner({
            let (most, go) = (Arc::clone(&most), Arc::clone(&go));
            move |_, _| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let (go, told) = (Arc::clone(&go), told.clone());
                async move {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    told.send(()).unwrap();
                    go.acquire().await.unwrap().forget();
                    running.fetch_sub(1, Ordering::SeqCst);
                    done("1")
                }
            }
        }),
    );
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(bench.submit("batched").await);
    }
    for _ in 0..3 {
        soon("start", started.recv()).await;
    }
    let status = scheduler.status()[Pool::Batched as usize];
    assert_eq!((status.running, status.permits), (3, 3));
    // What has no permit is not claimed: another process could have it.
    let stats = bench.store.pool_stats(support::now()).await.unwrap();
    assert_eq!(stats[Pool::Batched as usize].available, 7);
    go.add_permits(10);
    for id in ids {
        bench.settled(id).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

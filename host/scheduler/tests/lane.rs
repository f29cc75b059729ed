//! The threads of a pool, used without a queue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

use formwork_scheduler::{Lane, LaneError, PoolOptions};
use formwork_tasks::Pool;
use futures::FutureExt;
use std::{rc::Rc, thread, time::Duration};
use support::soon;
use tokio::sync::{mpsc, oneshot};

fn lane(pool: Pool, change: impl FnOnce(&mut PoolOptions)) -> Lane {
    let mut options = PoolOptions::of(pool);
    options.threads = 1;
    change(&mut options);
    Lane::start(pool, &options).unwrap()
}

#[tokio::test]
async fn work_runs_on_the_lanes_threads_and_need_not_be_send() {
    let lane = lane(Pool::High, |_| {});
    let name = lane
        .spawn(|| async {
            let name = Rc::new(thread::current().name().unwrap().to_owned());
            tokio::time::sleep(Duration::from_millis(1)).await;
            name.to_string()
        })
        .await;
    assert_eq!(name.as_deref(), Ok("fw-high-0"));
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_caller_only() {
    let lane = lane(Pool::Default, |_| {});
    let answer = lane.spawn(|| async { panic!("no {}", "way") }).await;
    let answer: Result<(), _> = answer;
    assert_eq!(
        answer.unwrap_err(),
        LaneError::Panicked {
            pool: Pool::Default,
            message: "no way".into()
        }
    );
    assert_eq!(lane.spawn(|| async { 1 }).await, Ok(1));
}

#[tokio::test]
async fn a_full_inbox_refuses_and_a_dropped_call_drops_its_work() {
    let lane = lane(Pool::High, |options| {
        options.inbox = 1;
        options.runs_per_thread = 1;
    });
    let (told, mut heard) = mpsc::unbounded_channel();
    let (ended, end) = oneshot::channel::<()>();
    let running = tokio::spawn({
        let (lane, told) = (lane.clone(), told.clone());
        async move {
            lane.spawn(move || async move {
                let _alive = ended;
                told.send(()).unwrap();
                std::future::pending::<()>().await;
            })
            .await
        }
    });
    soon("start", heard.recv()).await;
    let mut waiting = Box::pin(lane.spawn(|| async { 2 }));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(lane.usage().queued, 1);
    assert_eq!(lane.spawn(|| async { 3 }).await, Err(LaneError::Full(Pool::High)));
    running.abort();
    assert!(soon("drop", end).await.is_err());
    assert_eq!(soon("next", waiting).await, Ok(2));
}

#[tokio::test]
async fn a_closed_lane_refuses_and_drops_what_waits() {
    let lane = lane(Pool::High, |options| options.runs_per_thread = 1);
    let (told, mut heard) = mpsc::unbounded_channel();
    let (go, gone) = oneshot::channel::<()>();
    let mut running = Box::pin(lane.spawn(move || async move {
        told.send(()).unwrap();
        gone.await.unwrap();
        1
    }));
    assert!((&mut running).now_or_never().is_none());
    soon("start", heard.recv()).await;
    let mut waiting = Box::pin(lane.spawn(|| async { 2 }));
    assert!((&mut waiting).now_or_never().is_none());
    lane.close();
    lane.close();
    let closed = Err(LaneError::Closed(Pool::High));
    assert_eq!(soon("refusal", waiting).await, closed);
    assert_eq!(lane.spawn(|| async { 3 }).await, closed);
    go.send(()).unwrap();
    assert_eq!(soon("end", running).await, Ok(1));
}

#[tokio::test]
async fn an_idle_thread_takes_the_work_behind_a_busy_one() {
    let lane = lane(Pool::Default, |options| options.threads = 2);
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (told, mut heard) = mpsc::unbounded_channel();
    let busy = tokio::spawn({
        let lane = lane.clone();
        async move {
            lane.spawn(move || async move {
                told.send(()).unwrap();
                let _ = blocked.recv();
            })
            .await
        }
    });
    soon("start", heard.recv()).await;
    for _ in 0..20 {
        assert_eq!(soon("turn", lane.spawn(|| async { 1 })).await, Ok(1));
    }
    drop(release);
    soon("end", busy).await.unwrap().unwrap();
}

#[tokio::test]
async fn threads_are_ranked_by_pool_and_their_cpu_time_is_counted_while_they_compute() {
    // Fields of /proc/thread-self/stat behind the name: 19 is the niceness, 41 the policy (3: SCHED_BATCH).
    async fn rank(lane: &Lane) -> (i32, u32) {
        let stat = lane
            .spawn(|| async { std::fs::read_to_string("/proc/thread-self/stat").unwrap() })
            .await
            .unwrap();
        let rest = stat.rsplit(')').next().unwrap();
        let fields: Vec<_> = rest.split_whitespace().collect();
        (fields[19 - 3].parse().unwrap(), fields[41 - 3].parse().unwrap())
    }
    let own: i32 = {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let rest = stat.rsplit(')').next().unwrap().to_owned();
        rest.split_whitespace().nth(19 - 3).unwrap().parse().unwrap()
    };
    let (high, default) = (lane(Pool::High, |_| {}), lane(Pool::Default, |_| {}));
    let batched = lane(Pool::Batched, |_| {});
    assert_eq!(rank(&high).await, (own, 0));
    assert_eq!(rank(&default).await, (5.max(own), 0));
    assert_eq!(rank(&batched).await, (19, 3));

    let (told, mut heard) = mpsc::unbounded_channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let work = tokio::spawn({
        let batched = batched.clone();
        async move {
            batched
                .spawn(move || async move {
                    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
                    let start = Duration::from(clock.now().unwrap());
                    while Duration::from(clock.now().unwrap()) - start < Duration::from_millis(50) {
                        std::hint::black_box(0);
                    }
                    told.send(()).unwrap();
                    let _ = released.recv();
                })
                .await
        }
    });
    soon("work", heard.recv()).await;
    // The work still holds its thread.
    let used = batched.usage().cpu_seconds;
    assert!(used >= 0.05, "{used}");
    drop(release);
    work.await.unwrap().unwrap();
    assert!(batched.usage().cpu_seconds >= used);
}

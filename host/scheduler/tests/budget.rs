//! The CPU account of a pool, with a clock and a meter in the test's hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

use formwork_scheduler::Budget;
use formwork_tasks::Pool;
use futures::FutureExt;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, advance};

/// An account whose time is tokio's paused clock, and the CPU time its threads have used, in milliseconds.
fn account(rate: Option<f64>) -> (Budget, Arc<AtomicU64>) {
    let used = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&used);
    let budget = Budget::new(
        Pool::Batched,
        rate,
        Box::new(|| Instant::now().into_std()),
        Box::new(move || Duration::from_millis(read.load(Ordering::Relaxed))),
    );
    (budget, used)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn an_overdrawn_account_parks_until_the_debt_is_paid() {
    let (budget, used) = account(Some(0.5));
    assert_eq!(budget.overdrawn(), None);
    used.store(40, Ordering::Relaxed);
    assert_eq!(budget.overdrawn(), Some(ms(80)));
    let began = Instant::now();
    let mut parked = pin!(budget.park());
    assert!((&mut parked).now_or_never().is_none());
    assert_eq!(budget.usage().parked, 1);
    advance(ms(79)).await;
    assert!((&mut parked).now_or_never().is_none());
    parked.await;
    assert!(
        began.elapsed() >= ms(80) && began.elapsed() < ms(85),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(budget.overdrawn(), None);
    let usage = budget.usage();
    assert_eq!((usage.parked, usage.cpu), (0, ms(40)));
    assert!(usage.parked_time >= ms(80), "{usage:?}");
}

#[tokio::test(start_paused = true)]
async fn native_work_counts_like_the_threads_own() {
    let (budget, used) = account(Some(0.5));
    used.store(10, Ordering::Relaxed);
    budget.charge(ms(30));
    assert_eq!(budget.overdrawn(), Some(ms(80)));
    assert_eq!((budget.usage().cpu, budget.usage().native), (ms(40), ms(30)));
}

#[tokio::test(start_paused = true)]
async fn the_average_is_the_rate_however_the_work_comes() {
    let (budget, used) = account(Some(0.25));
    let began = Instant::now();
    // Steps of different length, as fast as the account lets them; each takes its own time on one CPU.
    for step in 0..1_000_u64 {
        budget.credit().await;
        let cpu = 1 + step * 7 % 23;
        advance(ms(cpu)).await;
        used.fetch_add(cpu, Ordering::Relaxed);
    }
    let rate = f64::from(u32::try_from(used.load(Ordering::Relaxed)).unwrap()) / 1e3 / began.elapsed().as_secs_f64();
    assert!((0.24..0.26).contains(&rate), "{rate}");
}

#[tokio::test(start_paused = true)]
async fn idle_time_is_not_saved_up() {
    let (budget, used) = account(Some(0.5));
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(budget.overdrawn(), None);
    used.store(1_000, Ordering::Relaxed);
    // A tenth of a second at half a CPU is all there was.
    assert_eq!(budget.overdrawn(), Some(ms(1_900)));
}

#[tokio::test(start_paused = true)]
async fn a_higher_rate_lets_the_parked_go_on_and_no_rate_at_once() {
    let (budget, used) = account(Some(0.01));
    used.store(1_000, Ordering::Relaxed);
    assert_eq!(budget.overdrawn(), Some(Duration::from_secs(100)));
    let began = Instant::now();
    let mut parked = pin!(budget.park());
    assert!((&mut parked).now_or_never().is_none());
    budget.set_rate(Some(1.0));
    assert!((&mut parked).now_or_never().is_none());
    parked.await;
    assert!(
        began.elapsed() <= Duration::from_secs(1) + ms(5),
        "{:?}",
        began.elapsed()
    );

    used.fetch_add(1_000, Ordering::Relaxed);
    let mut parked = pin!(budget.park());
    assert!((&mut parked).now_or_never().is_none());
    budget.set_rate(None);
    assert!((&mut parked).now_or_never().is_some());
    assert_eq!(budget.usage().rate, None);
}

#[tokio::test(start_paused = true)]
async fn being_parked_is_counted_also_when_whoever_waits_gives_up() {
    let (budget, used) = account(Some(0.5));
    used.store(1_000, Ordering::Relaxed);
    let waited = tokio::time::timeout(ms(300), budget.park()).await;
    assert!(waited.is_err());
    let usage = budget.usage();
    assert_eq!((usage.parked, usage.parked_time), (0, ms(300)));
}

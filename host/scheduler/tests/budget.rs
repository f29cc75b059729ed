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
    time::{Duration, Instant},
};

/// Time and CPU time in the test's hand, in milliseconds.
#[derive(Default)]
struct Hands {
    passed: AtomicU64,
    used: AtomicU64,
}

impl Hands {
    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.passed.fetch_add(ms, Ordering::Relaxed);
    }

    /// The pool's threads compute.
    fn use_cpu(&self, ms: u64) {
        self.used.fetch_add(ms, Ordering::Relaxed);
    }
}

fn account(rate: Option<f64>) -> (Budget, Arc<Hands>) {
    let hands = Arc::new(Hands::default());
    let (clock, meter) = (Arc::clone(&hands), Arc::clone(&hands));
    let zero = Instant::now();
    let budget = Budget::new(
        Pool::Batched,
        rate,
        Box::new(move || zero + Duration::from_millis(clock.passed.load(Ordering::Relaxed))),
        Box::new(move || Duration::from_millis(meter.used.load(Ordering::Relaxed))),
    );
    (budget, hands)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test]
async fn an_overdrawn_account_parks_until_the_debt_is_paid() {
    let (budget, hands) = account(Some(0.5));
    assert_eq!(budget.overdrawn(), None);
    hands.use_cpu(40);
    assert_eq!(budget.overdrawn(), Some(ms(80)));
    let mut parked = pin!(budget.park());
    assert!((&mut parked).now_or_never().is_none());
    assert_eq!(budget.usage().parked, 1);
    hands.pass(ms(79));
    assert!(budget.overdrawn().is_some());
    assert!((&mut parked).now_or_never().is_none());
    // One more than the debt: sums of fractions are not exact.
    hands.pass(ms(2));
    parked.await;
    assert_eq!(budget.overdrawn(), None);
    let usage = budget.usage();
    assert_eq!((usage.parked, usage.cpu, usage.parked_time), (0, ms(40), ms(81)));
}

#[test]
fn native_work_counts_like_the_threads_own() {
    let (budget, hands) = account(Some(0.5));
    hands.use_cpu(10);
    budget.charge(ms(30));
    assert_eq!(budget.overdrawn(), Some(ms(80)));
    assert_eq!((budget.usage().cpu, budget.usage().native), (ms(40), ms(30)));
}

#[test]
fn the_average_is_the_rate_however_the_work_comes() {
    let (budget, hands) = account(Some(0.25));
    // Steps of different length, as fast as the account lets them; each takes its own time on one CPU.
    for step in 0..1_000_u64 {
        while let Some(wait) = budget.overdrawn() {
            hands.pass(wait.max(ms(1)));
        }
        let cpu = 1 + step * 7 % 23;
        hands.pass(ms(cpu));
        hands.use_cpu(cpu);
    }
    let [used, passed] = [&hands.used, &hands.passed].map(|count| count.load(Ordering::Relaxed));
    assert!((240..260).contains(&(used * 1_000 / passed)), "{used} of {passed}");
}

#[test]
fn idle_time_is_not_saved_up() {
    let (budget, hands) = account(Some(0.5));
    hands.pass(Duration::from_secs(3_600));
    assert_eq!(budget.overdrawn(), None);
    hands.use_cpu(1_000);
    // A tenth of a second at half a CPU is all there was.
    assert_eq!(budget.overdrawn(), Some(ms(1_900)));
}

#[tokio::test]
async fn a_higher_rate_lets_the_parked_go_on_and_no_rate_at_once() {
    let (budget, hands) = account(Some(0.01));
    hands.use_cpu(1_000);
    assert_eq!(budget.overdrawn(), Some(Duration::from_secs(100)));
    let mut parked = pin!(budget.park());
    assert!((&mut parked).now_or_never().is_none());
    budget.set_rate(Some(100.0));
    assert!((&mut parked).now_or_never().is_none());
    assert_eq!(budget.overdrawn(), Some(ms(10)));
    hands.pass(ms(11));
    parked.await;

    hands.use_cpu(3_600_000);
    let mut parked = pin!(budget.park());
    assert!((&mut parked).now_or_never().is_none());
    budget.set_rate(None);
    assert!((&mut parked).now_or_never().is_some());
    assert_eq!((budget.usage().rate, budget.overdrawn()), (None, None));
}

#[test]
fn a_rate_holds_from_when_it_is_set() {
    let (budget, hands) = account(None);
    hands.use_cpu(3_600_000);
    budget.set_rate(Some(0.5));
    assert_eq!(budget.overdrawn(), None);
    hands.use_cpu(10);
    assert_eq!(budget.overdrawn(), Some(ms(20)));
}

#[tokio::test]
async fn being_parked_is_counted_also_when_whoever_waits_gives_up() {
    let (budget, hands) = account(Some(0.5));
    hands.use_cpu(1_000);
    {
        let mut parked = pin!(budget.park());
        assert!((&mut parked).now_or_never().is_none());
        hands.pass(ms(300));
    }
    let usage = budget.usage();
    assert_eq!((usage.parked, usage.parked_time), (0, ms(300)));
}

/// However often others come back for more: without a line whoever happens to look first has it.
#[tokio::test]
async fn credit_goes_to_whoever_has_waited_longest() {
    let (budget, hands) = account(Some(0.5));
    let mut parked: Vec<_> = Vec::new();
    let mut turns = Vec::new();
    hands.use_cpu(10);
    for name in 0..4 {
        parked.push((name, Box::pin(budget.park())));
        assert!(parked[name].1.as_mut().now_or_never().is_none());
    }
    for _ in 0..12 {
        hands.pass(ms(21));
        // The others look before the one whose turn it is.
        for (_, waits) in parked.iter_mut().skip(1).rev() {
            assert!(waits.as_mut().now_or_never().is_none());
        }
        let (name, mut first) = parked.remove(0);
        first.as_mut().await;
        turns.push(name);
        hands.use_cpu(10);
        parked.push((name, Box::pin(budget.park())));
        assert!(parked[3].1.as_mut().now_or_never().is_none());
    }
    assert_eq!(turns, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);

    // One that gives up does not hold up the others.
    drop(parked.remove(0));
    hands.pass(ms(21));
    parked.remove(0).1.await;
}

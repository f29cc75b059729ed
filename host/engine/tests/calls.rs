//! How calls end that end well. The others are in `tests/hostile`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use formwork_engine::{CallContext, CallError, CpuBudget, Limit};
use formwork_guests::OK;
use serde_json::json;
use support::{engine, file, install, outcome, validator, work};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn an_answer_is_an_answer() {
    let report = outcome(&validator("", OK, OK), &json!({})).await;
    assert_eq!(report.result.unwrap().json, json!({ "valid": true, "findings": [] }));
    assert!(report.usage.memory_bytes >= 65_536);
}

/// An account that is overdrawn at every look; the test pays.
#[derive(Debug, Default)]
struct Overdrawn {
    parked: Notify,
    paid: Arc<Notify>,
    looks: AtomicU64,
}

impl CpuBudget for Overdrawn {
    fn charge(&self, _used: Duration) {}

    fn overdrawn(&self) -> Option<Duration> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Some(Duration::from_millis(1))
    }

    fn park(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.parked.notify_one();
        let paid = Arc::clone(&self.paid);
        Box::pin(async move { paid.notified().await })
    }

    fn stood_still(&self, _time: Duration) {}
}

#[tokio::test]
async fn a_guest_without_credit_is_parked_at_every_epoch_goes_on_when_paid_and_can_be_cancelled() {
    let engine = engine();
    let spin = validator("", OK, "(loop $again (br $again)) (unreachable)");
    let limits = json!({ "limits": { "cpu_ms": 30_000, "wall_ms": 60_000 } });
    let plugin = install(&engine, file(&spin, &limits)).await.unwrap();
    let account = Arc::new(Overdrawn::default());
    let context = CallContext {
        budget: Some(Arc::clone(&account) as Arc<dyn CpuBudget>),
        ..CallContext::default()
    };
    let cancel = context.cancel.clone();
    let (report, ()) = tokio::join!(work(&plugin, context), async {
        for _ in 0..3 {
            account.parked.notified().await;
            // Whatever else runs here meanwhile, the guest does not look again: it is not polled.
            let looks = account.looks.load(Ordering::Relaxed);
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(account.looks.load(Ordering::Relaxed), looks);
            account.paid.notify_one();
        }
        account.parked.notified().await;
        cancel.cancel();
    });
    assert_eq!(report.result.unwrap_err(), CallError::Cancelled);
    // Being parked is not CPU time: four epochs are what it ran, on a busy machine more.
    assert!(report.usage.cpu < report.usage.wall, "{:?}", report.usage);
}

/// How long a guest waits for its turn is its pool's affair: a plugin that may take `wall_ms` may take it on a busy pool
/// as well. What it takes itself still counts.
#[tokio::test]
async fn being_parked_does_not_use_up_wall_time() {
    const WALL: Duration = Duration::from_millis(200);
    let engine = engine();
    let spin = validator("", OK, "(loop $again (br $again)) (unreachable)");
    let limits = json!({ "limits": { "cpu_ms": 30_000, "wall_ms": WALL.as_millis() } });
    let plugin = install(&engine, file(&spin, &limits)).await.unwrap();
    let account = Arc::new(Overdrawn::default());
    let context = CallContext {
        budget: Some(Arc::clone(&account) as Arc<dyn CpuBudget>),
        ..CallContext::default()
    };
    let pay = async {
        account.parked.notified().await;
        tokio::time::sleep(3 * WALL).await;
        loop {
            account.paid.notify_one();
            account.parked.notified().await;
        }
    };
    let report = tokio::select! {
        report = work(&plugin, context) => report,
        () = pay => unreachable!(),
    };
    let CallError::Limit(exceeded) = report.result.unwrap_err() else {
        panic!("a limit ends it");
    };
    assert_eq!((exceeded.limit, exceeded.value), (Limit::WallMs, 200));
    // It computed for that long, after it had been parked for three times as long.
    assert!(report.usage.wall > 4 * WALL, "{:?}", report.usage);
    assert!(account.looks.load(Ordering::Relaxed) > 5);
}

/// On one thread, so that who ran between the cancel and its end is known.
#[tokio::test(flavor = "current_thread")]
async fn a_cancelled_guest_stops_before_the_others_have_another_turn() {
    const GUESTS: usize = 8;
    let engine = engine();
    let spin = validator("", OK, "(loop $again (br $again)) (unreachable)");
    let limits = json!({ "limits": { "cpu_ms": 30_000, "wall_ms": 60_000 } });
    let plugin = install(&engine, file(&spin, &limits)).await.unwrap();
    let turns = || {
        let families = prometheus::gather();
        let yields = families
            .iter()
            .find(|family| family.name() == "formwork_epoch_yields_total");
        let mine = yields.into_iter().flat_map(|family| family.get_metric());
        let mine = mine.filter(|metric| metric.get_label().iter().any(|label| label.value() == "turns"));
        mine.map(|metric| metric.get_counter().get_value()).sum::<f64>()
    };
    let local = tokio::task::LocalSet::new();
    let work_of = |cancel: CancellationToken| {
        let plugin = Arc::clone(&plugin);
        local.spawn_local(async move {
            let context = CallContext {
                cancel,
                owner: "turns".to_owned(),
                ..CallContext::default()
            };
            let report = work(&plugin, context).await;
            (report.result.unwrap_err(), turns())
        })
    };
    let tokens: Vec<CancellationToken> = (0..GUESTS).map(|_| CancellationToken::new()).collect();
    let guests: Vec<_> = tokens.iter().cloned().map(work_of).collect();
    local
        .run_until(async {
            // Every guest has begun.
            while turns() < 3.0 * GUESTS as f64 {
                tokio::task::yield_now().await;
            }
            for (token, guest) in tokens.iter().zip(guests) {
                let before = turns();
                token.cancel();
                assert_eq!(
                    guest.await.unwrap(),
                    (CallError::Cancelled, before),
                    "and turns of others"
                );
            }
        })
        .await;
}

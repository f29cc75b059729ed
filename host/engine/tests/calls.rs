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

use formwork_engine::{CallContext, CallError, CpuBudget};
use formwork_guests::OK;
use serde_json::json;
use support::{engine, file, install, outcome, validator, work};
use tokio::sync::Notify;

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

//! Native work is charged to the caller, and waits while the caller has no credit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use formwork_inference::{CallContext, CpuBudget, Error, Inference};
use support::{ask, encoder, generator, options};
use tokio::sync::Notify;

/// Credit in the test's hand.
#[derive(Debug, Default)]
struct Account {
    charged_ns: AtomicU64,
    overdrawn: AtomicBool,
    waits: Notify,
}

impl Account {
    fn call(self: &Arc<Self>) -> CallContext {
        CallContext {
            budget: Some(Arc::clone(self) as Arc<dyn CpuBudget>),
            ..support::call()
        }
    }

    fn charged(&self) -> Duration {
        Duration::from_nanos(self.charged_ns.load(Ordering::Relaxed))
    }

    fn pay(&self) {
        self.overdrawn.store(false, Ordering::Release);
    }
}

impl CpuBudget for Account {
    fn charge(&self, used: Duration) {
        let ns = u64::try_from(used.as_nanos()).unwrap();
        self.charged_ns.fetch_add(ns, Ordering::Relaxed);
    }

    fn overdrawn(&self) -> Option<Duration> {
        self.overdrawn
            .load(Ordering::Acquire)
            .then_some(Duration::from_millis(1))
    }

    fn park(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.waits.notify_one();
        Box::pin(std::future::pending())
    }

    fn stood_still(&self, _time: Duration) {
        self.waits.notify_one();
    }
}

#[tokio::test]
async fn a_generation_waits_between_tokens_and_goes_on_with_credit() {
    let inference = Inference::start(options(), vec![generator("smol")]).unwrap();
    let account = Arc::new(Account::default());
    let request = ask("Count from one to a hundred in words.", 24);
    let mut completion = inference
        .generate("smol", request.clone(), &account.call())
        .await
        .unwrap();
    completion.next().await.unwrap().unwrap();
    account.overdrawn.store(true, Ordering::Release);
    account.waits.notified().await;
    account.waits.notified().await;
    let charged = account.charged();
    assert!(charged > Duration::ZERO);
    account.waits.notified().await;
    assert_eq!(account.charged(), charged, "it went on without credit");
    account.pay();
    completion.text().await.unwrap();
    assert!(account.charged() > charged);

    // Stopped while it waits: the model is free for the next caller.
    account.overdrawn.store(true, Ordering::Release);
    let call = account.call();
    let cancel = call.cancel.clone();
    let (refused, ()) = tokio::join!(inference.generate("smol", request.clone(), &call), async {
        account.waits.notified().await;
        cancel.cancel();
    });
    assert!(matches!(refused, Err(Error::Cancelled)));
    let mut other = inference.generate("smol", request, &support::call()).await.unwrap();
    other.text().await.unwrap();
}

#[tokio::test]
async fn embeddings_are_charged_and_not_begun_without_credit() {
    let inference = Inference::start(options(), vec![encoder("mini")]).unwrap();
    let account = Arc::new(Account::default());
    let texts = vec!["a parcel has not arrived".to_owned()];
    inference.embed("mini", texts, &account.call()).await.unwrap();
    assert!(account.charged() > Duration::ZERO);
    account.overdrawn.store(true, Ordering::Release);
    let call = account.call();
    let texts = vec!["another one has".to_owned()];
    let charged = account.charged();
    let (refused, ()) = tokio::join!(inference.embed("mini", texts, &call), async {
        account.waits.notified().await;
        call.cancel.cancel();
    });
    assert!(matches!(refused, Err(Error::Cancelled)));
    assert_eq!(account.charged(), charged);
}

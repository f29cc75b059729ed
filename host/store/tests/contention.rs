//! Transactions that have nothing to do with each other are never in each other's way: on MongoDB each that is costs a
//! repetition, and under load the repetitions are most of the load.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says why it failed")]

#[allow(dead_code, reason = "other tests keep one")]
mod ledger;

use formwork_store::{
    Claimed, NewForm, NewSubmission, Record, Store, SubmissionId,
    cluster::{ClusterStore, Options, Uri},
    tasks::{Millis, Pool, Step},
};
use ledger::result;
use std::sync::Arc;

/// Clients at once, and what each does.
const CLIENTS: usize = 12;
const ROUNDS: usize = 8;

/// The callers' clock. The store goes by its server's.
const CALLER: Millis = Millis(0);

/// Long enough for no lease to end.
const LEASE_MS: u64 = 60_000;

fn submission() -> NewSubmission {
    NewSubmission {
        id: SubmissionId::generate(),
        form: "form".into(),
        form_version: 1,
        data: "{}".into(),
        correlation_id: String::new(),
        idempotency: None,
        priority: None,
    }
}

/// How often transactions were run again in this process, whatever they did.
fn repetitions() -> f64 {
    let families = prometheus::gather();
    let retries = families
        .iter()
        .filter(|family| family.name() == "formwork_store_transaction_retries_total");
    let counters = retries.flat_map(|family| family.get_metric());
    counters.map(|metric| metric.get_counter().get_value()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn independent_transactions_are_not_repeated() {
    let shared = formwork_test_servers::shared();
    let mut options = Options::new(Uri::new(&shared.mongodb), Uri::new(&shared.redis));
    let name = format!("contention-{}", std::process::id());
    (options.database, options.namespace) = (name.clone(), name);
    let store = Arc::new(ClusterStore::open(options).await.expect("store opens"));
    let form = NewForm {
        id: "form".into(),
        definition: "{}".into(),
        digest: "sha256:00".into(),
        steps: vec![Step::new("only").in_pool(Pool::High)],
    };
    store.put_form(form, CALLER).await.expect("form is published");
    // One for each client to claim: what is acknowledged is in the index.
    for _ in 0..CLIENTS {
        store.submit(submission(), CALLER).await.expect("is recorded");
    }

    let before = repetitions();
    let clients = (0..CLIENTS).map(|client| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let name = format!("client-{client}");
            for _ in 0..ROUNDS {
                let claimed: Vec<Claimed> = store
                    .claim(Pool::High, &name, 1, LEASE_MS, CALLER)
                    .await
                    .expect("claims");
                let task = claimed.first().expect("there is one for each client");
                let done = store.complete(task.id, task.run_lease, result(task), CALLER).await;
                assert_eq!(done.expect("is recorded"), Record::Recorded);
                store.submit(submission(), CALLER).await.expect("is recorded");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("the client ends");
    }
    assert_eq!(repetitions() - before, 0.0, "transactions were run again");
    store.close().await;
}

//! Nodes that work, and clients that submit, while a test harms the servers.

use formwork_store::{
    Beat, Idempotency, NewForm, NewSubmission, Store, StoreEvent, SubmissionId,
    cluster::{ClusterStore, Options, Uri},
    tasks::{Millis, Step},
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

use crate::ledger::{FORM, Ledger, POOLS, STEPS, result};

/// A lease that ends soon, so that what a lost claim held is soon another's.
const LEASE_MS: u64 = 3_000;

/// Vanished workers never make a task dead here: they are not the tasks' fault.
const MAX_CRASHES: u32 = 1_000_000;

/// How long a worker that found nothing waits for an event before it looks again.
const LOOK: Duration = Duration::from_millis(50);

/// How long a client rests after an acknowledgement: what it submits must be worked off and checked.
const REST: Duration = Duration::from_millis(25);

/// How long to wait after an error before trying again.
const AGAIN: Duration = Duration::from_millis(10);

/// Longest wait for anything; only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(90);

/// The callers' clock. The store goes by its server's.
pub(crate) const CALLER: Millis = Millis(0);

/// Two servers, nodes, clients, and the ledger of what they saw.
pub(crate) struct World {
    mongodb: String,
    redis: String,
    name: String,
    pub(crate) ledger: Arc<Ledger>,
    stop_clients: Arc<AtomicBool>,
    stop_workers: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl World {
    pub(crate) fn new(mongodb: &str, redis: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("fault-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            mongodb: mongodb.to_owned(),
            redis: redis.to_owned(),
            name,
            ledger: Arc::default(),
            stop_clients: Arc::default(),
            stop_workers: Arc::default(),
            clients: Vec::new(),
            workers: Vec::new(),
        }
    }

    /// A node: a store of its own on the shared servers.
    pub(crate) async fn node(&self) -> Arc<ClusterStore> {
        Arc::new(ClusterStore::open(self.options()).await.expect("store opens"))
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(Uri::new(&self.mongodb), Uri::new(&self.redis));
        options.database = self.name.clone();
        options.namespace = self.name.clone();
        options
    }

    pub(crate) async fn publish(&self, store: &dyn Store) {
        let steps = STEPS
            .iter()
            .zip(POOLS)
            .map(|(&step, pool)| Step::new(step).in_pool(pool));
        let form = NewForm {
            id: FORM.into(),
            definition: "{}".into(),
            digest: "sha256:00".into(),
            steps: steps.collect(),
        };
        store.put_form(form, CALLER).await.expect("form is published");
    }

    /// Starts a client that submits until it is stopped; it repeats each request until it is answered.
    pub(crate) fn client(&mut self, store: &Arc<ClusterStore>) {
        let (store, ledger, stop) = (
            Arc::clone(store),
            Arc::clone(&self.ledger),
            Arc::clone(&self.stop_clients),
        );
        self.clients.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                submit(&*store, &ledger).await;
                tokio::time::sleep(REST).await;
            }
        }));
    }

    /// Starts the workers of a node: one for each pool, which also take back what others lost.
    pub(crate) fn work(&mut self, store: &Arc<ClusterStore>, name: &str) {
        for pool in POOLS {
            let (store, ledger, stop) = (
                Arc::clone(store),
                Arc::clone(&self.ledger),
                Arc::clone(&self.stop_workers),
            );
            let name = format!("{name}-{pool}");
            let mut events = store.subscribe();
            self.workers.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let Ok(tasks) = store.claim(pool, &name, 16, LEASE_MS, CALLER).await else {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    };
                    if tasks.is_empty() {
                        let _ = store.reap(CALLER, MAX_CRASHES).await;
                        let news = events.recv();
                        let _: Result<Result<StoreEvent, _>, _> = tokio::time::timeout(LOOK, news).await;
                        continue;
                    }
                    for task in &tasks {
                        ledger.claimed(task, &name);
                    }
                    let beats: Vec<Beat> = tasks.iter().map(|task| Beat::new(task.id, task.run_lease)).collect();
                    let _ = store.heartbeat(&beats, LEASE_MS, CALLER).await;
                    futures::future::join_all(tasks.iter().map(|task| complete(&*store, &ledger, task))).await;
                }
            }));
        }
    }

    /// Stops the clients, waits until all work is done, stops the workers, and compares the ledger with the store.
    pub(crate) async fn end(mut self, store: &dyn Store) {
        self.stop_clients.store(true, Ordering::SeqCst);
        for client in self.clients.drain(..) {
            client.await.expect("the client ends");
        }
        until("all work is done", async || self.ledger.all_done(store).await).await;
        self.stop_workers.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.await.expect("the worker ends");
        }
        self.ledger.check(store).await;
    }

    /// Waits until so many more submissions are acknowledged and results recorded.
    pub(crate) async fn progress(&self, count: usize) {
        let (acknowledged, results) = (self.ledger.len() + count, self.ledger.results() + count);
        until("work goes on", async || {
            self.ledger.len() >= acknowledged && self.ledger.results() >= results
        })
        .await;
    }

    /// The key in Redis that is there exactly while the index of the first pool is whole.
    pub(crate) fn epoch(&self) -> String {
        format!("{{fw:{}:{}}}:v1:epoch", self.name, POOLS[0])
    }
}

/// Submits one document, again and again until the store says what became of it.
pub(crate) async fn submit(store: &dyn Store, ledger: &Ledger) {
    let id = SubmissionId::generate();
    let new = NewSubmission {
        id,
        form: FORM.into(),
        form_version: 1,
        data: "{}".into(),
        correlation_id: String::new(),
        idempotency: Some(Idempotency {
            key: id.to_string(),
            fingerprint: String::new(),
        }),
        priority: None,
    };
    while store.submit(new.clone(), CALLER).await.is_err() {
        tokio::time::sleep(AGAIN).await;
    }
    ledger.acknowledged(id);
}

async fn complete(store: &dyn Store, ledger: &Ledger, task: &formwork_store::Claimed) {
    let result = result(task);
    let (id, lease) = (task.id, task.run_lease);
    loop {
        match store.complete(id, lease, result.clone(), CALLER).await {
            Ok(record) => return ledger.told(task, record),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Looks until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "never: {what}");
}

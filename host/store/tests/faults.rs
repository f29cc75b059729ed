//! A worker, a client and an operator over a store whose calls fail, come late or arrive twice, at random: at the end
//! nothing is lost, nothing is there twice, and nothing is left.
//!
//! All of them take turns in one task and time is a number, so that over SQLite a seed says all that happens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

#[allow(dead_code, reason = "the suite repeats calls, this test hears of errors")]
mod faulty;
#[allow(dead_code, reason = "other tests wait for so many lines of it")]
mod ledger;

use faulty::{Caller, Fault, FaultyStore};
use formwork_store::{
    Beat, Claimed, Error, Failure, Idempotency, NewForm, NewSubmission, Record, Store, SubmissionId, Submit,
    cluster::{self, ClusterStore},
    sqlite::{self, SqliteStore},
    tasks::{Disposition, Millis, Step},
};
use ledger::{FORM, Ledger, POOLS, STEPS, result};
use std::sync::atomic::{AtomicU64, Ordering};

const START: Millis = Millis(1_700_000_000_000);
const LEASE_MS: u64 = 30_000;

/// Vanished workers never make a task dead here: lost answers are not the tasks' fault.
const MAX_CRASHES: u32 = 1_000_000;

/// How often a request is repeated at most; the plan injects far fewer errors in a row.
const REPEATS: u32 = 1_000;

struct Drive<'a, S> {
    store: &'a FaultyStore<S>,
    ledger: Ledger,
    now: Millis,
    dice: u64,
}

impl<S: Store> Drive<'_, S> {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    /// A client that repeats its request under one key until it is answered.
    async fn submit(&mut self) {
        let id = SubmissionId::generate();
        let new = NewSubmission {
            id,
            form: FORM.into(),
            form_version: 1,
            data: "{}".into(),
            correlation_id: String::new(),
            // Half of them go by the submission's id alone.
            idempotency: (self.roll(2) == 0).then(|| Idempotency {
                key: id.to_string(),
                fingerprint: String::new(),
            }),
            priority: None,
        };
        for _ in 0..REPEATS {
            match self.store.submit(new.clone(), self.now).await {
                Ok(Submit::Created) => return self.ledger.acknowledged(id),
                Ok(Submit::Replayed { id: first }) => {
                    assert_eq!(first, id);
                    return self.ledger.acknowledged(id);
                }
                // It was recorded when the answer was lost.
                Err(Error::DuplicateSubmission(first)) => {
                    assert_eq!(first, id);
                    return self.ledger.acknowledged(id);
                }
                Err(Error::Unavailable { .. } | Error::Backend { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("never answered");
    }

    /// A worker that takes some tasks, and ends them in one way or another.
    async fn work(&mut self) {
        let (pool, limit) = (POOLS[self.roll(2) as usize], 1 + self.roll(4) as u32);
        // A lost answer is a lost claim: its tasks come back when their lease ends.
        let Ok(tasks) = self.store.claim(pool, "worker", limit, LEASE_MS, self.now).await else {
            return;
        };
        for task in tasks {
            self.ledger.claimed(&task, "worker");
            if self.roll(4) == 0 {
                let beats = [Beat::new(task.id, task.run_lease)];
                if let Ok(reply) = self.store.heartbeat(&beats, LEASE_MS, self.now).await {
                    assert!(reply.lost.is_empty(), "{} is ours", task.id);
                }
            }
            self.end(&task).await;
        }
    }

    async fn end(&mut self, task: &Claimed) {
        let (id, lease, now) = (task.id, task.run_lease, self.now);
        let way = self.roll(10);
        for _ in 0..REPEATS {
            let answer = match way {
                // It vanishes.
                0 => return,
                1 => self.store.release(id, lease, now).await,
                2 => {
                    let failure = Failure {
                        code: "passing".into(),
                        message: String::new(),
                        disposition: Disposition::RetryAt(now.plus(LEASE_MS / 2)),
                        provenance: None,
                        cpu_ms: None,
                    };
                    self.store.fail(id, lease, failure, now).await
                }
                _ => self.store.complete(id, lease, result(task), now).await,
            };
            match answer {
                Ok(record) if way > 2 => return self.ledger.told(task, record),
                // Stale: the answer before this one was lost.
                Ok(Record::Recorded | Record::Stale) => return,
                Err(Error::Unavailable { .. } | Error::Backend { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("never answered");
    }

    async fn run(&mut self) {
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
        while self.store.put_form(form.clone(), self.now).await.is_err() {}
        assert_eq!(self.store.inner().form_versions(FORM).await.unwrap().len(), 1);
        for _ in 0..60 {
            match self.roll(4) {
                0 => self.submit().await,
                1 => self.now = self.now.plus(LEASE_MS / 3),
                2 => drop(self.store.reap(self.now, MAX_CRASHES).await),
                _ => self.work().await,
            }
        }
        while !self.ledger.all_done(self.store).await {
            self.work().await;
            self.now = self.now.plus(LEASE_MS / 3);
            let _ = self.store.reap(self.now, MAX_CRASHES).await;
        }
        self.ledger.check(self.store.inner()).await;
    }
}

/// Drives a store and says which faults it met.
async fn drive<S: Store>(store: S, seed: u64, met: &mut Vec<(&'static str, Fault)>) {
    println!("seed {seed}");
    let store = FaultyStore::new(store, Caller::Hears, seed);
    let mut drive = Drive {
        store: &store,
        ledger: Ledger::default(),
        now: START,
        dice: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
    };
    drive.run().await;
    met.extend(store.injected().into_keys());
    store.close().await;
}

/// A test that met no fault would prove nothing.
fn every_kind_was_met(met: &[(&'static str, Fault)]) {
    for method in ["submit", "claim", "heartbeat", "complete", "fail", "release", "reap"] {
        for fault in [Fault::ErrorBefore, Fault::ErrorAfter, Fault::Delay] {
            assert!(met.contains(&(method, fault)), "{method} never met {fault:?}");
        }
    }
    for method in ["submit", "heartbeat", "complete", "fail", "release"] {
        assert!(met.contains(&(method, Fault::Duplicate)), "{method} never came twice");
    }
}

#[tokio::test]
async fn random_faults_over_sqlite_lose_and_double_nothing() {
    let mut met = Vec::new();
    for seed in 1..=40 {
        let folder = tempfile::tempdir().unwrap();
        let options = sqlite::Options {
            durability: sqlite::Durability::Interval { ms: 1 },
            ..sqlite::Options::new(folder.path().join("store.db"))
        };
        drive(SqliteStore::open(&options).unwrap(), seed, &mut met).await;
    }
    every_kind_was_met(&met);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_over_mongodb_and_redis_lose_and_double_nothing() {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let servers = formwork_test_servers::shared();
    let mut met = Vec::new();
    for seed in 1..=6 {
        let name = format!("faulty-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut options = cluster::Options::new(
            cluster::Uri::new(servers.mongodb.clone()),
            cluster::Uri::new(servers.redis.clone()),
        );
        options.database = name.clone();
        options.namespace = name;
        options.time = cluster::TimeSource::Caller;
        drive(ClusterStore::open(options).await.unwrap(), seed, &mut met).await;
    }
    every_kind_was_met(&met);
}

//! What a claim costs when a million tasks wait, against a thousand.
//!
//! `cargo run --release -p formwork-store --example claim_cost -- sqlite [WAITING] [FOLDER]` for the embedded store, with its
//! file in a folder of FOLDER; `… claim_cost -- cluster [WAITING]` for MongoDB and Redis, on servers of its own as the tests
//! start them. Two stores are filled; rounds on one and the other take turns, so that both meet the same machine. A round
//! claims, completes and replaces what it claimed, so that as many wait as before; only the claims are timed.
//!
//! The embedded store is opened in class `interval`: behind an fsync of some milliseconds everything would look equal.

use formwork_store::{
    NewForm, NewSubmission, PluginRef, Provenance, Store, SubmissionId, TaskResult,
    cluster::{self, ClusterStore},
    sqlite::{Durability, Options, SqliteStore},
    tasks::{Millis, Pool, Step, Verdict},
};
use formwork_test_servers::Server;
use std::{
    env,
    error::Error,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Tasks that wait in the store that is compared with.
const FEW: u64 = 1_000;

/// Tasks a claim asks for.
const BATCH: u32 = 8;

const ROUNDS: usize = 40;
const CLAIMS_A_ROUND: usize = 20;

/// Submissions recorded in one call while a store is filled.
const BULK: u64 = 1_000;

const LEASE_MS: u64 = 600_000;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let mut arguments = env::args().skip(1);
    let backend = arguments.next().ok_or("sqlite or cluster?")?;
    let many: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    match backend.as_str() {
        "sqlite" => {
            let folder = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
            let folder = tempfile::tempdir_in(folder)?;
            let open = |name: &str| {
                SqliteStore::open(&Options {
                    durability: Durability::Interval { ms: 1_000 },
                    ..Options::new(folder.path().join(name))
                })
            };
            compare(&open("few.db")?, &open("many.db")?, many).await
        }
        "cluster" => {
            let (mongodb, redis) = (Server::mongodb(), Server::redis(&[]));
            let open = async |name: &str| {
                let mut options =
                    cluster::Options::new(cluster::Uri::new(mongodb.uri()), cluster::Uri::new(redis.uri()));
                options.database = name.to_owned();
                options.namespace = name.to_owned();
                ClusterStore::open(options).await
            };
            compare(&open("few").await?, &open("many").await?, many).await
        }
        other => Err(format!("{other}: sqlite or cluster?").into()),
    }
}

async fn compare(few: &dyn Store, many: &dyn Store, waiting: u64) -> Result<(), Failed> {
    for (store, count) in [(few, FEW), (many, waiting)] {
        let began = Instant::now();
        fill(store, count).await?;
        println!("{count} wait, recorded in {:.1} s", began.elapsed().as_secs_f64());
    }
    let (mut of_few, mut of_many) = (Vec::new(), Vec::new());
    // The first round of each only warms up.
    for round in 0..=ROUNDS {
        for (store, times) in [(few, &mut of_few), (many, &mut of_many)] {
            let taken = claims(store).await?;
            if round > 0 {
                times.extend(taken);
            }
        }
    }
    for (count, times) in [(FEW, &mut of_few), (waiting, &mut of_many)] {
        times.sort_unstable();
        println!(
            "{count} wait: a claim of {BATCH} takes p50 {:.3} ms, mean {:.3} ms, p95 {:.3} ms ({} claims)",
            millis(at(times, 50)),
            millis(mean(times)),
            millis(at(times, 95)),
            times.len()
        );
    }
    let ratio = |of: fn(&[Duration]) -> Duration| of(&of_many).as_secs_f64() / of(&of_few).as_secs_f64();
    println!(
        "times: p50 {:.2}, mean {:.2}",
        ratio(|times| at(times, 50)),
        ratio(mean)
    );
    few.close().await;
    many.close().await;
    Ok(())
}

fn at(sorted: &[Duration], part: usize) -> Duration {
    sorted.get(sorted.len() * part / 100).copied().unwrap_or_default()
}

fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap_or(u32::MAX).max(1)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn fill(store: &dyn Store, count: u64) -> Result<(), Failed> {
    let form = NewForm {
        id: "bench".into(),
        definition: "{}".into(),
        digest: "sha256:0".into(),
        steps: vec![Step::new("only")],
    };
    store.put_form(form, now()?).await?;
    for first in (0..count).step_by(BULK as usize) {
        let at = now()?;
        let bulk = (first..count.min(first + BULK)).map(|_| submission());
        store.submit_many(bulk.collect(), at).await?;
    }
    Ok(())
}

fn submission() -> NewSubmission {
    NewSubmission {
        id: SubmissionId::generate(),
        form: "bench".into(),
        form_version: 1,
        data: format!(r#"{{"message":"{}"}}"#, "x".repeat(200)),
        correlation_id: "bench".into(),
        idempotency: None,
        priority: None,
    }
}

/// One round; how long each claim took.
async fn claims(store: &dyn Store) -> Result<Vec<Duration>, Failed> {
    let mut times = Vec::with_capacity(CLAIMS_A_ROUND);
    for _ in 0..CLAIMS_A_ROUND {
        let asked = Instant::now();
        let tasks = store.claim(Pool::Default, "bench", BATCH, LEASE_MS, now()?).await?;
        times.push(asked.elapsed());
        if tasks.len() != BATCH as usize {
            return Err(format!("{} tasks instead of {BATCH}", tasks.len()).into());
        }
        let at = now()?;
        for task in &tasks {
            store.complete(task.id, task.run_lease, result(), at).await?;
        }
        store
            .submit_many(tasks.iter().map(|_| submission()).collect(), at)
            .await?;
    }
    Ok(times)
}

fn result() -> TaskResult {
    TaskResult {
        output: "{}".into(),
        verdict: Verdict::Accepted,
        provenance: Provenance {
            plugin: PluginRef {
                name: "none".into(),
                version: "1.0.0".into(),
                digest: format!("sha256:{}", "0".repeat(64)),
            },
            models: Vec::new(),
        },
        cpu_ms: 0.0,
        export: None,
    }
}

fn now() -> Result<Millis, Failed> {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Millis(i64::try_from(passed.as_millis())?))
}

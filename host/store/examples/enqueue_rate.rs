//! How many submissions a second the embedded store acknowledges after an fsync, and how many claimed tasks
//! it completes.
//!
//! `cargo run --release -p formwork-store --example enqueue_rate -- [SECONDS] [FOLDER] [BACKLOG]`; the folder
//! should be on the disk to be measured; BACKLOG tasks are waiting before anything is measured. Closed loop: each client sends its next request when it has its answer.

use formwork_store::{
    NewForm, NewSubmission, PluginRef, Provenance, Store, SubmissionId, TaskResult,
    sqlite::{Durability, Options, SqliteStore},
    tasks::{Millis, Pool, Step, Verdict},
};
use std::{
    env,
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use ulid::Ulid;

const CLIENTS: u64 = 32;
const CLAIM_BATCH: u32 = 8;
const LEASE_MS: u64 = 60_000;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let mut arguments = env::args().skip(1);
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let folder = arguments.next().map_or_else(env::temp_dir, PathBuf::from);
    let backlog: u64 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let limit = Duration::from_secs(seconds);
    println!(
        "{CLIENTS} clients, {seconds} s each, {backlog} waiting before, {} cpus, in {}",
        std::thread::available_parallelism()?,
        folder.display()
    );
    for (name, durability) in [
        ("sync", Durability::Sync),
        ("interval", Durability::Interval { ms: 1_000 }),
    ] {
        let folder = tempfile::tempdir_in(&folder)?;
        let options = Options {
            durability,
            ..Options::new(folder.path().join("bench.db"))
        };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&options)?);
        let form = NewForm {
            id: "bench".into(),
            definition: "{}".into(),
            digest: "sha256:0".into(),
            steps: vec![Step::new("only")],
        };
        store.put_form(form, now()?).await?;
        fill(&store, backlog).await?;
        let enqueued = enqueue(&store, limit).await?;
        let completed = complete(&store, limit).await?;
        store.close().await;
        println!("class {name}\n  {enqueued}\n  {completed}");
    }
    Ok(())
}

#[derive(Default)]
struct Rate {
    what: &'static str,
    done: u64,
    seconds: f64,
    latencies_us: Vec<u64>,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = |part: usize| {
            sorted
                .get(sorted.len() * part / 100)
                .map_or(0.0, |us| *us as f64 / 1_000.0)
        };
        write!(
            formatter,
            "{}: {:.0}/s ({} in {:.1} s), p50 {:.1} ms, p99 {:.1} ms",
            self.what,
            self.done as f64 / self.seconds,
            self.done,
            self.seconds,
            at(50),
            at(99)
        )
    }
}

fn submission(at: Millis, client: u64, number: u64) -> NewSubmission {
    let random = u128::from(client) << 64 | u128::from(number);
    NewSubmission {
        id: SubmissionId(Ulid::from_parts(at.0.unsigned_abs(), random)),
        form: "bench".into(),
        form_version: 1,
        data: format!(r#"{{"message":"{}"}}"#, "x".repeat(200)),
        correlation_id: "bench".into(),
        idempotency: None,
        priority: None,
    }
}

async fn fill(store: &Arc<dyn Store>, backlog: u64) -> Result<(), Failed> {
    const BULK: u64 = 2_000;
    for first in (0..backlog).step_by(BULK as usize) {
        let at = now()?;
        let bulk = (first..backlog.min(first + BULK)).map(|number| submission(at, CLIENTS, number));
        store.submit_many(bulk.collect(), at).await?;
    }
    Ok(())
}

async fn enqueue(store: &Arc<dyn Store>, limit: Duration) -> Result<Rate, Failed> {
    let start = Instant::now();
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let store = Arc::clone(store);
        clients.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < limit {
                let at = now()?;
                let submission = submission(at, client, latencies.len() as u64);
                let asked = Instant::now();
                store.submit(submission, at).await?;
                latencies.push(asked.elapsed().as_micros() as u64);
            }
            Ok::<_, Failed>(latencies)
        }));
    }
    let mut rate = Rate {
        what: "submissions",
        ..Rate::default()
    };
    for client in clients {
        rate.latencies_us.extend(client.await??);
    }
    rate.done = rate.latencies_us.len() as u64;
    rate.seconds = start.elapsed().as_secs_f64();
    Ok(rate)
}

async fn complete(store: &Arc<dyn Store>, limit: Duration) -> Result<Rate, Failed> {
    let start = Instant::now();
    let mut workers = Vec::new();
    for worker in 0..CLIENTS {
        let store = Arc::clone(store);
        workers.push(tokio::spawn(async move {
            let name = format!("worker-{worker}");
            let mut latencies = Vec::new();
            while start.elapsed() < limit {
                let asked = Instant::now();
                let tasks = store.claim(Pool::Default, &name, CLAIM_BATCH, LEASE_MS, now()?).await?;
                if tasks.is_empty() {
                    break;
                }
                let at = now()?;
                let records = tasks
                    .iter()
                    .map(|task| store.complete(task.id, task.run_lease, no_op_result(), at));
                for record in futures::future::join_all(records).await {
                    record?;
                }
                let took = asked.elapsed().as_micros() as u64;
                latencies.extend(tasks.iter().map(|_| took));
            }
            Ok::<_, Failed>(latencies)
        }));
    }
    let mut latencies_us = Vec::new();
    for worker in workers {
        latencies_us.extend(worker.await??);
    }
    Ok(Rate {
        what: "claims and completions",
        done: latencies_us.len() as u64,
        seconds: start.elapsed().as_secs_f64(),
        latencies_us,
    })
}

fn no_op_result() -> TaskResult {
    TaskResult {
        output: r#"{"labels":[]}"#.into(),
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

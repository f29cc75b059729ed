//! Every worker of every pool runs a plugin that never ends, and the server goes on answering.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod serving;

use std::path::Path;
use std::time::{Duration, Instant};

use formwork_guests::Guest;
use reqwest::Client;
use serde_json::{Value, json};
use serving::Serving;

/// Endless loops per thread: as many as a thread of the pool with the most has under way.
const RUNS_PER_THREAD: u64 = 16;

/// How long a probe may take on a machine that is shared with others. The bar of an idle one is [`BAR`].
const PATIENCE: Duration = Duration::from_secs(1);

/// The 99th of a hundred probes, on a machine that does nothing else.
const BAR: Duration = Duration::from_millis(50);

/// Longest wait for anything; only a hanging server meets it.
const HANGING: Duration = Duration::from_secs(120);

struct Server {
    serving: Serving,
    client: Client,
}

impl Server {
    /// Starts it with the plugins of a folder and no models.
    fn start(folder: &Path) -> Self {
        let plugins = folder.display().to_string();
        let environment = [
            ("FORMWORK_PLUGINS__FOLDER", plugins.as_str()),
            ("FORMWORK_ENGINE__CACHE_FOLDER", ""),
            ("FORMWORK_MODELS", "[]"),
        ];
        Self {
            serving: Serving::start(folder, &environment),
            client: Client::new(),
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self
            .client
            .get(format!("{}{path}", self.serving.url))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    /// Publishes a form of one step.
    async fn publish(&self, form: &str, plugin: &str, pool: &str) {
        let definition = json!({ "title": form, "schema": {}, "pipeline": [
            { "name": "only", "plugin": plugin, "pool": pool } ] });
        let put = self
            .client
            .put(format!("{}/v1/forms/{form}", self.serving.url))
            .json(&definition);
        let answer = put.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    async fn submit(&self, form: &str) -> Value {
        let post = self
            .client
            .post(format!("{}/v1/forms/{form}/submissions", self.serving.url))
            .json(&json!({}));
        let answer = post.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    async fn pools(&self) -> Vec<Value> {
        self.get("/v1/pools").await["items"].as_array().unwrap().clone()
    }

    /// Waits until a pool has a running task for each of its threads, and has computed.
    async fn until_it_spins(&self, pool: &str) {
        let row = async || self.pools().await.into_iter().find(|row| row["name"] == pool).unwrap();
        let spinning = async {
            let before = row().await;
            while !spins(&before, &row().await) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HANGING, spinning)
            .await
            .expect("the pool never filled");
    }
}

/// The pool has a running task for each thread, and has computed since `before`.
fn spins(before: &Value, now: &Value) -> bool {
    now["running"].as_u64() >= now["threads"].as_u64() && now["cpu_seconds"].as_f64() > before["cpu_seconds"].as_f64()
}

fn write_plugin(folder: &Path, name: &str, cpu_ms: u64) {
    let guest = Guest::validator()
        .manifest(&json!({ "name": name }))
        .limits(&json!({ "cpu_ms": cpu_ms, "wall_ms": 300_000 }))
        .work("(loop $again (br $again)) (unreachable)");
    std::fs::write(folder.join(format!("{name}.wasm")), guest.file()).unwrap();
}

/// Starts the server and has every thread of every pool spin; the pool that gives way to all others first.
async fn besieged(folder: &Path) -> Server {
    write_plugin(folder, "spin", 30_000);
    let server = Server::start(folder);
    for pool in server.pools().await.iter().rev() {
        let name = pool["name"].as_str().unwrap();
        server.publish(name, "spin", name).await;
        for _ in 0..pool["threads"].as_u64().unwrap() * RUNS_PER_THREAD {
            server.submit(name).await;
        }
        server.until_it_spins(name).await;
    }
    server
}

/// Times of probes, sorted: at least `probes`, and until every pool has computed in the meantime.
async fn probe(server: &Server, probes: usize) -> Vec<Duration> {
    let before = server.pools().await;
    let mut times = Vec::new();
    let asking = async {
        loop {
            for _ in 0..probes {
                let began = Instant::now();
                assert_eq!(server.get("/livez").await["alive"], true);
                times.push(began.elapsed());
            }
            let now = server.pools().await;
            if before.iter().zip(&now).all(|(before, now)| spins(before, now)) {
                return;
            }
        }
    };
    tokio::time::timeout(HANGING, asking)
        .await
        .expect("a pool stopped spinning");
    times.sort();
    println!(
        "{} probes of /livez while every worker spins: p50 {:?}, p99 {:?}, worst {:?}",
        times.len(),
        percentile(&times, 50),
        percentile(&times, 99),
        times[times.len() - 1]
    );
    times
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[tokio::test]
async fn probes_are_answered_while_every_worker_spins() {
    let folder = tempfile::tempdir().unwrap();
    let server = besieged(folder.path()).await;
    let p99 = percentile(&probe(&server, 300).await, 99);
    assert!(p99 < PATIENCE, "{p99:?}");
}

#[tokio::test]
async fn an_endless_plugin_ends_its_task_with_the_limit_and_not_the_server() {
    let folder = tempfile::tempdir().unwrap();
    write_plugin(folder.path(), "brief", 50);
    let server = Server::start(folder.path());
    server.publish("brief", "brief", "high").await;
    let id = server.submit("brief").await["id"].as_str().unwrap().to_owned();
    let settled = async {
        loop {
            let wait = server
                .client
                .get(format!("{}/v1/submissions/{id}", server.serving.url))
                .header("prefer", "wait=20");
            let submission: Value = wait.send().await.unwrap().json().await.unwrap();
            if submission["status"] != "processing" {
                return submission;
            }
        }
    };
    let submission = tokio::time::timeout(HANGING, settled)
        .await
        .expect("the task never ended");
    assert_eq!(submission["status"], "failed", "{submission:#}");
    assert!(submission.to_string().contains("limit-cpu"), "{submission:#}");
}

/// The bar, on a machine that does nothing else:
/// `cargo test --release --workspace --test preemption -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures; needs a machine that does nothing else"]
async fn the_99th_probe_of_a_hundred_is_answered_within_fifty_milliseconds() {
    let folder = tempfile::tempdir().unwrap();
    let server = besieged(folder.path()).await;
    let p99 = percentile(&probe(&server, 2_000).await, 99);
    assert!(p99 < BAR, "{p99:?}");
}

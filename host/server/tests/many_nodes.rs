//! Several processes on one MongoDB and one Redis: what one knows all know, and whatever one suffers costs no task.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod serving;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use serving::Serving;
use serving::partition::Wire;

/// Longest wait for anything; only what hangs meets it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A lease that ends soon, so that what a vanished node held is soon another's.
const SHORT_LEASE_MS: &str = "2000";

/// One installation: a database and a namespace of its own.
struct Installation {
    mongodb: String,
    redis: String,
    folder: tempfile::TempDir,
}

impl Installation {
    fn new(name: &str) -> Self {
        let servers = formwork_test_servers::shared();
        Self {
            mongodb: format!(
                "{}&appName=test",
                database(&servers.mongodb, &format!("{name}-{}", std::process::id()))
            ),
            redis: servers.redis.clone(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A node with these roles.
    fn node(&self, roles: &str) -> Serving {
        self.node_behind(roles, &self.mongodb, &self.redis, "30000")
    }

    fn node_behind(&self, roles: &str, mongodb: &str, redis: &str, lease_ms: &str) -> Serving {
        let environment = [
            ("FORMWORK_STORE", mongodb),
            ("FORMWORK_REDIS", redis),
            ("FORMWORK_ROLES", roles),
            ("FORMWORK_MODELS", "[]"),
            ("FORMWORK_POOLS__LEASE_MS", lease_ms),
            ("FORMWORK_POOLS__HEARTBEAT_MS", "500"),
        ];
        Serving::start(self.folder.path(), &environment)
    }
}

/// The connection string with this database in it; one server is asked, not the set it says it belongs to.
fn database(url: &str, name: &str) -> String {
    let (server, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = server.split_once("://").unwrap();
    let host = rest.split('/').next().unwrap();
    let query = if query.contains("directConnection") {
        query.to_owned()
    } else {
        format!("directConnection=true&{query}")
    };
    format!("{scheme}://{host}/{name}?{}", query.trim_end_matches('&'))
}

fn form() -> Value {
    json!({
        "schema": { "type": "object", "required": ["number"], "properties": { "number": { "type": "integer" } } },
        "pipeline": [
            { "name": "check", "plugin": "validate" },
            { "name": "archive", "plugin": "export", "settings": { "format": "jsonl" } }
        ]
    })
}

async fn get(client: &reqwest::Client, url: String) -> Value {
    client.get(url).send().await.unwrap().json().await.unwrap()
}

/// Looks until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "never: {what}");
}

async fn publish(client: &reqwest::Client, node: &Serving) {
    let put = client.put(format!("{}/v1/forms/many", node.url)).json(&form());
    let answer = put.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

/// Submits one document to whichever node answers, as often as it takes; answers the id it was acknowledged under.
async fn submit(client: &reqwest::Client, urls: &[String], number: usize) -> String {
    for turn in 0.. {
        let url = &urls[(number + turn) % urls.len()];
        let sent = client
            .post(format!("{url}/v1/forms/many/submissions"))
            .header("idempotency-key", format!("number-{number}"))
            .timeout(Duration::from_secs(5))
            .json(&json!({ "number": number }))
            .send();
        if let Ok(answer) = sent.await
            && answer.status().is_success()
            && let Ok(answer) = answer.json::<Value>().await
        {
            return answer["id"].as_str().unwrap().to_owned();
        }
        // Every node is away for a moment.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
}

/// Every acknowledged submission ended well, and each left exactly one line in the export.
async fn all_done_once(client: &reqwest::Client, url: &str, acknowledged: &BTreeMap<usize, String>) {
    for (number, id) in acknowledged {
        until(&format!("submission {number} ({id}) is done"), async || {
            get(client, format!("{url}/v1/submissions/{id}")).await["status"] == "done"
        })
        .await;
    }
    let export = client.get(format!("{url}/v1/forms/many/exports/archive"));
    let export = export.send().await.unwrap().text().await.unwrap();
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let exported: Vec<String> = export.lines().map(id).collect();
    let distinct: BTreeSet<&String> = exported.iter().collect();
    assert_eq!(exported.len(), distinct.len(), "an effect was recorded twice");
    assert_eq!(distinct, acknowledged.values().collect::<BTreeSet<_>>());
    let running = get(client, format!("{url}/v1/tasks?state=running")).await;
    assert_eq!(running["items"], json!([]), "an orphan is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_plugins_and_controls_of_one_node_are_those_of_all() {
    let installation = Installation::new("shared");
    let client = reqwest::Client::new();
    let (first, second) = (installation.node("api,high,default"), installation.node("api"));
    let worker = installation.node("default");
    publish(&client, &first).await;
    let seen = get(&client, format!("{}/v1/forms/many", second.url)).await;
    assert_eq!(seen["version"], 1);

    // A container without the role `api` answers probes and nothing else.
    assert_eq!(get(&client, format!("{}/readyz", worker.url)).await["ready"], true);
    let forms = client.get(format!("{}/v1/forms", worker.url)).send().await.unwrap();
    assert_eq!(forms.status().as_u16(), 404);

    let pause = client.post(format!("{}/v1/pools/default/pause", second.url));
    assert!(pause.send().await.unwrap().status().is_success());
    for node in [&first, &second] {
        until("the pause is seen", async || {
            let pools = get(&client, format!("{}/v1/pools", node.url)).await;
            pools["items"][1]["paused"] == true
        })
        .await;
    }
    let id = submit(&client, std::slice::from_ref(&second.url), 0).await;
    until("the validation is done, the export waits", async || {
        let tasks = get(&client, format!("{}/v1/tasks?submission={id}", second.url)).await;
        tasks["items"][0]["state"] == "available" && tasks["items"][1]["state"] == "completed"
    })
    .await;
    let resume = client.post(format!("{}/v1/pools/default/resume", first.url));
    assert!(resume.send().await.unwrap().status().is_success());
    all_done_once(&client, &second.url, &[(0, id)].into()).await;

    let component = plugin(Path::new("validate-1.0.0.wasm"));
    let push = client.post(format!("{}/v1/plugins", first.url)).body(component);
    assert!(push.send().await.unwrap().status().is_success());
    until("a pushed plugin is kept for a node that has none", async || {
        let list = get(&client, format!("{}/v1/plugins", second.url)).await;
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .any(|plugin| plugin["name"] == "validate")
    })
    .await;
}

fn plugin(file: &Path) -> Vec<u8> {
    let cache = std::env::var_os("FORMWORK_CACHE").map(std::path::PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/formwork"));
    std::fs::read(cache.join("plugins").join(file)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_costs_no_task() {
    const SUBMISSIONS: usize = 120;
    let installation = Installation::new("cut");
    let client = reqwest::Client::new();
    let (mongodb, redis) = (
        Wire::to(&installation.mongodb).await,
        Wire::to(&installation.redis).await,
    );
    let near = |roles| installation.node_behind(roles, &installation.mongodb, &installation.redis, SHORT_LEASE_MS);
    let (first, second) = (near("api,high,default,batched"), near("api,high,default"));
    let far = installation.node_behind(
        "high,default",
        &mongodb.through(&installation.mongodb),
        &redis.through(&installation.redis),
        SHORT_LEASE_MS,
    );
    publish(&client, &first).await;
    let urls = [first.url.clone(), second.url.clone()];
    let mut acknowledged = BTreeMap::new();
    for number in 0..SUBMISSIONS {
        acknowledged.insert(number, submit(&client, &urls, number).await);
        match number {
            // In the middle of its work: what it holds now it cannot record.
            30 => {
                mongodb.cut();
                redis.cut();
            }
            // Mended while the others work on what it held.
            90 => {
                redis.mend();
                mongodb.mend();
            }
            _ => {}
        }
    }
    all_done_once(&client, &first.url, &acknowledged).await;
    until("the node works again", async || {
        get(&client, format!("{}/readyz", far.url)).await["ready"] == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_replaced_one_after_another_without_loss() {
    let installation = Installation::new("rolling");
    let client = reqwest::Client::new();
    let roles = "api,high,default";
    let mut nodes = [installation.node(roles), installation.node(roles)];
    publish(&client, &nodes[0]).await;
    // Their addresses change with every replacement.
    let urls = Arc::new(std::sync::Mutex::new(
        nodes.iter().map(|node| node.url.clone()).collect::<Vec<_>>(),
    ));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..4).map(|_| {
        let (client, urls, stop, sent) = (client.clone(), Arc::clone(&urls), Arc::clone(&stop), Arc::clone(&sent));
        tokio::spawn(async move {
            let mut acknowledged = BTreeMap::new();
            while !stop.load(Ordering::SeqCst) {
                let number = sent.fetch_add(1, Ordering::SeqCst);
                let id = loop {
                    let known = urls.lock().unwrap().clone();
                    let attempt = tokio::time::timeout(Duration::from_secs(10), submit(&client, &known, number));
                    if let Ok(id) = attempt.await {
                        break id;
                    }
                };
                acknowledged.insert(number, id);
            }
            acknowledged
        })
    });
    let clients: Vec<_> = clients.collect();
    for (place, node) in nodes.iter_mut().enumerate() {
        let mark = sent.load(Ordering::SeqCst) + 15;
        until("work goes on", async || sent.load(Ordering::SeqCst) >= mark).await;
        let fresh = installation.node(roles);
        urls.lock().unwrap()[place] = fresh.url.clone();
        let old = std::mem::replace(node, fresh);
        assert!(old.terminate().success(), "a drained node ends well");
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = BTreeMap::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    all_done_once(&client, &nodes[0].url, &acknowledged).await;
    for id in acknowledged.values() {
        let submission = get(&client, format!("{}/v1/submissions/{id}", nodes[0].url)).await;
        for step in submission["steps"].as_array().unwrap() {
            let task = get(
                &client,
                format!("{}/v1/tasks/{}", nodes[0].url, step["task"].as_str().unwrap()),
            )
            .await;
            assert_eq!(step["attempts"], 1, "a drain spent an attempt: {task:#}");
        }
    }
}

/// `SIGSTOP` for longer than a lease, then `SIGCONT`: the zombie is fenced. Takes some seconds longer when it froze in the
/// middle of a transaction: until the others end that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_freezes_in_the_middle_of_its_work_is_fenced_when_it_thaws() {
    let installation = Installation::new("frozen");
    let client = reqwest::Client::new();
    let node = |roles| installation.node_behind(roles, &installation.mongodb, &installation.redis, SHORT_LEASE_MS);
    let (api, zombie) = (node("api"), node("high,default"));
    publish(&client, &api).await;
    let urls = [api.url.clone()];
    let mut acknowledged = BTreeMap::new();
    // Frozen at a random moment, again and again, until that was while it held tasks.
    let held = loop {
        for _ in 0..20 {
            let number = acknowledged.len();
            acknowledged.insert(number, submit(&client, &urls, number).await);
        }
        zombie.freeze();
        let running = get(&client, format!("{}/v1/tasks?state=running", api.url)).await;
        let running = running["items"].as_array().unwrap().clone();
        if !running.is_empty() {
            break running;
        }
        zombie.thaw();
    };
    let other = node("high,default");
    all_done_once(&client, &api.url, &acknowledged).await;
    let end = |task: &Value| format!("{}/v1/tasks/{}", api.url, task["id"].as_str().unwrap());
    let mut ends = Vec::new();
    for task in &held {
        let ended = get(&client, end(task)).await;
        // What it had sent in the moment before it froze may have been recorded still.
        if ended["worker"] != task["worker"] {
            ends.push(ended);
        }
    }
    assert!(!ends.is_empty(), "nobody took over what it held: {held:#?}");
    zombie.thaw();
    // It works again, so it has heard that what it held is not its own any more, or has tried to record it.
    drop(other);
    let number = acknowledged.len();
    acknowledged.insert(number, submit(&client, &urls, number).await);
    all_done_once(&client, &api.url, &acknowledged).await;
    for ended in &ends {
        assert_eq!(get(&client, end(ended)).await, *ended, "the zombie was heard");
    }
    assert!(zombie.terminate().success());
}

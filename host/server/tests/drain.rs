//! SIGTERM: what is idle ends at once, what runs is given back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod serving;

use std::path::Path;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::time::Duration;

use formwork_store::sqlite::{Options, SqliteStore};
use formwork_store::{Store, TaskId};
use formwork_tasks::State;
use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use serving::Serving;
use sse_stream::SseStream;

/// Longest wait for anything; only what hangs meets it.
const HANGS: Duration = Duration::from_secs(60);

/// Sends SIGTERM and waits for the end.
fn terminated(serving: Serving) -> ExitStatus {
    let (told, ended) = mpsc::channel();
    std::thread::spawn(move || told.send(serving.terminate()));
    ended.recv_timeout(HANGS).expect("the process ends")
}

/// Whether the generator works on something.
async fn is_generating(client: &Client, url: &str) -> bool {
    let metrics = client.get(format!("{url}/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let mut in_progress = metrics
        .lines()
        .filter(|line| line.starts_with("formwork_inference_calls_in_progress{") && line.contains("generator"));
    in_progress.any(|line| !line.ends_with(" 0"))
}

/// Submits a generation and waits until it is under way; its task, and the stream of its events.
async fn generating(
    client: &Client,
    url: &str,
) -> (
    TaskId,
    impl futures::Stream<Item = Result<sse_stream::Sse, sse_stream::Error>> + Unpin,
) {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let form = json!({ "schema": {}, "pipeline": [ { "name": "details", "plugin": "extract", "settings": {
        "fields": ["/message"],
        "entities": { "person": text("the customer's full name"), "wish": text("what the customer wants") } } } ] });
    let put = client
        .put(format!("{url}/v1/forms/slow"))
        .json(&form)
        .send()
        .await
        .unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    let message = "Dear team, my name is Maria Lindqvist and I would like to have my money back.";
    let post = client.post(format!("{url}/v1/forms/slow/submissions"));
    let accepted = post.json(&json!({ "message": message })).send().await.unwrap();
    let accepted: Value = accepted.json().await.unwrap();
    let task: TaskId = format!("{}-0", accepted["id"].as_str().unwrap()).parse().unwrap();

    let answer = client
        .get(format!("{url}/v1/tasks/{task}/events"))
        .send()
        .await
        .unwrap();
    let mut events = Box::pin(SseStream::from_bytes_stream(answer.bytes_stream()));
    let running = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if event.data.is_some_and(|data| data.contains("\"to\":\"running\"")) {
                return;
            }
        }
    };
    tokio::time::timeout(HANGS, running).await.expect("the task runs");
    let under_way = async { while !is_generating(client, url).await {} };
    tokio::time::timeout(HANGS, under_way)
        .await
        .expect("the model is asked");
    (task, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_under_way_is_given_back_without_spending_an_attempt() {
    let folder = tempfile::tempdir().unwrap();
    // So little CPU that it takes minutes; nothing of it is left to other tests.
    let environment = [
        ("FORMWORK_POOLS__BATCHED__CPUS", "0.02"),
        ("FORMWORK_HTTP__DRAIN_TIMEOUT_MS", "2500"),
        ("FORMWORK_INFERENCE__PREFIX_FOLDER", ""),
    ];
    let serving = Serving::start(folder.path(), &environment);
    let client = Client::new();
    let url = serving.url.clone();
    let (task, events) = generating(&client, &url).await;

    let ending = tokio::task::spawn_blocking(move || terminated(serving));
    let rest: Vec<_> = events.collect().await;
    assert!(rest.iter().all(Result::is_ok), "the stream ends cleanly");
    assert_eq!(ending.await.unwrap().code(), Some(0));

    let store = open(folder.path());
    let view = store.task(task).await.unwrap().unwrap();
    assert_eq!((view.summary.state, view.summary.attempts), (State::Available, 0));
    let history = store.task_history(task).await.unwrap();
    let moves: Vec<&str> = history.iter().map(|line| line.why.as_str()).collect();
    assert_eq!(moves, ["created", "claimed", "released"]);
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(&Options::new(folder.join("formwork.db"))).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_server_does_not_use_its_drain_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("FORMWORK_HTTP__DRAIN_TIMEOUT_MS", "3600000"),
        ("FORMWORK_MODELS", "[]"),
    ];
    let serving = Serving::start(folder.path(), &environment);
    // Its connection stays open: the next request would come over it.
    let client = Client::new();
    let ready = client.get(format!("{}/readyz", serving.url)).send().await.unwrap();
    ready.text().await.unwrap();
    let ended = tokio::task::spawn_blocking(move || terminated(serving)).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    drop(client);
}

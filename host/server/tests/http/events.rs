//! The events of a task, as a client of server-sent events sees them.

use std::time::Duration;

use formwork_store::{Beat, Claimed, NewProgress, PluginRef, Provenance, Record, Store, TaskResult};
use formwork_tasks::{Pool, Verdict};
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sse_stream::{Sse, SseStream};

use crate::support::{Running, good, read, start};

/// Nothing here takes this long unless it hangs.
const HANGS: Duration = Duration::from_secs(30);

const LEASE_MS: u64 = 30_000;

/// An open stream.
struct Events(std::pin::Pin<Box<dyn futures::Stream<Item = Result<Sse, sse_stream::Error>>>>);

impl Events {
    async fn open(server: &Running, task: &str, last: Option<&str>) -> Self {
        let response = request(server, task, last).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self(Box::pin(SseStream::from_bytes_stream(response.bytes_stream())))
    }

    /// The next event's id, name and data; nothing when the stream ends.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        let next = tokio::time::timeout(HANGS, self.0.next())
            .await
            .expect("an event comes");
        let event = next?.expect("the stream ends cleanly");
        let data = serde_json::from_str(&event.data.unwrap()).unwrap();
        Some((event.id.unwrap(), event.event.unwrap(), data))
    }

    /// The states until the stream ends, and the id of the last event.
    async fn rest(&mut self) -> (Vec<String>, String) {
        let (mut states, mut last) = (Vec::new(), String::new());
        while let Some((id, name, data)) = self.next().await {
            let state = if name == "end" { &data["state"] } else { &data["to"] };
            states.push(format!("{name}:{}", state.as_str().unwrap_or("")));
            last = id;
        }
        (states, last)
    }
}

fn request(server: &Running, task: &str, last: Option<&str>) -> reqwest::RequestBuilder {
    let request = server.request(Method::GET, &format!("/v1/tasks/{task}/events"));
    match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    }
}

/// A submission whose first task waits: pool `high` is paused. Its task.
async fn waiting(server: &Running) -> String {
    server.contact().await;
    server.pause_high(true).await;
    let accepted = server.post("/v1/forms/contact/submissions", &good()).await;
    format!("{}-0", accepted.body["id"].as_str().unwrap())
}

/// The test as another node's worker.
struct Worker<'a> {
    store: &'a dyn Store,
    task: Claimed,
}

impl<'a> Worker<'a> {
    async fn claim(server: &'a Running) -> Self {
        let store = server.server().store().as_ref();
        let now = formwork_server::clock::now();
        let claimed = store.claim(Pool::High, "elsewhere", 1, LEASE_MS, now).await.unwrap();
        let task = claimed.into_iter().next().expect("a task waits");
        Self { store, task }
    }

    async fn says(&self, fraction: f64, message: &str) {
        let beat = Beat {
            progress: Some(NewProgress {
                fraction: Some(fraction),
                message: message.into(),
            }),
            ..Beat::new(self.task.id, self.task.run_lease)
        };
        let now = formwork_server::clock::now();
        self.store.heartbeat(&[beat], LEASE_MS, now).await.unwrap();
    }

    async fn completes(&self) {
        let plugin = PluginRef {
            name: "validate".into(),
            version: "1.0.0".into(),
            digest: "sha256:0".into(),
        };
        let result = TaskResult {
            output: r#"{"valid":true,"findings":[]}"#.into(),
            verdict: Verdict::Accepted,
            provenance: Provenance {
                plugin,
                models: Vec::new(),
            },
            cpu_ms: 1.0,
            export: None,
        };
        let (id, lease, now) = (self.task.id, self.task.run_lease, formwork_server::clock::now());
        let recorded = self.store.complete(id, lease, result, now).await.unwrap();
        assert_eq!(recorded, Record::Recorded);
    }
}

#[tokio::test]
async fn a_stream_tells_what_was_and_what_comes_and_ends_with_the_task() {
    let server = start("").await;
    let task = waiting(&server).await;
    let mut events = Events::open(&server, &task, None).await;
    let (id, name, data) = events.next().await.unwrap();
    assert_eq!((id.as_str(), name.as_str()), ("1", "state"));
    assert_eq!((&data["to"], &data["from"]), (&json!("available"), &Value::Null));

    let worker = Worker::claim(&server).await;
    let (id, _, data) = events.next().await.unwrap();
    assert_eq!((id.as_str(), &data["to"]), ("2", &json!("running")));
    assert_eq!(data["who"], "worker:elsewhere");

    worker.says(0.25, "page 1 of 4").await;
    let (at_a_quarter, name, data) = events.next().await.unwrap();
    assert_eq!(name, "progress");
    assert_eq!(
        (&data["fraction"], &data["message"]),
        (&json!(0.25), &json!("page 1 of 4"))
    );
    let shown = server.get(&format!("/v1/tasks/{task}")).await.body;
    assert_eq!(shown["progress"], data);
    let submission = format!("/v1/submissions/{}", shown["submission"].as_str().unwrap());
    let shown = server.get(&submission).await.body;
    assert_eq!(shown["steps"][0]["progress"], data);

    // Whoever comes back behind the progress does not hear it again.
    let mut resumed = Events::open(&server, &task, Some(&at_a_quarter)).await;
    worker.completes().await;
    let (states, last) = events.rest().await;
    assert_eq!(states, ["state:completed", "end:completed"]);
    assert_eq!(resumed.rest().await, (states, last.clone()));
    let (states, _) = Events::open(&server, &task, Some("1")).await.rest().await;
    assert_eq!(states, ["state:running", "state:completed", "end:completed"]);
    let shown = server.get(&submission).await.body;
    assert_eq!(shown["steps"][0]["progress"], Value::Null, "it runs no more");

    // A browser connects again when a stream ends; this is what makes it stop.
    let over = request(&server, &task, Some(&last)).send().await.unwrap();
    assert_eq!(over.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let server = start("http.max_event_streams = 1").await;
    let task = waiting(&server).await;
    for wrong in ["x", "1-", "1-x", "-1", "9"] {
        read(request(&server, &task, Some(wrong)))
            .await
            .problem(400, "invalid-request");
    }
    let unknown = format!("/v1/tasks/{}9/events", &task[..task.len() - 1]);
    server.get(&unknown).await.problem(404, "unknown-task");

    let mut first = Events::open(&server, &task, None).await;
    first.next().await.unwrap();
    let refused = read(request(&server, &task, None)).await;
    refused.problem(503, "too-many-streams");
    assert_eq!(refused.header("retry-after"), "1");
    drop(first);
    // The server notices that the client is gone.
    tokio::time::timeout(HANGS, async {
        while request(&server, &task, None).send().await.unwrap().status() != StatusCode::OK {}
    })
    .await
    .expect("the place is free again");
}

#[tokio::test]
async fn a_drain_ends_streams_cleanly_and_without_an_end() {
    let server = start("").await;
    let task = waiting(&server).await;
    let mut events = Events::open(&server, &task, None).await;
    events.next().await.unwrap();
    let (rest, server) = tokio::join!(events.rest(), server.restart());
    assert_eq!(rest.0, [] as [&str; 0], "the task has not ended");

    // The client goes on with the next process.
    let mut events = Events::open(&server, &task, Some("1")).await;
    server.pause_high(false).await;
    let (states, _) = events.rest().await;
    assert_eq!(states, ["state:running", "state:completed", "end:completed"]);
}

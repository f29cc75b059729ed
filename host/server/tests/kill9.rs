//! The server is killed in the middle of a thousand submissions and started again: every acknowledged one ends, none twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod serving;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use serving::Serving;

const SUBMISSIONS: usize = 1_000;
const CLIENTS: usize = 8;

/// Acknowledged submissions after which the server is killed.
const KILL_AFTER: [usize; 2] = [200, 600];

/// Longest wait for anything; only a hanging server meets it.
const PATIENCE: Duration = Duration::from_secs(120);

fn form() -> Value {
    json!({
        "title": "Kill",
        "schema": { "type": "object", "required": ["number"], "properties": { "number": { "type": "integer", "minimum": 10 } } },
        "pipeline": [
            { "name": "check", "plugin": "validate" },
            { "name": "archive", "plugin": "export", "settings": { "format": "jsonl" } }
        ]
    })
}

/// Sends submissions until all are acknowledged or the server is gone; answers what was acknowledged.
async fn submit(url: &str, numbers: Vec<usize>, acknowledged: &AtomicUsize) -> HashMap<usize, String> {
    let client = reqwest::Client::new();
    let mut acks = HashMap::new();
    for number in numbers {
        let sent = client
            .post(format!("{url}/v1/forms/kill/submissions"))
            .header("idempotency-key", format!("number-{number}"))
            .json(&json!({ "number": number }))
            .send()
            .await;
        let Ok(response) = sent else { break };
        let status = response.status();
        let Ok(answer) = response.json::<Value>().await else {
            break;
        };
        assert!(status.is_success(), "{answer}");
        acks.insert(number, answer["id"].as_str().unwrap().to_owned());
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    acks
}

async fn submit_all(url: &str, numbers: &[usize], acknowledged: &Arc<AtomicUsize>) -> HashMap<usize, String> {
    let clients = (0..CLIENTS).map(|client| {
        let share = numbers.iter().copied().skip(client).step_by(CLIENTS).collect();
        async move { submit(url, share, acknowledged).await }
    });
    futures::future::join_all(clients).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_submission_ends_once_across_kills() {
    let folder = tempfile::tempdir().unwrap();
    let client = reqwest::Client::new();
    let mut server = Serving::start(folder.path(), &[]);
    let put = client
        .put(format!("{}/v1/forms/kill", server.url))
        .json(&form())
        .send()
        .await
        .unwrap();
    assert!(put.status().is_success(), "{}", put.text().await.unwrap());

    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut acks: HashMap<usize, String> = HashMap::new();
    for kill_after in KILL_AFTER {
        let url = server.url.clone();
        let left: Vec<usize> = (0..SUBMISSIONS).filter(|number| !acks.contains_key(number)).collect();
        let counted = Arc::clone(&acknowledged);
        let clients = tokio::spawn(async move { submit_all(&url, &left, &counted).await });
        while acknowledged.load(Ordering::SeqCst) < kill_after && !clients.is_finished() {
            tokio::task::yield_now().await;
        }
        server.kill();
        acks.extend(clients.await.unwrap());
        server = Serving::start(folder.path(), &[]);
    }
    let left: Vec<usize> = (0..SUBMISSIONS).filter(|number| !acks.contains_key(number)).collect();
    assert!(
        !left.is_empty(),
        "the server was killed after everything was acknowledged: nothing was tried"
    );
    acks.extend(submit_all(&server.url, &left, &acknowledged).await);
    assert_eq!(acks.len(), SUBMISSIONS);

    let mut done = HashSet::new();
    for (number, id) in &acks {
        let submission = settled(&client, &server.url, id).await;
        let expected = if *number < 10 { "rejected" } else { "done" };
        assert_eq!(submission["status"], expected, "{submission:#}");
        assert_eq!(submission["data"]["number"], *number);
        if *number >= 10 {
            done.insert(id.clone());
        }
    }
    let ids: HashSet<&String> = acks.values().collect();
    assert_eq!(ids.len(), SUBMISSIONS, "two submissions were acknowledged under one id");

    // The recorded effect: each submission's line is in the export exactly once.
    let export = client
        .get(format!("{}/v1/forms/kill/exports/archive", server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let exported: Vec<String> = export
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(exported.len(), done.len());
    assert_eq!(exported.into_iter().collect::<HashSet<_>>(), done);
}

async fn settled(client: &reqwest::Client, url: &str, id: &str) -> Value {
    let look = async {
        loop {
            let answer: Value = client
                .get(format!("{url}/v1/submissions/{id}"))
                .header("prefer", "wait=5")
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            if answer["status"] != "processing" {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, look)
        .await
        .expect("an acknowledged submission never settled")
}

//! Many at once, and what must not wait for them.

use std::collections::BTreeSet;

use formwork_tasks::Pool;
use futures::StreamExt;
use reqwest::{Method, StatusCode};

use crate::support::{good, read, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_submissions_each_end_once() {
    const SUBMISSIONS: usize = 100;
    let server = start("").await;
    server.contact().await;
    let submit = |_| async {
        let request = server
            .request(Method::POST, "/v1/forms/contact/submissions")
            .header("prefer", "wait=50");
        let answer = read(request.json(&good())).await;
        assert_eq!(
            (answer.status, &answer.body["status"]),
            (StatusCode::OK, &"done".into()),
            "{:#}",
            answer.body
        );
        answer.body["id"].as_str().unwrap().to_owned()
    };
    let ids: BTreeSet<String> = futures::stream::iter(0..SUBMISSIONS)
        .map(submit)
        .buffer_unordered(32)
        .collect()
        .await;
    assert_eq!(ids.len(), SUBMISSIONS);
    let text = server
        .request(Method::GET, "/v1/forms/contact/exports/archive")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(text.lines().count(), SUBMISSIONS + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_answer_while_every_pool_is_held() {
    let server = start("").await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut held = Vec::new();
    for pool in Pool::ALL {
        let threads = server.server().scheduler().status()[pool as usize].threads;
        for _ in 0..threads {
            let (lane, stop) = (server.server().lane(pool).clone(), stop.clone());
            let (started, running) = tokio::sync::oneshot::channel();
            let spin = move || async move {
                let _ = started.send(());
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            held.push(tokio::spawn(async move { lane.spawn(spin).await }));
            running.await.unwrap();
        }
    }
    for _ in 0..20 {
        assert_eq!(server.get("/livez").await.status, StatusCode::OK);
    }
    assert_eq!(server.get("/v1/pools").await.status, StatusCode::OK);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for work in held {
        work.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lane_is_told_to_come_again() {
    let server = start("pools = { high = { threads = 1, runs_per_thread = 1, inbox = 1 } }").await;
    server.contact().await;
    let lane = server.server().lane(Pool::High).clone();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let (started, running) = tokio::sync::oneshot::channel();
    let holding = lane.clone();
    let held = tokio::spawn(async move {
        holding
            .spawn(move || async move {
                let _ = started.send(());
                let _ = released.await;
            })
            .await
    });
    running.await.unwrap();
    let waiting = tokio::spawn(async move { lane.spawn(|| async {}).await });
    while server.server().lane(Pool::High).usage().queued == 0 {
        tokio::task::yield_now().await;
    }
    let refused = server.post("/v1/forms/contact/validate", &good()).await;
    refused.problem(503, "busy");
    assert_eq!(refused.header("retry-after"), "1");
    drop(release);
    held.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(
        server.post("/v1/forms/contact/validate", &good()).await.status,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_beyond_the_limit_waits_for_a_place() {
    let server = start("http = { max_connections = 1 }").await;
    let first = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let client = reqwest::Client::new();
    let url = server.url("/livez");
    let second = tokio::spawn(async move { client.get(url).send().await.unwrap().status() });
    drop(first);
    assert_eq!(second.await.unwrap(), StatusCode::OK);
}

//! Hostile and good plugins at once, as an operator has them.

use std::sync::Arc;

use formwork_engine::CallContext;
use formwork_guests::Guest;
use formwork_tests::{Arena, call, submission};
use serde_json::json;

/// Every kind of harm at once, many times over, while good calls are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_calls_succeed_among_hostile_ones() {
    let arena = Arena::shared().await;
    let hog = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)";
    let deep = "(func $deep (param i32) (result i32) (call $deep (i32.add (local.get 0) (i32.const 1))))";
    let mut hostile = Vec::new();
    for guest in [
        Guest::validator()
            .work(crate::cpu::SPIN)
            .limits(&json!({ "cpu_ms": 20 })),
        Guest::validator().work(hog),
        Guest::validator().work("(unreachable)"),
        Guest::validator().with(deep).work("(call $deep (i32.const 0))"),
        Guest::validator().work("(i32.const -1)"),
        Guest::validator()
            .prepare(crate::cpu::SPIN)
            .limits(&json!({ "cpu_ms": 20 })),
    ] {
        hostile.push(arena.plugin(&guest).await);
    }
    let mut calls = tokio::task::JoinSet::new();
    for plugin in hostile {
        calls.spawn(async move {
            for _ in 0..10 {
                let report = call(&plugin, &submission(&json!({})), CallContext::default()).await;
                let error = report.result.unwrap_err();
                assert_ne!(error.code(), "host", "{error}");
            }
        });
    }
    for _ in 0..4 {
        calls.spawn(async move {
            for _ in 0..50 {
                arena.serves().await;
            }
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
}

/// A plugin that is being installed shares nothing with those that serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installing_bad_files_does_not_disturb_calls() {
    let arena = Arena::shared().await;
    let bad = Arc::new(Guest::validator().pages("600").file());
    let mut work = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let bad = Arc::clone(&bad);
        work.spawn(async move {
            for _ in 0..20 {
                arena.install(bad.to_vec()).await.unwrap_err();
            }
        });
    }
    work.spawn(async move {
        for _ in 0..100 {
            arena.serves().await;
        }
    });
    while let Some(ended) = work.join_next().await {
        ended.unwrap();
    }
}

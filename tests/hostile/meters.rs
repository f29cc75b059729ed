//! What a call used, in its report: exact where it can be counted, also when the call failed.

use std::time::Duration;

use formwork_engine::{CallContext, Usage};
use formwork_guests::{Guest, SCRATCH, imports};
use formwork_tests::{Arena, echo, setup};
use serde_json::{Value, json};

use crate::harness::{attack, attack_with};

/// Bytes of a page of linear memory.
const PAGE: u64 = 64 << 10;

#[tokio::test]
async fn memory_is_the_most_of_all_memories_and_tables_together() {
    let usage = attack(&Guest::validator()).await.0.usage;
    assert_eq!(usage.memory_bytes, PAGE);
    let guest = Guest::validator()
        .with("(table 10 funcref)")
        .beside("(module (memory 2) (table 5 funcref))")
        .work("(drop (memory.grow (i32.const 3))) (i32.const 1024)");
    let usage = attack(&guest).await.0.usage;
    assert_eq!(usage.memory_bytes, 6 * PAGE + 15 * 8);
    // What was refused was not used.
    let guest = Guest::validator().work("(drop (memory.grow (i32.const 3000))) (i32.const 1024)");
    assert_eq!(attack(&guest).await.0.usage.memory_bytes, PAGE);
}

#[tokio::test]
async fn host_calls_their_bytes_and_log_bytes_add_up() {
    let log = "(call $log (i32.const 2) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0))";
    let report = "(call $report (i64.const 1) (i64.const 2) (i32.const 0) (i32.const 5))";
    let code = format!("{} {} (i32.const 1024)", log.repeat(7), report.repeat(3));
    let guest = Guest::validator()
        .import(imports::LOG)
        .import(imports::PROGRESS)
        .work(&code);
    let usage = attack(&guest).await.0.usage;
    assert_eq!(
        (usage.host_calls, usage.host_call_bytes, usage.log_bytes),
        (10, 7 * 4 + 3 * 5, 7 * 4)
    );
    // The same when it traps at the end.
    let usage = attack(&guest.work(&format!("{code} (drop) (unreachable)")))
        .await
        .0
        .usage;
    assert_eq!(
        (usage.host_calls, usage.host_call_bytes, usage.log_bytes),
        (10, 7 * 4 + 3 * 5, 7 * 4)
    );
}

#[tokio::test]
async fn output_is_what_is_recorded_or_written() {
    let ended = attack_with(&echo(), &json!({ "text": "x".repeat(1_000) }), CallContext::default()).await;
    let usage = ended.0.usage.clone();
    assert_eq!(usage.output_bytes, ended.answer().json.to_string().len() as u64);
    let write = format!("(call $write_sink (local.get 2) (i32.const 0) (i32.const 500) (i32.const {SCRATCH}))");
    let guest = Guest::exporter().import(imports::SINK).work(&format!(
        "{write}{write} (call $drop_sink (local.get 2)) (i32.const 1024)"
    ));
    let usage = attack(&guest).await.0.usage;
    assert_eq!(
        (usage.output_bytes, usage.host_call_bytes, usage.host_calls),
        (1_000, 1_000, 2)
    );
}

#[tokio::test]
async fn time_asleep_is_wall_time_and_no_cpu_time() {
    const NAP: Duration = Duration::from_millis(80);
    let guest = Guest::validator()
        .import(imports::CLOCK)
        .import(imports::POLL)
        .work(&format!(
            "(call $block (call $subscribe (i64.const {}))) (i32.const 1024)",
            NAP.as_nanos()
        ));
    let usage = attack(&guest).await.0.usage;
    assert!(usage.wall >= NAP && usage.cpu < NAP / 2, "{usage:?}");
}

/// The guest computes while others compete for the CPU: what counts is what it got.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cpu_time_is_the_guests_own_among_many() {
    let arena = Arena::shared().await;
    let count = "(local $n i32) (loop $again (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $n) (i32.const 30000000)))) (i32.const 1024)";
    let plugin = arena
        .plugin(
            &Guest::validator()
                .work(count)
                .limits(&json!({ "cpu_ms": 20_000, "wall_ms": 60_000 })),
        )
        .await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let plugin = std::sync::Arc::clone(&plugin);
        calls.spawn(async move {
            let setup = setup(&json!({}), &Value::Null);
            let submission = formwork_tests::submission(&json!({}));
            plugin.work(&setup, &submission, CallContext::default()).await
        });
    }
    let mut usages: Vec<Usage> = Vec::new();
    while let Some(report) = calls.join_next().await {
        let report = report.unwrap();
        assert!(report.result.is_ok(), "{:?}", report.result);
        usages.push(report.usage);
    }
    for usage in &usages {
        assert!(
            usage.cpu >= Duration::from_millis(2) && usage.cpu <= usage.wall,
            "{usage:?}"
        );
    }
    arena.serves().await;
}

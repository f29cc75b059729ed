//! How calls end: limits, traps, cancelling, and memory that nobody had before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::time::{Duration, Instant};

use formwork_engine::{CallContext, CallError, Limit};
use serde_json::json;
use support::{OK, engine, file, install, outcome, validator, work};

fn exceeded(error: &CallError) -> Limit {
    match error {
        CallError::Limit(exceeded) => exceeded.limit,
        other => panic!("not a limit: {other:?}"),
    }
}

const ENDLESS: &str = "(loop $again (br $again)) (unreachable)";

#[tokio::test]
async fn an_answer_is_an_answer() {
    let report = outcome(&validator("", OK, OK), &json!({})).await;
    assert_eq!(report.result.unwrap().json, json!({ "valid": true, "findings": [] }));
    assert!(report.usage.memory_bytes >= 65_536);
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_cpu_limit() {
    for (prepare, validate) in [(OK, ENDLESS), (ENDLESS, OK)] {
        let report = outcome(&validator("", prepare, validate), &json!({})).await;
        assert_eq!(exceeded(&report.result.unwrap_err()), Limit::CpuMs);
        assert!(report.usage.cpu >= Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_loop_in_the_start_function_or_in_realloc_ends_too() {
    let start = "(func $start (loop $again (br $again))) (start $start)";
    let report = outcome(&validator(start, OK, OK), &json!({})).await;
    assert_eq!(exceeded(&report.result.unwrap_err()), Limit::CpuMs);
    let realloc = validator("", OK, OK).replace("(local.set $at", "(loop $again (br $again)) (local.set $at");
    let report = outcome(&realloc, &json!({})).await;
    assert_eq!(exceeded(&report.result.unwrap_err()), Limit::CpuMs);
}

#[tokio::test]
async fn a_running_guest_stops_when_it_is_cancelled_or_late() {
    let engine = engine();
    let limits = json!({ "limits": { "cpu_ms": 30_000, "wall_ms": 30_000 } });
    let plugin = install(&engine, file(&validator("", OK, ENDLESS), &limits))
        .await
        .unwrap();
    let context = CallContext::default();
    let cancel = context.cancel.clone();
    let (report, ()) = tokio::join!(work(&plugin, context), async {
        tokio::task::yield_now().await;
        cancel.cancel();
    });
    assert_eq!(report.result.unwrap_err(), CallError::Cancelled);
    let context = CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(50)),
        ..CallContext::default()
    };
    assert_eq!(
        work(&plugin, context).await.result.unwrap_err(),
        CallError::DeadlineExceeded
    );
}

#[tokio::test]
async fn wall_time_is_limited_apart_from_cpu_time() {
    let limits = json!({ "limits": { "cpu_ms": 30_000, "wall_ms": 50 } });
    let report = outcome(&validator("", OK, ENDLESS), &limits).await;
    assert_eq!(exceeded(&report.result.unwrap_err()), Limit::WallMs);
}

#[tokio::test]
async fn memory_is_limited_in_total() {
    let grow = "(if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then (unreachable))) (i32.const 1024)";
    let report = outcome(&validator("", OK, grow), &json!({})).await;
    let CallError::Limit(limit) = report.result.unwrap_err() else {
        panic!("not a limit")
    };
    assert_eq!((limit.limit, limit.value), (Limit::MemoryBytes, 2 << 20));
    // A table counts as well.
    let table = "(table $t 0 funcref)";
    let grow = "(if (i32.eq (table.grow $t (ref.null func) (i32.const 300000)) (i32.const -1)) (then (unreachable))) (i32.const 1024)";
    let report = outcome(&validator(table, OK, grow), &json!({})).await;
    assert!(report.result.is_err());
}

#[tokio::test]
async fn a_guest_that_bears_a_refused_growth_goes_on() {
    let grow = "(drop (memory.grow (i32.const 64))) (i32.const 1024)";
    assert!(outcome(&validator("", OK, grow), &json!({})).await.result.is_ok());
}

#[tokio::test]
async fn recursion_and_traps_are_told_apart() {
    let deep = "(func $deep (param i32) (result i32) (call $deep (i32.add (local.get 0) (i32.const 1))))";
    let report = outcome(&validator(deep, OK, "(call $deep (i32.const 0))"), &json!({})).await;
    assert_eq!(exceeded(&report.result.unwrap_err()), Limit::Stack);
    let report = outcome(&validator("", OK, "(unreachable)"), &json!({})).await;
    assert_eq!(report.result.unwrap_err().code(), "trap");
}

#[tokio::test]
async fn answers_that_lie_about_their_size_are_refused() {
    // ok with a list of 2^28 findings at address 0.
    let list = "(i32.store (i32.const 2052) (i32.const 0)) (i32.store (i32.const 2056) (i32.const 0x10000000)) (i32.const 2048)";
    let code = outcome(&validator("", OK, list), &json!({}))
        .await
        .result
        .unwrap_err()
        .code();
    assert!(["limit-output", "trap"].contains(&code), "{code}");
    // A result outside memory.
    let code = outcome(&validator("", OK, "(i32.const 0x7fffff00)"), &json!({}))
        .await
        .result
        .unwrap_err()
        .code();
    assert_eq!(code, "trap");
}

#[tokio::test]
async fn no_call_sees_the_memory_of_another() {
    // Answers a trap once the byte at 3000 was written before; writes it.
    let canary = "(if (i32.load8_u (i32.const 3000)) (then (unreachable))) (i32.store8 (i32.const 3000) (i32.const 1)) (i32.const 1024)";
    let engine = engine();
    let plugin = install(&engine, file(&validator("", OK, canary), &json!({})))
        .await
        .unwrap();
    for call in 0..200 {
        assert!(
            work(&plugin, CallContext::default()).await.result.is_ok(),
            "call {call} found the mark of another"
        );
    }
}

const LOG: &str = r#"(import "formwork:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
const LOG_ONCE: &str = "(call $log (i32.const 2) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0))";

#[tokio::test]
async fn host_calls_are_limited_by_number_and_bytes() {
    let storm = format!("(loop $again {LOG_ONCE} (br $again)) (unreachable)");
    let report = outcome(&validator(LOG, OK, &storm), &json!({})).await;
    assert_eq!(exceeded(&report.result.unwrap_err()), Limit::HostCalls);
    let big = "(call $log (i32.const 2) (i32.const 0) (i32.const 60000) (i32.const 0) (i32.const 0))";
    let storm = format!("(loop $again {big} (br $again)) (unreachable)");
    let limits = json!({ "limits": { "host_call_kib": 200, "host_calls": 1000, "memory_mib": 2 } });
    let report = outcome(&validator(LOG, OK, &storm), &limits).await;
    assert_eq!(exceeded(&report.result.unwrap_err()), Limit::HostCallBytes);
}

#[tokio::test]
async fn prepare_may_call_no_import() {
    let prepare = format!("{LOG_ONCE} (i32.const 1024)");
    let error = outcome(&validator(LOG, &prepare, OK), &json!({}))
        .await
        .result
        .unwrap_err();
    assert!(error.to_string().contains("prepare called an import"), "{error}");
}

#[tokio::test]
async fn an_engine_serves_on_after_every_crash() {
    let engine = engine();
    let bad = install(&engine, file(&validator("", OK, "(unreachable)"), &json!({})))
        .await
        .unwrap();
    let good = install(&engine, file(&validator("", OK, OK), &json!({ "name": "good" })))
        .await
        .unwrap();
    for _ in 0..100 {
        assert!(work(&bad, CallContext::default()).await.result.is_err());
    }
    assert!(work(&good, CallContext::default()).await.result.is_ok());
}

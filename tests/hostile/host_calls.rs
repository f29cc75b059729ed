//! Guests that misuse what the host offers them.

use std::time::{Duration, Instant};

use formwork_engine::{CallContext, CallError, Limit};
use formwork_guests::{Guest, SCRATCH, imports, text, words};
use serde_json::json;

use crate::cpu::SPIN;
use crate::harness::{attack, attack_with, cancelled};

/// What a test guest may use unless it asks for another amount.
const HOST_CALLS: u64 = 100;

/// Logs four bytes at level 2.
const LOG_ONCE: &str = "(call $log (i32.const 2) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0))";

/// Does `code` for ever.
fn endlessly(code: &str) -> String {
    format!("(loop $again {code} (br $again)) (unreachable)")
}

/// Does `code` once and answers `ok`.
fn once(code: &str) -> String {
    format!("{code} (i32.const 1024)")
}

/// A guest that may sleep for an hour as far as its limits go.
fn patient(guest: Guest) -> Guest {
    guest.limits(&json!({ "wall_ms": 300_000 }))
}

fn sleeper() -> Guest {
    Guest::validator().import(imports::CLOCK).import(imports::POLL)
}

/// Waits as long as the clock can say.
const SLEEP: &str = "(call $block (call $subscribe (i64.const -1)))";

#[tokio::test]
async fn a_storm_of_host_calls_ends_at_their_limit() {
    let log = Guest::validator().import(imports::LOG).work(&endlessly(LOG_ONCE));
    attack(&log).await.limit(Limit::HostCalls, HOST_CALLS);
    let report = "(call $report (i64.const 1) (i64.const -1) (i32.const 0) (i32.const 4))";
    let progress = Guest::validator().import(imports::PROGRESS).work(&endlessly(report));
    attack(&progress).await.limit(Limit::HostCalls, HOST_CALLS);
}

#[tokio::test]
async fn a_log_flood_ends_at_the_limit_of_bytes() {
    let big = "(call $log (i32.const 4) (i32.const 0) (i32.const 60000) (i32.const 0) (i32.const 0))";
    let guest = Guest::validator()
        .import(imports::LOG)
        .limits(&json!({ "host_call_kib": 200, "host_calls": 100_000 }))
        .work(&endlessly(big));
    let ended = attack(&guest).await;
    assert!(ended.0.usage.log_bytes <= 240_000, "{:?}", ended.0.usage);
    ended.limit(Limit::HostCallBytes, 200 << 10);
}

/// Fields of no bytes are not free: each takes the host fifty.
#[tokio::test]
async fn a_log_flood_of_empty_fields_ends_at_a_limit() {
    let empty = "(call $log (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 65536) (i32.const 60000))";
    let guest = Guest::validator()
        .import(imports::LOG)
        .pages("20")
        .limits(&json!({ "host_calls": 100_000, "cpu_ms": 10_000 }))
        .work(&endlessly(empty));
    attack(&guest).await.limit(Limit::HostCallBytes, 16 << 20);
}

#[tokio::test]
async fn one_text_read_many_times_over_ends_at_a_limit() {
    // A thousand texts, all of them the same 60,000 bytes: more than a call may lift.
    let texts: Vec<u32> = [0, 60_000].repeat(1_000);
    let guest = Guest::validator()
        .import(imports::EMBED)
        .manifest(&json!({ "grants": { "embeddings": "to compare" } }))
        .pages("4")
        .data(65_536, &words(&texts))
        .work(&once(&format!(
            "(call $embed (i32.const 0) (i32.const 4) (i32.const 65536) (i32.const 1000) (i32.const {SCRATCH}))"
        )));
    let error = attack(&guest).await.error();
    assert!(matches!(error, CallError::Limit(_)), "{error:?}");
}

#[tokio::test]
async fn prepare_may_call_no_import() {
    for (import, code) in [
        (imports::LOG, LOG_ONCE),
        (
            imports::PROGRESS,
            "(call $report (i64.const 1) (i64.const 2) (i32.const 0) (i32.const 0))",
        ),
    ] {
        let guest = Guest::validator().import(import).prepare(&once(code));
        let error = attack(&guest).await.error().to_string();
        assert!(error.contains("prepare called an import"), "{error}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_there_is_a_value_for_the_guest() {
    let guest = Guest::validator()
        .import(imports::EMBED)
        .import(imports::GENERATION)
        .import(imports::TENSORS)
        .manifest(&json!({ "grants": { "embeddings": "x", "generation": "x", "tensors": "x" } }))
        // Each answers an error (1) of the case unknown-model (1).
        .work(&format!(
            "(call $embed (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const {SCRATCH}))
             (if (i32.ne (i32.load8_u (i32.const {SCRATCH})) (i32.const 1)) (then (unreachable)))
             (call $run (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const {SCRATCH}))
             (if (i32.ne (i32.load8_u (i32.const {SCRATCH})) (i32.const 1)) (then (unreachable)))
             (call $start_generation (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 4)
               (i32.const -1) (f32.const nan) (i64.const -1) (i32.const 0) (i32.const 0)
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {SCRATCH}))
             (if (i32.ne (i32.load8_u (i32.const {SCRATCH})) (i32.const 1)) (then (unreachable)))
             (i32.const 1024)"
        ));
    attack(&guest).await.answer();
}

#[tokio::test]
async fn arguments_outside_the_memory_or_of_no_case_are_a_trap() {
    for (arguments, expected) in [
        (
            "(i32.const 2) (i32.const 65530) (i32.const 100) (i32.const 0) (i32.const 0)",
            "out of bounds",
        ),
        (
            "(i32.const 2) (i32.const -1) (i32.const -1) (i32.const 0) (i32.const 0)",
            "out of bounds",
        ),
        (
            "(i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)",
            "",
        ),
        (
            "(i32.const 2) (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 1)",
            "aligned",
        ),
        (
            "(i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)",
            "discriminant",
        ),
        (
            "(i32.const -1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)",
            "discriminant",
        ),
        (
            "(i32.const 2) (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0)",
            "utf-8",
        ),
    ] {
        let guest = Guest::validator()
            .import(imports::LOG)
            .data(4096, b"\xff")
            .work(&once(&format!("(call $log {arguments})")));
        attack(&guest).await.traps(expected);
    }
}

#[tokio::test]
async fn a_result_address_outside_the_memory_is_a_trap() {
    for address in ["65530", "-4", "2049"] {
        let guest = Guest::validator()
            .import(imports::RANDOM)
            .work(&once(&format!("(call $random (i64.const 8) (i32.const {address}))")));
        assert!(matches!(attack(&guest).await.error(), CallError::Trap(_)), "{address}");
    }
}

#[tokio::test]
async fn a_gigabyte_of_randomness_is_refused() {
    for length in ["1073741824", "-1", "65537"] {
        let guest = Guest::validator().import(imports::RANDOM).work(&once(&format!(
            "(call $random (i64.const {length}) (i32.const {SCRATCH}))"
        )));
        assert!(matches!(attack(&guest).await.error(), CallError::Trap(_)), "{length}");
    }
}

#[tokio::test]
async fn a_flood_of_randomness_ends_at_a_limit() {
    // The heap is set back each time: memory does not end it.
    let guest = Guest::validator()
        .import(imports::RANDOM)
        .pages("4")
        .work(&endlessly(&format!(
            "(global.set $heap (i32.const 8192)) (call $random (i64.const 65536) (i32.const {SCRATCH}))"
        )));
    let error = attack(&guest).await.error();
    let CallError::Limit(exceeded) = &error else {
        panic!("{error:?}");
    };
    assert!(
        [Limit::CpuMs, Limit::HostCalls, Limit::HostCallBytes].contains(&exceeded.limit),
        "{error}"
    );
}

#[tokio::test]
async fn a_guest_that_sleeps_ends_at_the_wall_limit() {
    let guest = sleeper().work(&once(SLEEP)).limits(&json!({ "wall_ms": 60 }));
    let ended = attack(&guest).await.within(Duration::from_millis(60));
    ended.limit(Limit::WallMs, 60);
    let guest = sleeper().prepare(&once(SLEEP)).limits(&json!({ "wall_ms": 60 }));
    attack(&guest).await.limit(Limit::WallMs, 60);
}

#[tokio::test]
async fn a_guest_that_sleeps_ends_at_the_callers_deadline() {
    let context = CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(60)),
        ..CallContext::default()
    };
    let guest = patient(sleeper().work(&once(SLEEP)));
    let error = attack_with(&guest, &json!({}), context).await.error();
    assert_eq!(error, CallError::DeadlineExceeded);
}

#[tokio::test]
async fn a_guest_that_sleeps_is_cancelled() {
    cancelled(&sleeper().work(&once(SLEEP))).await;
    cancelled(&sleeper().prepare(&once(SLEEP))).await;
}

#[tokio::test]
async fn a_guest_that_wakes_and_sleeps_for_ever_ends_at_the_wall_limit() {
    let nap = "(local $p i32) (loop $again
        (local.set $p (call $subscribe (i64.const 1000000)))
        (call $block (local.get $p)) (call $drop_pollable (local.get $p)) (br $again)) (unreachable)";
    let guest = sleeper().work(nap).limits(&json!({ "wall_ms": 60, "cpu_ms": 10_000 }));
    attack(&guest).await.limit(Limit::WallMs, 60);
}

#[tokio::test]
async fn a_million_handles_end_at_their_limit() {
    let guest = sleeper()
        .work(&endlessly("(drop (call $subscribe (i64.const 1)))"))
        .limits(&json!({ "cpu_ms": 10_000, "host_calls": 100_000 }));
    attack(&guest).await.limit(Limit::Handles, 1_000);
}

#[tokio::test]
async fn polling_nothing_or_far_too_much_is_an_error() {
    let nothing = sleeper().work(&once(&format!(
        "(call $poll (i32.const 0) (i32.const 0) (i32.const {SCRATCH}))"
    )));
    assert!(matches!(attack(&nothing).await.error(), CallError::Trap(_)));
    // One pollable, half a million times over.
    let many = format!(
        "(local $at i32) (local $p i32)
         (local.set $p (call $subscribe (i64.const 0)))
         (loop $fill
           (i32.store (i32.add (i32.const 65536) (local.get $at)) (local.get $p))
           (local.set $at (i32.add (local.get $at) (i32.const 4)))
           (br_if $fill (i32.lt_u (local.get $at) (i32.const 2000000))))
         (loop $again
           (global.set $heap (i32.const 2200000))
           (call $poll (i32.const 65536) (i32.const 500000) (i32.const {SCRATCH})) (br $again))
         (unreachable)"
    );
    let guest = sleeper()
        .pages("200")
        .limits(&json!({ "memory_mib": 64, "cpu_ms": 300, "wall_ms": 20_000 }))
        .work(&many);
    let began = Instant::now();
    let error = attack(&guest).await.error();
    assert!(matches!(error, CallError::Limit(_)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn handles_that_are_not_the_guests_are_a_trap() {
    let pollable = "(local $p i32) (local.set $p (call $subscribe (i64.const 0)))";
    for code in [
        // Dropped twice; used after it was dropped; never had; a clock's handle as a stream.
        format!("{pollable} (call $drop_pollable (local.get $p)) (call $drop_pollable (local.get $p))"),
        format!("{pollable} (call $drop_pollable (local.get $p)) (call $block (local.get $p))"),
        "(call $block (i32.const 77))".into(),
        "(call $drop_pollable (i32.const -1))".into(),
        "(call $block (i32.const 0))".into(),
        format!("{pollable} (call $check_write (local.get $p) (i32.const {SCRATCH}))"),
    ] {
        let guest = sleeper().import(imports::STREAMS).work(&once(&code));
        attack(&guest).await.traps("handle");
    }
}

#[tokio::test]
async fn a_completion_that_never_was_cannot_be_asked() {
    for code in [
        format!("(call $next (i32.const 1) (i32.const {SCRATCH}))"),
        format!("(call $summary (i32.const 0) (i32.const {SCRATCH}))"),
        "(call $drop_completion (i32.const 5))".into(),
    ] {
        let guest = Guest::validator()
            .import(imports::GENERATION)
            .manifest(&json!({ "grants": { "generation": "x" } }))
            .work(&once(&code));
        attack(&guest).await.traps("handle");
    }
}

fn exporter() -> Guest {
    Guest::exporter().import(imports::SINK)
}

#[tokio::test]
async fn a_sink_is_lent_for_one_call_only() {
    // Kept over the end of the call, dropped twice, written to after it was dropped, forged.
    attack(&exporter()).await.traps("borrow");
    let drop = "(call $drop_sink (local.get 2))";
    let write = format!("(call $write_sink (local.get 2) (i32.const 0) (i32.const 4) (i32.const {SCRATCH}))");
    for code in [
        format!("{drop}{drop}"),
        format!("{drop}{write}"),
        "(call $drop_sink (i32.const 9))".into(),
    ] {
        attack(&exporter().work(&once(&code))).await.traps("handle");
    }
    let output = attack(&exporter().work(&once(&format!("{write}{drop}"))))
        .await
        .answer();
    assert_eq!(output.export, Some(vec![0; 4]));
}

#[tokio::test]
async fn a_flooded_sink_ends_at_the_output_limit() {
    let write = format!("(call $write_sink (local.get 2) (i32.const 0) (i32.const 60000) (i32.const {SCRATCH}))");
    let guest = exporter()
        .limits(&json!({ "output_kib": 300 }))
        .work(&endlessly(&write));
    let ended = attack(&guest).await;
    let written = ended.0.usage.output_bytes;
    assert!(written <= (300 << 10) + 60_000, "{written}");
    ended.limit(Limit::OutputBytes, 300 << 10);
}

#[tokio::test]
async fn a_flood_of_standard_output_is_kept_to_a_few_kilobytes() {
    let print = format!(
        "(local $out i32) (local $n i32)
         (memory.fill (i32.const 8192) (i32.const 120) (i32.const 4096))
         (local.set $out (call $stdout))
         (loop $again
           (call $write_flush (local.get $out) (i32.const 8192) (i32.const 4096) (i32.const {SCRATCH}))
           (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if $again (i32.lt_u (local.get $n) (i32.const 5000))))
         (unreachable)"
    );
    let guest = Guest::validator()
        .import(imports::CLI)
        .import(imports::STREAMS)
        .heap(16_384)
        .limits(&json!({ "cpu_ms": 10_000, "host_calls": 100_000 }))
        .work(&print);
    // 20 MB were printed; what the trap's message keeps of them is all there is.
    match attack(&guest).await.error() {
        CallError::Trap(message) => assert!(message.starts_with("xxx") && message.len() <= 8 << 10),
        CallError::Limit(exceeded) => assert_eq!(exceeded.limit, Limit::HostCallBytes),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn writing_more_than_a_stream_takes_is_an_error() {
    for code in [
        format!("(call $write_zeroes (call $stdout) (i64.const 1099511627776) (i32.const {SCRATCH}))"),
        format!("(call $write_zeroes (call $stdout) (i64.const -1) (i32.const {SCRATCH}))"),
        format!("(call $write_flush (call $stdout) (i32.const 0) (i32.const 60000) (i32.const {SCRATCH}))"),
    ] {
        let guest = Guest::validator()
            .import(imports::CLI)
            .import(imports::STREAMS)
            .work(&once(&code));
        assert!(matches!(attack(&guest).await.error(), CallError::Trap(_)), "{code}");
    }
}

#[tokio::test]
async fn standard_input_is_empty() {
    // An error (1) of the case closed (1): not a byte of what the server reads.
    let guest = Guest::validator()
        .import(imports::CLI)
        .import(imports::STREAMS)
        .work(&format!(
            "(call $read (call $stdin) (i64.const 65536) (i32.const {SCRATCH}))
             (if (i32.ne (i32.load8_u (i32.const {SCRATCH})) (i32.const 1)) (then (unreachable)))
             (call $splice (call $stdout) (call $stdin) (i64.const -1) (i32.const {SCRATCH}))
             (i32.const 1024)"
        ));
    attack(&guest).await.answer();
}

#[tokio::test]
async fn there_is_no_environment_no_arguments_and_no_folder() {
    let empty = |call: &str| {
        let length = SCRATCH + 4;
        format!("(call {call} (i32.const {SCRATCH})) (if (i32.load (i32.const {length})) (then (unreachable)))")
    };
    let all = ["$environment", "$arguments", "$preopens"].map(empty).concat();
    let guest = Guest::validator().import(imports::SURROUNDINGS).work(&once(&all));
    attack(&guest).await.answer();
}

#[tokio::test]
async fn a_guest_that_exits_ends_only_itself() {
    for status in [0, 1] {
        let guest = Guest::validator()
            .import(imports::CLI)
            .work(&once(&format!("(call $exit (i32.const {status}))")));
        assert!(matches!(attack(&guest).await.error(), CallError::Trap(_)));
    }
}

#[tokio::test]
async fn realloc_may_not_call_the_host() {
    let guest = Guest::validator().import(imports::LOG).realloc(LOG_ONCE);
    let error = attack(&guest).await.error();
    assert!(matches!(error, CallError::Trap(_)), "{error:?}");
}

/// The caller is told of progress on the guest's thread: what it is told is bounded.
#[tokio::test]
async fn a_cancel_from_within_a_host_call_is_heeded() {
    let guest = Guest::validator()
        .import(imports::PROGRESS)
        .limits(&json!({ "cpu_ms": 30_000, "wall_ms": 60_000 }))
        .work(&format!(
            "(call $report (i64.const 1) (i64.const 2) (i32.const 0) (i32.const 4)) {SPIN}"
        ));
    let mut context = CallContext::default();
    let cancel = context.cancel.clone();
    context.progress = Some(std::sync::Arc::new(move |_| cancel.cancel()));
    let error = attack_with(&guest, &json!({}), context).await.error();
    assert_eq!(error, CallError::Cancelled);
}

#[tokio::test]
async fn lines_and_fields_beyond_the_limits_are_cut_not_refused() {
    let field: Vec<u32> = [text(0, "four"), text(0, "four")].concat();
    let guest = Guest::validator()
        .import(imports::LOG)
        .data(8192, &words(&field.repeat(100)))
        .heap(16_384)
        .work(&once(
            "(call $log (i32.const 2) (i32.const 0) (i32.const 8000) (i32.const 8192) (i32.const 100))",
        ));
    attack(&guest).await.answer();
}

//! Snapshots and batches: what one `prepare` left is given to many, and must hold nothing of any of them.

use std::time::{Duration, Instant};

use formwork_engine::{CallContext, EngineOptions, SnapshotError};
use formwork_guests::{Guest, imports};
use formwork_tests::{Arena, call, setup, submission};
use serde_json::{Value, json};

use crate::cpu::SPIN;

/// An engine of its own: in the shared one, snapshots stand in line behind those of guests that sleep.
fn options() -> EngineOptions {
    EngineOptions {
        slots: 2,
        ..EngineOptions::default()
    }
}

/// `prepare` leaves 7 in the memory, a global and a table; the work function traps unless it finds exactly that, then
/// spoils all three.
fn prepared(spoils_a_table: bool) -> Guest {
    let look = "(if (i32.eqz (ref.is_null (table.get $t (i32.const 1)))) (then (unreachable)))";
    // Writing a table is one of the things for which there are no snapshots.
    let spoil = if spoils_a_table {
        "(table.set $t (i32.const 1) (ref.func $realloc))"
    } else {
        ""
    };
    Guest::validator()
        .manifest(&json!({ "name": "prepared" }))
        .limits(&json!({ "memory_mib": 8 }))
        .with("(table $t 4 funcref) (elem declare func $realloc) (global $made (mut i32) (i32.const 0))")
        .prepare(
            "(global.set $made (i32.add (global.get $made) (i32.const 7)))
             (i32.store (i32.const 40000) (i32.add (i32.load (i32.const 40000)) (i32.const 7)))
             (drop (memory.grow (i32.const 20)))
             (i32.store (i32.const 1000000) (i32.const 7))
             (i32.const 1024)",
        )
        .work(&format!(
            "(if (i32.ne (global.get $made) (i32.const 7)) (then (unreachable)))
             (if (i32.ne (i32.load (i32.const 40000)) (i32.const 7)) (then (unreachable)))
             (if (i32.ne (i32.load (i32.const 1000000)) (i32.const 7)) (then (unreachable)))
             (if (i32.ne (i32.load (i32.const 50000)) (i32.const 0)) (then (unreachable)))
             (if (i32.ne (i32.load (i32.const 900000)) (i32.const 0)) (then (unreachable)))
             {look}
             (global.set $made (i32.const 8))
             {spoil}
             (memory.fill (i32.const 30000) (i32.const 165) (i32.const 1200000))
             (i32.const 1024)"
        ))
}

#[tokio::test]
async fn every_call_begins_from_what_prepare_left_and_nothing_else() {
    for (enabled, spoils_a_table) in [(true, false), (true, true), (false, false)] {
        let mut options = options();
        options.snapshots.enabled = enabled;
        let arena = Arena::new(options).await;
        let plugin = arena.plugin(&prepared(spoils_a_table)).await;
        let made = plugin.snapshot(&setup(&json!({}), &Value::Null)).await;
        assert_eq!(made.is_ok(), enabled && !spoils_a_table, "{made:?}");
        for number in 0..10 {
            let report = call(&plugin, &submission(&json!({})), CallContext::default()).await;
            assert!(
                report.result.is_ok(),
                "call {number}, snapshots {enabled}: {:?}",
                report.result
            );
        }
        arena.serves().await;
    }
}

#[tokio::test]
async fn a_prepare_that_does_not_end_well_leaves_no_snapshot() {
    let arena = Arena::new(options()).await;
    // An error's answer: a message at 8 of 4 bytes.
    let error = Guest::validator()
        .data(2048, &formwork_guests::words(&[1, 4, 8, 4]))
        .prepare("(i32.const 2048)");
    for guest in [
        error,
        Guest::validator().prepare("(unreachable)"),
        Guest::validator().prepare(SPIN),
        Guest::validator()
            .prepare("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)"),
    ] {
        let plugin = arena.plugin(&guest).await;
        let made = plugin.snapshot(&setup(&json!({}), &Value::Null)).await;
        assert!(matches!(made, Err(SnapshotError::Prepare(_))), "{made:?}");
        let report = call(&plugin, &submission(&json!({})), CallContext::default()).await;
        assert!(report.result.is_err());
        arena.serves().await;
    }
}

#[tokio::test]
async fn one_setups_snapshot_is_not_anothers() {
    let arena = Arena::new(options()).await;
    // Remembers the length of the settings; answers an error unless the submission is as long.
    let guest = Guest::validator()
        .with("(global $length (mut i32) (i32.const 0))")
        .prepare("(global.set $length (local.get 8)) (i32.const 1024)")
        .work("(if (i32.ne (global.get $length) (local.get 5)) (then (unreachable))) (i32.const 1024)");
    let plugin = arena.plugin(&guest).await;
    for number in [1, 22, 333, 4444] {
        let setup = setup(&json!({}), &json!(number));
        plugin.snapshot(&setup).await.unwrap();
        let report = plugin
            .work(&setup, &submission(&json!(number)), CallContext::default())
            .await;
        assert!(report.result.is_ok(), "{number}: {:?}", report.result);
        let other = plugin
            .work(&setup, &submission(&json!("other")), CallContext::default())
            .await;
        assert_eq!(other.result.unwrap_err().code(), "trap");
    }
    arena.serves().await;
}

#[tokio::test]
async fn a_submission_that_crashes_a_batch_ends_alone() {
    let arena = Arena::shared().await;
    // Traps on a long submission, spins on a longer one.
    let guest = Guest::validator().work(&format!(
        "(if (i32.gt_u (local.get 5) (i32.const 20)) (then {SPIN}))
         (if (i32.gt_u (local.get 5) (i32.const 2)) (then (unreachable))) (i32.const 1024)",
        SPIN = "(loop $again (br $again))"
    ));
    let plugin = arena.plugin(&guest).await;
    let long = "x".repeat(30);
    let batch = [json!({}), json!("long"), json!({}), json!(long), json!({}), json!({})].map(|data| submission(&data));
    let reports = plugin
        .work_batch(&setup(&json!({}), &Value::Null), &batch, &CallContext::default())
        .await;
    let codes = reports
        .iter()
        .map(|report| report.result.as_ref().map_or_else(|error| error.code(), |_| "ok"));
    assert_eq!(codes.collect::<Vec<_>>(), ["ok", "trap", "ok", "limit-cpu", "ok", "ok"]);
    arena.serves().await;
}

/// The limits are those of one submission: what the first used the second may use again, and no more.
#[tokio::test]
async fn each_submission_of_a_batch_has_its_own_limits() {
    let arena = Arena::shared().await;
    let log = "(call $log (i32.const 2) (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0))";
    let guest = Guest::validator()
        .import(imports::LOG)
        .limits(&json!({ "host_calls": 10 }))
        .work(&format!(
            "{} (if (i32.gt_u (local.get 5) (i32.const 2)) (then {log}{log}{log})) (i32.const 1024)",
            log.repeat(8)
        ));
    let plugin = arena.plugin(&guest).await;
    let batch = [json!({}), json!({}), json!("long"), json!({})].map(|data| submission(&data));
    let reports = plugin
        .work_batch(&setup(&json!({}), &Value::Null), &batch, &CallContext::default())
        .await;
    let codes = reports
        .iter()
        .map(|report| report.result.as_ref().map_or_else(|error| error.code(), |_| "ok"));
    assert_eq!(codes.collect::<Vec<_>>(), ["ok", "ok", "limit-host-calls", "ok"]);
    assert_eq!(
        reports.iter().map(|report| report.usage.host_calls).collect::<Vec<_>>(),
        [8, 8, 11, 8]
    );
    arena.serves().await;
}

fn sleeps_in_prepare() -> Guest {
    Guest::validator()
        .manifest(&json!({ "name": "sleeper" }))
        .import(imports::CLOCK)
        .import(imports::POLL)
        .limits(&json!({ "wall_ms": 300_000 }))
        .prepare("(call $block (call $subscribe (i64.const -1))) (i32.const 1024)")
}

/// Snapshots are made one after the other: one that sleeps must not keep the others waiting for five minutes.
#[tokio::test]
async fn a_prepare_that_sleeps_holds_up_the_snapshots_of_others_for_a_moment_only() {
    let arena = Arena::new(options()).await;
    let sleeper = arena.plugin(&sleeps_in_prepare()).await;
    let good = arena.plugin(&prepared(false)).await;
    let setup = setup(&json!({}), &Value::Null);
    let began = Instant::now();
    let (asleep, made) = tokio::join!(biased; sleeper.snapshot(&setup), good.snapshot(&setup));
    assert!(matches!(asleep, Err(SnapshotError::Prepare(_))), "{asleep:?}");
    made.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_engine_stops_while_a_prepare_sleeps() {
    let arena = Arena::new(options()).await;
    let mut guest = sleeps_in_prepare();
    // Enough CPU time to sleep for five minutes.
    guest = guest.limits(&json!({ "cpu_ms": 30_000 }));
    let plugin = arena.plugin(&guest).await;
    let setup = setup(&json!({}), &Value::Null);
    let making = plugin.snapshot(&setup);
    tokio::select! {
        biased;
        made = making => panic!("it does not sleep: {made:?}"),
        () = std::future::ready(()) => {}
    }
    // Time for its thread to take the job up.
    for _ in 0..100 {
        arena.serves().await;
    }
    let (tell, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        drop(plugin);
        drop(arena);
        tell.send(()).unwrap();
    });
    tokio::time::timeout(Duration::from_secs(20), stopped)
        .await
        .expect("the engine waits for a guest that sleeps")
        .unwrap();
}

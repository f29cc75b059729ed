//! Memory and slots go from one call to the next; what was in them must not.

use std::sync::Arc;

use formwork_engine::{CallContext, CallError, EngineOptions, SlotReset};
use formwork_guests::Guest;
use formwork_tests::{Arena, call, submission};
use serde_json::json;

use crate::harness::attack;

const SLOTS: u32 = 4;

/// The mark that a call leaves in all of its memory.
const CANARY: u8 = 0xa5;

fn options(keep_resident_bytes: usize, slot_reset: SlotReset) -> EngineOptions {
    EngineOptions {
        slots: SLOTS,
        keep_resident_bytes,
        slot_reset,
        ..EngineOptions::default()
    }
}

/// Both ways to make a slot clean; where scanning is not safe, `Auto` is the other one too.
const RESETS: [SlotReset; 2] = [SlotReset::Auto, SlotReset::Decommit];

/// Traps when it finds a mark in its memory, its table or its global, then leaves marks in all of them. It looks at the
/// memory a word at a time from where its own data end, then takes more pages and looks at those.
fn canary(name: &str, pages: u32) -> Guest {
    let look = format!(
        "(local $at i32) (local $end i32)
         (if (global.get $mark) (then (unreachable)))
         (global.set $mark (i32.const 1))
         (if (i32.eqz (ref.is_null (table.get $t (i32.const 3)))) (then (unreachable)))
         (table.set $t (i32.const 3) (ref.func $realloc))
         (drop (memory.grow (i32.const {pages})))
         (local.set $at (i32.const 32768))
         (local.set $end (i32.mul (memory.size) (i32.const 65536)))
         (loop $words
           (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (unreachable)))
           (local.set $at (i32.add (local.get $at) (i32.const 8)))
           (br_if $words (i32.lt_u (local.get $at) (local.get $end))))
         (memory.fill (i32.const 32768) (i32.const {CANARY}) (i32.sub (local.get $end) (i32.const 32768)))
         (i32.const 1024)"
    );
    Guest::validator()
        .manifest(&json!({ "name": name }))
        .limits(&json!({ "memory_mib": 16, "cpu_ms": 5_000 }))
        .with("(table $t 8 funcref) (elem declare func $realloc) (global $mark (mut i32) (i32.const 0))")
        .work(&look)
}

/// Small: all of it is zeroed in place. Large: the rest is given back to the kernel.
const SIZES: [u32; 2] = [1, 80];

/// Kept memory per slot: none, some, more than the guests take.
const KEPT: [usize; 3] = [0, 512 << 10, 8 << 20];

#[tokio::test]
async fn no_call_finds_the_mark_of_another() {
    for (kept, reset) in KEPT.into_iter().flat_map(|kept| RESETS.map(|reset| (kept, reset))) {
        let arena = Arena::new(options(kept, reset)).await;
        for pages in SIZES {
            let plugin = arena.plugin(&canary("canary", pages)).await;
            for number in 0..3 * SLOTS {
                let report = call(&plugin, &submission(&json!({})), CallContext::default()).await;
                assert!(
                    report.result.is_ok(),
                    "call {number}, {kept} bytes kept, {reset:?}, {pages} pages: {:?}",
                    report.result
                );
            }
        }
        arena.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_call_finds_the_mark_of_another_among_many_at_once() {
    for reset in RESETS {
        let arena = Arena::new(options(512 << 10, reset)).await;
        let small = arena.plugin(&canary("small", SIZES[0])).await;
        let large = arena.plugin(&canary("large", SIZES[1])).await;
        let gate = Arc::new(tokio::sync::Semaphore::new(SLOTS as usize));
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..8 * SLOTS {
            let plugin = if number % 3 == 0 {
                Arc::clone(&large)
            } else {
                Arc::clone(&small)
            };
            let gate = Arc::clone(&gate);
            calls.spawn(async move {
                let _slot = gate.acquire().await.unwrap();
                call(&plugin, &submission(&json!({})), CallContext::default())
                    .await
                    .result
            });
        }
        while let Some(result) = calls.join_next().await {
            result.unwrap().unwrap();
        }
        arena.serves().await;
    }
}

#[tokio::test]
async fn a_call_that_trapped_leaves_no_mark_either() {
    let arena = Arena::new(options(512 << 10, SlotReset::Auto)).await;
    let dirty = Guest::validator()
        .manifest(&json!({ "name": "dirty" }))
        .limits(&json!({ "memory_mib": 16 }))
        .work(&format!(
            "(drop (memory.grow (i32.const 80)))
             (memory.fill (i32.const 32768) (i32.const {CANARY}) (i32.const 5000000)) (unreachable)"
        ));
    let dirty = arena.plugin(&dirty).await;
    let clean = arena.plugin(&canary("clean", 80)).await;
    for _ in 0..3 * SLOTS {
        let report = call(&dirty, &submission(&json!({})), CallContext::default()).await;
        assert_eq!(report.result.unwrap_err().code(), "trap");
        let report = call(&clean, &submission(&json!({})), CallContext::default()).await;
        assert!(report.result.is_ok(), "{:?}", report.result);
    }
    arena.serves().await;
}

/// The slot of one plugin becomes the other's: neither its code nor its memory may shine through.
#[tokio::test]
async fn two_plugins_alternate_in_one_slot() {
    let arena = Arena::new(EngineOptions {
        slots: 1,
        ..EngineOptions::default()
    })
    .await;
    let one = arena.plugin(&canary("one", 1)).await;
    let two = arena.plugin(&canary("two", 80)).await;
    for _ in 0..8 {
        for plugin in [&one, &two] {
            let report = call(plugin, &submission(&json!({})), CallContext::default()).await;
            assert!(report.result.is_ok(), "{:?}", report.result);
        }
        arena.serves().await;
    }
}

#[tokio::test]
async fn a_plugin_that_trapped_is_called_again() {
    // Traps when the submission is longer than two bytes.
    let guest =
        Guest::validator().work("(if (i32.gt_u (local.get 5) (i32.const 2)) (then (unreachable))) (i32.const 1024)");
    let arena = Arena::shared().await;
    let plugin = arena.plugin(&guest).await;
    for _ in 0..20 {
        let bad = call(&plugin, &submission(&json!({ "long": true })), CallContext::default()).await;
        assert_eq!(bad.result.unwrap_err().code(), "trap");
        let good = call(&plugin, &submission(&json!({})), CallContext::default()).await;
        assert!(good.result.is_ok(), "{:?}", good.result);
    }
    arena.serves().await;
}

#[tokio::test]
async fn a_full_pool_is_an_error_that_can_be_tried_again() {
    let mut options = options(0, SlotReset::Auto);
    options.slots = 2;
    // A snapshot that is being made has a place of its own, which a call can take.
    options.snapshots.enabled = false;
    let arena = Arena::new(options).await;
    let limits = json!({ "cpu_ms": 30_000, "wall_ms": 60_000 });
    let spin = Guest::validator().work(crate::cpu::SPIN).limits(&limits);
    let plugin = arena.plugin(&spin).await;
    let context = CallContext::default();
    let cancel = context.cancel.clone();
    let data = submission(&json!({}));
    let spinning = async {
        tokio::join!(
            call(&plugin, &data, context.clone()),
            call(&plugin, &data, context.clone())
        )
    };
    let ((first, second), third) = tokio::join!(biased; spinning, async {
        // Both slots are taken: the spinning calls were polled before.
        let report = call(&plugin, &data, context.clone()).await;
        cancel.cancel();
        report
    });
    let error = third.result.unwrap_err();
    assert_eq!(error.code(), "host", "{error}");
    assert!(error.retryable(), "{error}");
    for report in [first, second] {
        assert_eq!(report.result.unwrap_err(), CallError::Cancelled);
    }
    arena.serves().await;
}

/// A plugin may have eight memories; as many such calls as there are slots must find room for them.
#[tokio::test]
async fn a_plugin_with_many_memories_does_not_starve_the_others() {
    let arena = Arena::new(EngineOptions {
        slots: 2,
        ..EngineOptions::default()
    })
    .await;
    let guest = (0..7).fold(Guest::validator(), |guest, _| {
        guest.beside("(module (memory 1) (table 1 funcref))")
    });
    let guest = guest
        .limits(&json!({ "cpu_ms": 30_000, "wall_ms": 60_000 }))
        .work(crate::cpu::SPIN);
    let plugin = arena.plugin(&guest).await;
    let context = CallContext::default();
    let cancel = context.cancel.clone();
    let data = submission(&json!({}));
    let (report, ()) = tokio::join!(biased; call(&plugin, &data, context), async {
        arena.serves().await;
        cancel.cancel();
    });
    assert_eq!(report.result.unwrap_err(), CallError::Cancelled);
}

#[tokio::test]
async fn an_engine_serves_on_after_a_hundred_crashes() {
    for _ in 0..5 {
        attack(&Guest::validator().work("(unreachable)"))
            .await
            .traps("unreachable");
    }
    let arena = Arena::shared().await;
    let plugin = arena.plugin(&Guest::validator().work("(unreachable)")).await;
    for _ in 0..100 {
        let report = call(&plugin, &submission(&json!({})), CallContext::default()).await;
        assert_eq!(report.result.unwrap_err().code(), "trap");
    }
    arena.serves().await;
}

/// The control: where memory is shared on purpose, the mark is found.
#[tokio::test]
async fn the_mark_is_found_in_a_batch_which_shares_its_memory() {
    let arena = Arena::new(options(0, SlotReset::Auto)).await;
    for pages in SIZES {
        let plugin = arena.plugin(&canary("canary", pages)).await;
        let batch = [submission(&json!({})), submission(&json!({}))];
        let setup = formwork_tests::setup(&json!({}), &serde_json::Value::Null);
        let reports = plugin.work_batch(&setup, &batch, &CallContext::default()).await;
        assert!(reports[0].result.is_ok(), "{:?}", reports[0].result);
        assert_eq!(reports[1].result.as_ref().unwrap_err().code(), "trap");
    }
}

//! Guests that do not stop by themselves.

use std::time::{Duration, Instant};

use formwork_engine::{CallContext, CallError, Frame, Limit};
use formwork_guests::{Guest, imports};
use formwork_tests::{Arena, setup};
use serde_json::{Value, json};

use crate::harness::{Ended, attack, attack_with, cancelled};

/// Never ends.
pub(crate) const SPIN: &str = "(loop $again (br $again)) (unreachable)";

/// What a test guest may use unless it asks for another amount.
const CPU_MS: u64 = 100;

fn spins_at_start() -> Guest {
    Guest::validator().with("(func $spin (loop $again (br $again))) (start $spin)")
}

fn spins_in_realloc() -> Guest {
    Guest::validator().realloc("(loop $again (br $again))")
}

fn spins_after_returning() -> Guest {
    Guest::validator().post_return("(loop $again (br $again))")
}

#[tokio::test]
async fn an_endless_work_function_ends_at_the_cpu_limit_in_every_kind() {
    for guest in [
        Guest::validator(),
        Guest::classifier(),
        Guest::extractor(),
        Guest::exporter(),
    ] {
        attack(&guest.work(SPIN)).await.limit(Limit::CpuMs, CPU_MS);
    }
}

#[tokio::test]
async fn an_endless_prepare_ends_at_the_cpu_limit() {
    let guest = Guest::validator().prepare(SPIN);
    attack(&guest).await.limit(Limit::CpuMs, CPU_MS);
    let arena = Arena::shared().await;
    let plugin = arena.plugin(&guest).await;
    let report = plugin
        .prepare(&setup(&json!({}), &Value::Null), CallContext::default())
        .await;
    Ended(report).limit(Limit::CpuMs, CPU_MS);
    arena.serves().await;
}

#[tokio::test]
async fn an_endless_export_frame_ends_at_the_cpu_limit() {
    let arena = Arena::shared().await;
    let plugin = arena.plugin(&Guest::exporter().begin(SPIN).end(SPIN)).await;
    for frame in [Frame::Begin, Frame::End] {
        let setup = setup(&json!({}), &Value::Null);
        Ended(plugin.export_frame(&setup, frame, CallContext::default()).await).limit(Limit::CpuMs, CPU_MS);
        arena.serves().await;
    }
}

#[tokio::test]
async fn an_endless_start_function_ends_at_the_cpu_limit() {
    attack(&spins_at_start()).await.limit(Limit::CpuMs, CPU_MS);
}

#[tokio::test]
async fn an_endless_realloc_ends_at_the_cpu_limit() {
    attack(&spins_in_realloc()).await.limit(Limit::CpuMs, CPU_MS);
}

#[tokio::test]
async fn an_endless_post_return_ends_at_the_cpu_limit() {
    attack(&spins_after_returning()).await.limit(Limit::CpuMs, CPU_MS);
}

#[tokio::test]
async fn tail_calls_without_end_end_at_the_cpu_limit() {
    let guest = Guest::validator()
        .with("(func $round (result i32) (return_call $round))")
        .work("(call $round)");
    attack(&guest).await.limit(Limit::CpuMs, CPU_MS);
}

/// Such an instruction runs to its end before the clock is looked at, so the size of the memory bounds the delay.
#[tokio::test]
async fn bulk_memory_instructions_end_at_the_cpu_limit() {
    let fill =
        "(loop $again (memory.fill (i32.const 65536) (i32.const 7) (i32.const 62914560)) (br $again)) (unreachable)";
    let guest = Guest::validator()
        .pages("1000")
        .limits(&json!({ "memory_mib": 64, "cpu_ms": 200 }))
        .work(fill);
    attack(&guest).await.limit(Limit::CpuMs, 200);
}

#[tokio::test]
async fn recursion_ends_at_the_stack_limit() {
    let guest = Guest::validator()
        .with("(func $deep (param i32) (result i32) (call $deep (i32.add (local.get 0) (i32.const 1))))")
        .work("(call $deep (i32.const 0))");
    assert!(matches!(attack(&guest).await.error(), CallError::Limit(limit) if limit.limit == Limit::Stack));
    // Through a table, in `prepare`, with a frame of many locals.
    let guest = Guest::validator()
        .with(&format!(
            "(type $f (func (result i32))) (table 1 funcref) (elem (i32.const 0) $deep)
             (func $deep (type $f) (local {locals})
               (local.set 0 (call_indirect (type $f) (i32.const 0))) (local.get 0))",
            locals = "i32 ".repeat(1_000)
        ))
        .prepare("(call $deep)");
    assert!(matches!(attack(&guest).await.error(), CallError::Limit(limit) if limit.limit == Limit::Stack));
}

#[tokio::test]
async fn a_guest_is_cancelled_wherever_it_spins() {
    for guest in [
        Guest::validator().work(SPIN),
        Guest::validator().prepare(SPIN),
        spins_at_start(),
        spins_in_realloc(),
        spins_after_returning(),
    ] {
        cancelled(&guest).await;
    }
}

#[tokio::test]
async fn a_guest_that_calls_the_host_for_ever_is_cancelled() {
    let storm = "(loop $again (drop (call $now)) (br $again)) (unreachable)";
    cancelled(&Guest::validator().import(imports::CLOCK).work(storm)).await;
}

#[tokio::test]
async fn wall_time_is_limited_apart_from_cpu_time() {
    let guest = Guest::validator()
        .work(SPIN)
        .limits(&json!({ "cpu_ms": 30_000, "wall_ms": 50 }));
    attack(&guest).await.limit(Limit::WallMs, 50);
}

#[tokio::test]
async fn the_callers_deadline_stops_a_guest_with_time_left() {
    let guest = Guest::validator()
        .work(SPIN)
        .limits(&json!({ "cpu_ms": 30_000, "wall_ms": 60_000 }));
    let context = CallContext {
        deadline: Some(Instant::now() + Duration::from_millis(50)),
        ..CallContext::default()
    };
    assert_eq!(
        attack_with(&guest, &json!({}), context).await.error(),
        CallError::DeadlineExceeded
    );
}

/// A call whose caller is gone: its future is dropped in the middle of the guest's run.
#[tokio::test]
async fn a_dropped_call_leaves_nothing_behind() {
    let arena = Arena::new(formwork_engine::EngineOptions {
        slots: 1,
        ..Default::default()
    })
    .await;
    let guest = Guest::validator()
        .work(SPIN)
        .limits(&json!({ "cpu_ms": 30_000, "wall_ms": 60_000 }));
    let plugin = arena.plugin(&guest).await;
    for _ in 0..3 {
        let submission = formwork_tests::submission(&json!({}));
        let running = formwork_tests::call(&plugin, &submission, CallContext::default());
        tokio::select! {
            biased;
            _ = running => panic!("an endless loop ended"),
            () = std::future::ready(()) => {}
        }
        // There is one slot: it must be free again.
        arena.serves().await;
    }
}

#[tokio::test]
async fn a_guest_gives_the_thread_to_others_while_it_spins() {
    let guest = Guest::validator().work(SPIN).limits(&json!({ "cpu_ms": 200 }));
    let done = std::cell::Cell::new(false);
    let (ended, turns) = tokio::join!(
        async {
            let ended = attack(&guest).await;
            done.set(true);
            ended
        },
        async {
            let mut turns = 0_u32;
            while !done.get() {
                turns += 1;
                tokio::task::yield_now().await;
            }
            turns
        }
    );
    ended.limit(Limit::CpuMs, 200);
    // 200 ms in slices of 5 ms; a busy machine makes slices longer, not fewer than some.
    assert!(turns >= 5, "the thread was given away {turns} times");
}

//! Guests that take more memory than they are given, or lie about it to the host.

use formwork_engine::{CallContext, CallError, Limit};
use formwork_guests::Guest;
use serde_json::json;

use crate::harness::{attack, attack_with, refused};

/// What a test guest may use unless it asks for another amount.
const MEMORY_BYTES: u64 = 2 << 20;

/// Grows by a page until that is refused, then gives up as an allocator does.
const GROW: &str = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)";

#[tokio::test]
async fn one_memory_grows_to_the_limit_and_no_further() {
    let ended = attack(&Guest::validator().work(GROW)).await;
    let used = ended.0.usage.memory_bytes;
    assert!(used <= MEMORY_BYTES && used > MEMORY_BYTES - (64 << 10), "{used}");
    ended.limit(Limit::MemoryBytes, MEMORY_BYTES);
    attack(&Guest::validator().prepare(GROW))
        .await
        .limit(Limit::MemoryBytes, MEMORY_BYTES);
}

#[tokio::test]
async fn many_memories_share_the_limit() {
    // Each takes 512 KiB when it starts: together they would be twice the limit.
    let hog = "(module (memory 1) (func $grow
        (if (i32.eq (memory.grow (i32.const 7)) (i32.const -1)) (then (unreachable)))) (start $grow))";
    let guest = (0..7).fold(Guest::validator(), |guest, _| guest.beside(hog));
    attack(&guest).await.limit(Limit::MemoryBytes, MEMORY_BYTES);
    let few = (0..2).fold(Guest::validator(), |guest, _| guest.beside(hog));
    attack(&few).await.answer();
}

#[tokio::test]
async fn memories_that_are_too_large_only_together_are_refused() {
    let guest = (0..4).fold(Guest::validator(), |guest, _| guest.beside("(module (memory 9))"));
    let error = refused(guest.file()).await;
    assert_eq!(error.code(), "plugin-resources", "{error}");
}

#[tokio::test]
async fn tables_count_as_memory() {
    let grow = "(loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))
        (unreachable)";
    let guest = Guest::validator()
        .with("(table $t 0 funcref)")
        .limits(&json!({ "memory_mib": 1 }))
        // 900 KiB of memory leave room for 15,000 elements.
        .pages("14")
        .work(grow);
    attack(&guest).await.limit(Limit::MemoryBytes, 1 << 20);
}

#[tokio::test]
async fn a_table_of_four_thousand_million_elements_is_refused() {
    let error = refused(Guest::validator().with("(table 4294967295 funcref)").file()).await;
    assert_eq!(error.code(), "plugin-invalid", "{error}");
}

#[tokio::test]
async fn forty_tables_are_refused() {
    let hog = "(module (table 1000 funcref))";
    let error = refused((0..40).fold(Guest::validator(), |guest, _| guest.beside(hog)).file()).await;
    assert!(error.to_string().contains("40 tables"), "{error}");
}

#[tokio::test]
async fn ten_thousand_tables_are_refused() {
    let tables = "(table 1 funcref)".repeat(10_000);
    let module = format!("(module {tables})");
    let error = refused(Guest::validator().beside(&module).file()).await;
    assert_eq!(error.code(), "plugin-invalid", "{error}");
}

#[tokio::test]
async fn too_many_memories_are_refused() {
    let guest = (0..8).fold(Guest::validator(), |guest, _| guest.beside("(module (memory 1))"));
    let error = refused(guest.file()).await;
    assert!(error.to_string().contains("9 "), "{error}");
}

#[tokio::test]
async fn an_initial_memory_over_the_limit_is_refused() {
    let error = refused(Guest::validator().pages("600").file()).await;
    assert_eq!(error.code(), "plugin-resources", "{error}");
    assert!(error.to_string().contains("plugin.toml"), "{error}");
}

#[tokio::test]
async fn memories_of_other_kinds_are_refused() {
    for memory in ["i64 1", "1 1 shared"] {
        let module = format!("(module (memory {memory}))");
        let error = refused(Guest::validator().beside(&module).file()).await;
        assert_eq!(error.code(), "plugin-invalid", "{memory}: {error}");
    }
}

#[tokio::test]
async fn a_guest_that_bears_a_refused_growth_goes_on() {
    let guest = Guest::validator().work("(drop (memory.grow (i32.const 64))) (i32.const 1024)");
    attack(&guest).await.answer();
}

#[tokio::test]
async fn a_submission_that_does_not_fit_ends_at_the_memory_limit() {
    let data = json!({ "text": "x".repeat(3 << 20) });
    let ended = attack_with(&Guest::validator(), &data, CallContext::default()).await;
    ended.limit(Limit::MemoryBytes, MEMORY_BYTES);
}

#[tokio::test]
async fn a_realloc_that_answers_nonsense_is_a_trap() {
    for address in ["-16", "65530", "0x7ffffff8"] {
        let guest = Guest::validator().realloc(&format!("(return (i32.const {address}))"));
        attack(&guest).await.traps("realloc");
    }
    // Lists are aligned; strings need not be.
    let guest = Guest::validator().realloc("(return (i32.const 8193))");
    attack(&guest).await.traps("aligned");
}

/// The host writes one string over another; whose memory that is harms only the guest.
#[tokio::test]
async fn a_realloc_that_answers_one_address_for_everything_harms_nobody_else() {
    let guest = Guest::validator().realloc("(return (i32.const 8192))");
    attack(&guest).await.answer();
}

#[tokio::test]
async fn a_data_segment_outside_the_memory_is_a_trap() {
    attack(&Guest::validator().data(70_000, b"x"))
        .await
        .traps("out of bounds");
}

#[tokio::test]
async fn reading_outside_the_memory_is_a_trap() {
    for address in ["65536", "0x7fffffff", "-4"] {
        let guest = Guest::validator().work(&format!("(i32.load (i32.const {address}))"));
        attack(&guest).await.traps("out of bounds");
    }
    let guest = Guest::validator().work("(i32.load offset=4294967295 (i32.const 4))");
    assert!(matches!(attack(&guest).await.error(), CallError::Trap(_)));
}

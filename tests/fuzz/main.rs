//! A bounded, repeatable run of the fuzz targets over their kept corpus. `make fuzz` looks further.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_tests::fuzzing::{Target, bounded, write_seeds};

/// Runs a target; it must have come as far as each of these ends, or it only ever knocked at the door.
fn run(target: Target, changed: u64, expected: &[&str]) {
    let ends = bounded(target, changed);
    println!("{}: {ends:?}", target.name());
    for end in expected {
        assert!(ends.contains_key(end), "no input ended with {end}: {ends:?}");
    }
}

#[test]
fn packages_of_any_bytes_break_no_promise() {
    run(
        Target::Package,
        20_000,
        &["ok", "refused", "plugin-manifest", "plugin-invalid"],
    );
}

#[test]
fn host_calls_in_any_order_break_no_promise() {
    run(
        Target::HostCalls,
        20_000,
        &[
            "ok",
            "trap",
            "limit-host-calls",
            "limit-handles",
            "limit-output",
            "limit-wall",
        ],
    );
}

#[test]
fn answers_of_any_bytes_break_no_promise() {
    run(
        Target::Lifting,
        40_000,
        &["ok", "trap", "internal", "invalid-settings", "bad-answer"],
    );
}

#[test]
fn model_files_of_any_bytes_break_no_promise() {
    run(Target::ModelFile, 40_000, &["ok", "refused", "tensor-elsewhere"]);
}

/// After a target learnt something new: `cargo test --release --workspace --test fuzz -- --ignored`.
#[test]
#[ignore = "writes the corpus"]
fn write_the_seeds() {
    for target in Target::ALL {
        write_seeds(target);
    }
}

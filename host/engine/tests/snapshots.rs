//! Snapshots: what they hold, what they do not, and what becomes of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::sync::Arc;

use formwork_engine::{
    CallContext, CallError, Engine, EngineOptions, FormInput, Plugin, Setup, SnapshotError, SnapshotOptions,
    SnapshotStatus,
};
use formwork_guests::{Guest, OK};
use formwork_inference::{Inference, Options};
use serde_json::json;
use support::{install, submission};

fn engine(options: EngineOptions) -> Engine {
    let inference = Inference::start(Options::default(), Vec::new()).unwrap();
    Engine::new(options, inference).unwrap()
}

async fn plugin(engine: &Engine, guest: &Guest) -> Arc<Plugin> {
    install(engine, guest.file()).await.unwrap()
}

fn setup(version: u32) -> Setup {
    let form = FormInput {
        id: "test".into(),
        version,
        schema: "{}".into(),
        schemas: Vec::new(),
    };
    Setup::new(form, "{}")
}

async fn works(plugin: &Plugin, setup: &Setup) -> Result<(), CallError> {
    let report = plugin.work(setup, &submission(), CallContext::default()).await;
    report.result.map(|_| ())
}

/// Traps unless `condition` holds.
fn check(condition: &str) -> String {
    format!("(if (i32.eqz {condition}) (then (unreachable)))")
}

/// Works only behind `prepare`, which writes byte 3000.
fn guest() -> Guest {
    Guest::validator()
        .prepare(&format!("(i32.store8 (i32.const 3000) (i32.const 7)) {OK}"))
        .work(&format!(
            "{} {OK}",
            check("(i32.eq (i32.load8_u (i32.const 3000)) (i32.const 7))")
        ))
}

#[tokio::test]
async fn prepare_runs_once_for_all_calls_of_a_snapshot() {
    let engine = engine(EngineOptions::default());
    // Takes longer than a call may, unless it has run before: the snapshot is what saves it.
    let spin = "(local $i i32) (loop $again (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $i) (i32.const 20000000))))";
    let guest = Guest::validator()
        .prepare(&format!("{spin} {OK}"))
        .limits(&json!({ "cpu_ms": 2_000 }));
    let plugin = plugin(&engine, &guest).await;
    let setup = setup(1);
    let plain = plugin.work(&setup, &submission(), CallContext::default()).await;
    plugin.snapshot(&setup).await.unwrap();
    let snapshot = plugin.work(&setup, &submission(), CallContext::default()).await;
    assert!(plain.result.is_ok() && snapshot.result.is_ok());
    assert!(
        snapshot.usage.cpu * 5 < plain.usage.cpu,
        "{:?} after {:?}",
        snapshot.usage.cpu,
        plain.usage.cpu
    );
}

#[tokio::test]
async fn every_kind_of_global_and_every_page_is_held() {
    let globals = r#"
        (global $a (mut i32) (i32.const 1)) (global $b (mut i64) (i64.const 2))
        (global $c (mut f32) (f32.const 3)) (global $d (mut f64) (f64.const 4))"#;
    let guest = Guest::validator()
        .limits(&json!({ "memory_mib": 8 }))
        .with(globals)
        .prepare(&format!(
            "(global.set $a (i32.const -5)) (global.set $b (i64.const -6))
             (global.set $c (f32.reinterpret_i32 (i32.const 0x7fa00001))) (global.set $d (f64.reinterpret_i64 (i64.const 0x7ff4000000000001)))
             (if (i32.ne (memory.grow (i32.const 20)) (i32.const 1)) (then (unreachable)))
             (i32.store (i32.const 1376000) (i32.const 99)) {OK}"
        ))
        .work(&format!(
            "{} {} {} {} {} {} {OK}",
            check("(i32.eq (global.get $a) (i32.const -5))"),
            check("(i64.eq (global.get $b) (i64.const -6))"),
            check("(i32.eq (i32.reinterpret_f32 (global.get $c)) (i32.const 0x7fa00001))"),
            check("(i64.eq (i64.reinterpret_f64 (global.get $d)) (i64.const 0x7ff4000000000001))"),
            check("(i32.eq (memory.size) (i32.const 21))"),
            check("(i32.eq (i32.load (i32.const 1376000)) (i32.const 99))"),
        ));
    let engine = engine(EngineOptions::default());
    let plugin = plugin(&engine, &guest).await;
    plugin.snapshot(&setup(1)).await.unwrap();
    works(&plugin, &setup(1)).await.unwrap();
}

#[tokio::test]
async fn data_and_start_function_come_once() {
    // The start function adds to a byte of the data: twice would show, and so would data copied over it again.
    let guest = Guest::validator()
        .data(3000, b"\x05")
        .with(
            "(func $start (i32.store8 (i32.const 3000) (i32.add (i32.load8_u (i32.const 3000)) (i32.const 1)))) (start $start)",
        )
        .work(&format!("{} {OK}", check("(i32.eq (i32.load8_u (i32.const 3000)) (i32.const 6))")));
    let engine = engine(EngineOptions::default());
    let plugin = plugin(&engine, &guest).await;
    assert_eq!(plugin.unsupported_snapshots(), None);
    works(&plugin, &setup(1)).await.unwrap();
    plugin.snapshot(&setup(1)).await.unwrap();
    works(&plugin, &setup(1)).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_snapshotted_says_why_and_works_plainly() {
    let engine = engine(EngineOptions::default());
    let cases = [
        (
            "(table $t 1 funcref) (func $grow (drop (table.grow $t (ref.null func) (i32.const 1))))",
            "table.grow",
        ),
        ("(data $d \"x\") (func $drop (data.drop $d))", "data.drop"),
        (
            "(func $start (unreachable)) (start $start)",
            "its start does not end well",
        ),
    ];
    for (fields, reason) in cases {
        let plugin = plugin(&engine, &guest().with(fields)).await;
        let said = plugin.unsupported_snapshots().unwrap();
        assert!(said.contains(reason), "{said}");
        assert!(matches!(
            plugin.snapshot(&setup(1)).await,
            Err(SnapshotError::Unsupported(_))
        ));
        let starts = !fields.contains("start");
        assert_eq!(works(&plugin, &setup(1)).await.is_ok(), starts, "{reason}");
    }
}

#[tokio::test]
async fn snapshots_outlive_the_engine_and_damaged_ones_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let options = || EngineOptions {
        cache_folder: Some(folder.path().to_owned()),
        ..EngineOptions::default()
    };
    let from_disk = async || {
        let engine = engine(options());
        let plugin = plugin(&engine, &guest()).await;
        let info = plugin.snapshot(&setup(1)).await.unwrap();
        works(&plugin, &setup(1)).await.unwrap();
        info.from_disk
    };
    assert!(!from_disk().await);
    assert!(from_disk().await);
    for code in std::fs::read_dir(folder.path().join("snapshots")).unwrap() {
        for file in std::fs::read_dir(code.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert!(!from_disk().await, "a damaged snapshot was believed");
    assert!(from_disk().await);
    // Another plugin's, or another form's, is never taken.
    let engine = engine(options());
    let other = plugin(&engine, &guest().data(4000, b"other")).await;
    assert!(!other.snapshot(&setup(1)).await.unwrap().from_disk);
    assert!(!other.snapshot(&setup(2)).await.unwrap().from_disk);
}

#[tokio::test]
async fn memory_for_snapshots_is_bounded_and_what_was_not_used_goes_first() {
    let one = {
        let engine = engine(EngineOptions::default());
        let plugin = plugin(&engine, &guest()).await;
        plugin.snapshot(&setup(1)).await.unwrap().bytes
    };
    let engine = engine(EngineOptions {
        snapshots: SnapshotOptions {
            memory_bytes: 3 * one,
            ..SnapshotOptions::default()
        },
        ..EngineOptions::default()
    });
    let plugin = plugin(&engine, &guest()).await;
    plugin.snapshot(&setup(1)).await.unwrap();
    for version in 2..=3 {
        plugin.snapshot(&setup(version)).await.unwrap();
    }
    works(&plugin, &setup(1)).await.unwrap();
    plugin.snapshot(&setup(4)).await.unwrap();
    let ready = |version| matches!(plugin.snapshot_status(&setup(version)), SnapshotStatus::Ready(_));
    assert_eq!([1, 2, 3, 4].map(ready), [true, false, true, true]);
    // It is made again when it is wanted again.
    works(&plugin, &setup(2)).await.unwrap();
    plugin.snapshot(&setup(2)).await.unwrap();
}

#[tokio::test]
async fn switched_off_there_are_none() {
    let engine = engine(EngineOptions {
        snapshots: SnapshotOptions {
            enabled: false,
            ..SnapshotOptions::default()
        },
        ..EngineOptions::default()
    });
    let plugin = plugin(&engine, &guest()).await;
    assert_eq!(plugin.snapshot(&setup(1)).await, Err(SnapshotError::Disabled));
    works(&plugin, &setup(1)).await.unwrap();
}

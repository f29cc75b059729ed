//! What is refused before it can serve, and what the refusal says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::collections::BTreeSet;

use formwork_engine::{Grant, InstallError};
use serde_json::json;
use support::{OK, component, engine, file, install, validator};

async fn refused(file: Vec<u8>) -> InstallError {
    install(&engine(), file).await.unwrap_err()
}

#[tokio::test]
async fn files_that_are_no_plugin_are_told_apart() {
    let cases: [(&[u8], &str); 4] = [
        (b"hello", "not a WebAssembly component"),
        (b"", "not a WebAssembly component"),
        (b"\0asm\x01\0\0\0", "core module"),
        (&component(&validator("", OK, OK)), "no `formwork:manifest` section"),
    ];
    for (bytes, expected) in cases {
        let message = refused(bytes.to_vec()).await.to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn a_damaged_component_is_refused() {
    let good = file(&validator("", OK, OK), &json!({}));
    for at in (8..good.len()).step_by(97) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        // Some bytes do not matter (names); none may crash the host.
        let _either = install(&engine(), bytes).await;
    }
    assert!(matches!(
        refused(good[..good.len() / 2].to_vec()).await,
        InstallError::Manifest(_)
    ));
}

#[tokio::test]
async fn precompiled_code_is_refused() {
    let engine = wasmtime::Engine::default();
    let compiled = engine.precompile_component(&component(&validator("", OK, OK))).unwrap();
    assert!(matches!(refused(compiled).await, InstallError::Manifest(_)));
}

const EMBED: &str = r#"(import "formwork:plugin/embeddings@1.0.0" "embed" (func $embed (param i32 i32 i32 i32 i32)))"#;

#[tokio::test]
async fn an_import_needs_its_grant_in_the_manifest_and_from_the_operator() {
    let module = validator(
        EMBED,
        OK,
        "(call $embed (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1024)) (i32.const 2048)",
    );
    let error = refused(file(&module, &json!({}))).await;
    assert!(
        matches!(
            error,
            InstallError::UndeclaredGrant {
                grant: Grant::Embeddings,
                ..
            }
        ),
        "{error}"
    );
    let asking = file(&module, &json!({ "grants": { "embeddings": "to compare" } }));
    let error = engine().install(asking.clone(), &BTreeSet::new()).await.unwrap_err();
    assert!(error.to_string().contains("guest = [\"embeddings\"]"), "{error}");
    // Granted: the host's refusal (no such model) is a value, so the call ends well.
    let plugin = install(&engine(), asking).await.unwrap();
    let report = support::work(&plugin, Default::default()).await;
    assert!(report.result.is_ok(), "{:?}", report.result);
}

#[tokio::test]
async fn more_memory_than_allowed_is_refused_at_install() {
    let module = validator("", OK, OK).replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 600)");
    let error = refused(file(&module, &json!({}))).await;
    assert!(matches!(error, InstallError::Resources { .. }), "{error}");
}

#[tokio::test]
async fn the_world_must_be_that_of_the_kind() {
    let error = refused(file(&validator("", OK, OK), &json!({ "kind": "classifier" }))).await;
    assert!(matches!(error, InstallError::WrongWorld { .. }), "{error}");
}

#[tokio::test]
async fn self_tests_decide() {
    let test = |expected| {
        json!({ "self_tests": [{ "name": "accepts all", "form": { "schema": {} }, "settings": {}, "data": {},
            "expect": { "output": { "valid": expected } } }] })
    };
    assert!(
        install(&engine(), file(&validator("", OK, OK), &test(true)))
            .await
            .is_ok()
    );
    let error = refused(file(&validator("", OK, OK), &test(false))).await;
    assert!(
        error.to_string().contains("at `/valid`: expected false, found true"),
        "{error}"
    );
}

#[tokio::test]
async fn manifests_with_unknown_or_wrong_keys_are_refused() {
    let bad = [
        (json!({ "limit": {} }), "limit"),
        (json!({ "limits": { "cpu_mss": 1 } }), "cpu_mss"),
        (json!({ "limits": { "cpu_ms": 0 } }), "at least 1"),
        (json!({ "name": "Bad Name" }), "lower-case"),
        (json!({ "contract": "2.0.0" }), "not served"),
        (json!({ "grants": { "network": "x" } }), "network"),
    ];
    for (changes, expected) in bad {
        let text = support::manifest(&changes).to_string();
        let error = formwork_manifest::Manifest::from_json(text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

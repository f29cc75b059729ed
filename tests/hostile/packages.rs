//! Manifests and packages that ask too much, hide something, or cannot be read.

use std::collections::BTreeSet;

use formwork_engine::{Engine, EngineOptions, Grant, InstallError};
use formwork_guests::{Guest, imports, manifest, package};
use formwork_inference::{Inference, Options};
use formwork_manifest::{Manifest, SECTION};
use formwork_tests::Arena;
use serde_json::{Value, json};
use wasm_encoder::{ComponentSection, CustomSection};

use crate::harness::refused;

/// The component with a section that holds these bytes.
fn with_section(component: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut out = component.to_vec();
    let section = CustomSection {
        name: SECTION.into(),
        data: bytes.into(),
    };
    section.append_to_component(&mut out);
    out
}

async fn manifest_refused(bytes: &[u8], expected: &str) {
    let error = refused(with_section(&Guest::validator().component(), bytes)).await;
    assert_eq!(error.code(), "plugin-manifest", "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(
        error.to_string().len() < 2_000,
        "a refusal of {} bytes",
        error.to_string().len()
    );
}

#[tokio::test]
async fn a_manifest_over_its_limit_is_refused_unread() {
    let large = manifest(&json!({ "description": "x".repeat(2 << 20) })).to_string();
    manifest_refused(large.as_bytes(), "more than the limit").await;
}

#[tokio::test]
async fn a_manifest_that_is_no_json_is_refused() {
    let whole = manifest(&json!({})).to_string();
    for bytes in [
        &b""[..],
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        &whole.as_bytes()[..whole.len() - 1],
    ] {
        manifest_refused(bytes, "manifest key").await;
    }
    manifest_refused(format!("{whole} {{}}").as_bytes(), "trailing").await;
}

#[tokio::test]
async fn a_manifest_nested_a_hundred_thousand_deep_is_refused() {
    for open in ["[", r#"{"a":"#] {
        let deep = open.repeat(100_000);
        let text = manifest(&json!({}))
            .to_string()
            .replacen('{', &format!(r#"{{"settings_schema":{deep},"#), 1);
        manifest_refused(text.as_bytes(), "recursion").await;
        manifest_refused(deep.as_bytes(), "manifest key").await;
    }
}

#[tokio::test]
async fn wrong_values_are_refused_with_their_place() {
    for (changes, expected) in [
        (json!({ "limit": {} }), "limit"),
        (json!({ "limits": { "cpu_mss": 1 } }), "cpu_mss"),
        (json!({ "limits": { "cpu_ms": 0 } }), "at least 1"),
        (json!({ "limits": { "cpu_ms": -1 } }), "limits.cpu_ms"),
        (json!({ "limits": { "cpu_ms": 1e30 } }), "limits.cpu_ms"),
        (json!({ "name": "Bad Name" }), "lower-case"),
        (json!({ "name": "" }), "lower-case"),
        (json!({ "name": "../../etc/passwd" }), "lower-case"),
        (json!({ "name": "a".repeat(65) }), "lower-case"),
        (json!({ "version": "1" }), "version"),
        (json!({ "contract": "2.0.0" }), "not served"),
        (json!({ "contract": "1.0.0-rc.1" }), "not served"),
        (json!({ "grants": { "network": "x" } }), "network"),
        (json!({ "grants": { "sink": " " } }), "why"),
        (json!({ "kind": "root" }), "kind"),
        (json!({ "settings_schema": 7 }), "settings_schema"),
        (
            json!({ "self_tests": vec![json!({ "name": "x", "form": { "schema": {} }, "data": {}, "expect": { "output": {} } }); 65] }),
            "at most 64",
        ),
    ] {
        manifest_refused(manifest(&changes).to_string().as_bytes(), expected).await;
    }
    // A refusal shows what it refuses, but not a megabyte of it.
    let long = manifest(&json!({ "name": "A".repeat(900_000) })).to_string();
    manifest_refused(long.as_bytes(), "lower-case").await;
    let long = manifest(&json!({ "kind": "k".repeat(900_000) })).to_string();
    manifest_refused(long.as_bytes(), "kind").await;
}

#[tokio::test]
async fn two_manifests_are_refused() {
    let one = manifest(&json!({})).to_string();
    let file = with_section(&Guest::validator().file(), one.as_bytes());
    let error = refused(file).await;
    assert!(error.to_string().contains("more than one"), "{error}");
}

#[tokio::test]
async fn a_manifest_inside_a_nested_module_or_component_does_not_count() {
    let section = format!(
        r#"(@custom "{SECTION}" "{}")"#,
        manifest(&json!({})).to_string().replace('"', "\\\"")
    );
    for nested in [format!("(core module {section})"), format!("(component {section})")] {
        let error = refused(wat::parse_str(format!("(component {nested})")).unwrap()).await;
        assert!(
            matches!(error, InstallError::Manifest(formwork_manifest::Error::Missing)),
            "{error}"
        );
    }
    // The outer one counts, whatever a nested one says.
    let arena = Arena::shared().await;
    let module = format!("(module {section})");
    let plugin = arena
        .plugin(&Guest::validator().manifest(&json!({ "name": "outer" })).beside(&module))
        .await;
    assert_eq!(plugin.manifest().name, "outer");
}

#[tokio::test]
async fn lengths_that_never_end_or_lie_are_refused() {
    let head = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
    for tail in [
        &[0][..],
        &[0, 0x80],
        &[0, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[1, 0xff, 0xff, 0xff, 0x7f, 0],
        &[4, 8, 0, b'a', b's', b'm', 0x0d, 0, 1, 0],
        &[0x7f, 0],
        &[7, 3, 0xff, 0xff, 0x7f],
    ] {
        let error = refused([&head[..], tail].concat()).await;
        assert!(
            ["plugin-manifest", "plugin-invalid"].contains(&error.code()),
            "{tail:x?}: {error}"
        );
    }
}

#[tokio::test]
async fn everything_a_plugin_may_not_import_is_named_at_once() {
    let guest = Guest::validator().import(imports::FORBIDDEN).import(imports::LOG);
    let InstallError::ForbiddenImports { imports } = refused(guest.file()).await else {
        panic!("not the imports");
    };
    // Sockets are accepted and not there: what is made from Python always imports them.
    for name in ["wasi:http/outgoing-handler", "acme:shell/run"] {
        assert!(
            imports.iter().any(|import| import.starts_with(name)),
            "{name} of {imports:?}"
        );
    }
    assert_eq!(imports.len(), 2, "{imports:?}");
}

#[tokio::test]
async fn a_module_or_component_as_an_import_is_refused() {
    for import in [
        r#"(import "wasi:cli/module" (core module))"#,
        r#"(import "wasi:cli/component" (component))"#,
        r#"(import "formwork:plugin/log@9.9.9" (instance))"#,
        r#"(import "plain" (func))"#,
    ] {
        let component = wat::parse_str(format!("(component {import})")).unwrap();
        let error = refused(package(&component, &json!({}))).await;
        assert!(
            [
                "plugin-forbidden-import",
                "plugin-wrong-world",
                "plugin-resources",
                "plugin-invalid"
            ]
            .contains(&error.code()),
            "{import}: {error}"
        );
    }
}

#[tokio::test]
async fn a_grant_must_be_asked_for_and_be_given() {
    let import = Guest::validator().import(imports::EMBED).work(
        "(call $embed (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048)) (i32.const 1024)",
    );
    let error = refused(import.file()).await;
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
    let asking = import.manifest(&json!({ "grants": { "embeddings": "to compare" } }));
    let inference = Inference::start(Options::default(), Vec::new()).unwrap();
    let engine = Engine::new(
        EngineOptions {
            slots: 1,
            ..EngineOptions::default()
        },
        inference,
    )
    .unwrap();
    let error = engine
        .install(asking.file(), &BTreeSet::from([Grant::Sink]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "plugin-not-granted");
    assert!(error.to_string().contains("guest = [\"embeddings\"]"), "{error}");
    assert!(
        engine
            .install(asking.file(), &BTreeSet::from([Grant::Embeddings]))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn an_interface_of_another_type_is_refused() {
    // The right name, another signature.
    let component = wat::parse_str(
        r#"(component
             (type $log (instance (export "log" (func (param "level" u64)))))
             (import "formwork:plugin/log@1.0.0" (instance (type $log))))"#,
    )
    .unwrap();
    let error = refused(package(&component, &json!({}))).await;
    assert_eq!(error.code(), "plugin-wrong-world", "{error}");
}

#[tokio::test]
async fn the_world_must_be_that_of_the_kind() {
    for kind in ["classifier", "extractor", "exporter"] {
        let error = refused(Guest::validator().manifest(&json!({ "kind": kind })).file()).await;
        assert_eq!(error.code(), "plugin-wrong-world", "{error}");
    }
    let empty = wat::parse_str("(component)").unwrap();
    assert_eq!(refused(package(&empty, &json!({}))).await.code(), "plugin-wrong-world");
}

#[tokio::test]
async fn the_operators_caps_hold_whatever_a_manifest_asks() {
    let most = Value::from(u64::MAX);
    let greedy = json!({ "cpu_ms": most, "wall_ms": most, "memory_mib": most, "output_kib": most, "host_calls": most, "host_call_kib": most,
        "handles": most, "log_kib": most });
    let plugin = Arena::shared().await.plugin(&Guest::validator().limits(&greedy)).await;
    assert_eq!(*plugin.limits(), EngineOptions::default().caps);
}

#[tokio::test]
async fn a_plugin_that_fails_its_own_test_is_refused() {
    let test = json!([{ "name": "spins", "form": { "schema": {} }, "data": {}, "expect": { "output": {} } }]);
    let guest = Guest::validator()
        .work(crate::cpu::SPIN)
        .manifest(&json!({ "self_tests": test }));
    let error = refused(guest.file()).await;
    assert_eq!(error.code(), "plugin-self-test", "{error}");
    assert!(error.to_string().contains("cpu_ms"), "{error}");
}

/// Each test alone would be within the limits of a call; all of them would keep the server from starting.
#[tokio::test]
async fn self_tests_that_take_for_ever_together_are_refused() {
    let test = json!({ "name": "sleeps", "form": { "schema": {} }, "data": {}, "expect": { "output": {} } });
    let sleep = "(call $block (call $subscribe (i64.const 3000000000))) (i32.const 1024)";
    let guest = Guest::validator()
        .import(imports::CLOCK)
        .import(imports::POLL)
        .work(sleep)
        .limits(&json!({ "wall_ms": 30_000 }))
        .manifest(&json!({ "self_tests": vec![test; 64] }));
    let error = refused(guest.file()).await;
    assert_eq!(error.code(), "plugin-self-test", "{error}");
    assert!(error.to_string().contains("deadline"), "{error}");
}

#[tokio::test]
async fn a_manifest_survives_being_written_and_read() {
    let text = manifest(&json!({})).to_string();
    let one = Manifest::from_json(text.as_bytes()).unwrap();
    let file = with_section(&Guest::validator().component(), one.to_json().as_bytes());
    assert_eq!(formwork_manifest::read(&file).unwrap(), one);
}

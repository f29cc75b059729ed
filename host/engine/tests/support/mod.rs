//! Small plugins written as WebAssembly text: no toolchain, and every trick a compiler would not let through.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use formwork_engine::{
    CallContext, Engine, EngineOptions, FormInput, Grant, InstallError, Output, Plugin, Report, Setup, SubmissionInput,
};
use formwork_inference::{Inference, Options};
use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// A validator. `prepare` and `validate` are bodies that leave the address of their result on the stack; address 1024 holds
/// zeros, which reads as `ok` with no findings.
pub(crate) fn validator(extra: &str, prepare: &str, validate: &str) -> String {
    format!(
        r#"(module
          {extra}
          (memory (export "memory") 1)
          (global $heap (mut i32) (i32.const 4096))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.set $heap (i32.add (local.get $at) (local.get 3)))
            (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
              (then (drop (memory.grow (i32.const 16)))))
            (local.get $at))
          (func (export "prepare") (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {prepare})
          (func (export "formwork:plugin/validation@1.0.0#validate")
            (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) {validate}))"#
    )
}

/// Body of a function that answers `ok`.
pub(crate) const OK: &str = "(i32.const 1024)";

/// The manifest of a validator, with changes merged in.
pub(crate) fn manifest(changes: &Value) -> Value {
    let mut manifest = json!({
        "name": "guest", "version": "1.0.0", "kind": "validator", "description": "a test guest",
        "licence": "Apache-2.0", "contract": "1.0.0",
        "limits": { "cpu_ms": 100, "wall_ms": 10_000, "memory_mib": 2, "host_calls": 100 }
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        manifest[key] = value.clone();
    }
    manifest
}

/// A component of the world `validator`, without its manifest.
pub(crate) fn component(module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../wit/1.0.0"))
        .unwrap();
    let world = resolve.select_world(&[package], Some("validator")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap()
}

/// A plugin file.
pub(crate) fn file(module: &str, changes: &Value) -> Vec<u8> {
    let manifest = formwork_manifest::Manifest::from_json(manifest(changes).to_string().as_bytes()).unwrap();
    formwork_manifest::embed(&component(module), &manifest).unwrap()
}

/// An engine whose inference has no models.
pub(crate) fn engine() -> Engine {
    let inference = Inference::start(Options::default(), Vec::new()).unwrap();
    Engine::new(EngineOptions::default(), inference).unwrap()
}

pub(crate) async fn install(engine: &Engine, file: Vec<u8>) -> Result<Arc<Plugin>, InstallError> {
    engine.install(file, &BTreeSet::from(Grant::ALL)).await
}

pub(crate) fn form() -> FormInput {
    FormInput {
        id: "test".into(),
        version: 1,
        schema: "{}".into(),
        schemas: Vec::new(),
    }
}

pub(crate) fn submission() -> SubmissionInput {
    SubmissionInput {
        id: "01J00000000000000000000000".into(),
        submitted_at: "2026-01-01T00:00:00.000Z".into(),
        data: "{}".into(),
        results: Vec::new(),
    }
}

pub(crate) async fn work(plugin: &Plugin, context: CallContext) -> Report<Output> {
    plugin.work(&Setup::new(form(), "{}"), &submission(), context).await
}

/// Installs and calls once.
pub(crate) async fn outcome(module: &str, changes: &Value) -> Report<Output> {
    let engine = engine();
    let plugin = install(&engine, file(module, changes)).await.unwrap();
    work(&plugin, CallContext::default()).await
}

//! Small plugins written as WebAssembly text, and what calling them takes. Those that mean harm are in `tests/hostile`.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::sync::Arc;

use formwork_engine::{
    CallContext, Engine, EngineOptions, FormInput, Grant, InstallError, Kind, Output, Plugin, Report, Setup,
    SubmissionInput,
};
use formwork_guests::Guest;
use formwork_inference::{Inference, Options};
use serde_json::Value;

/// A validator. `extra` stands before its memory; `prepare` and `validate` are bodies that leave the address of their
/// result on the stack.
pub(crate) fn validator(extra: &str, prepare: &str, validate: &str) -> String {
    Guest::validator()
        .import(extra)
        .prepare(prepare)
        .work(validate)
        .module()
}

/// A plugin file.
pub(crate) fn file(module: &str, changes: &Value) -> Vec<u8> {
    formwork_guests::package(&formwork_guests::assemble(Kind::Validator, module), changes)
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

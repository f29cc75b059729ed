//! Plugins in an engine that has the real models, as the set-up fetched them.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::expect_used,
    reason = "a test that cannot be set up should stop with a message"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use formwork_engine::{CallContext, CallError, Engine, EngineOptions, Grant, Plugin, PluginError, Report};
use formwork_inference::{FileSpec, Inference, ModelSpec, ModelTask, Options};
use formwork_tests::{build, setup, submission};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

const GENERATOR_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const ENCODER_SHA256: &str = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6";
const TOKENIZER_SHA256: &str = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037";

/// A file of the cache that `make setup` fills.
fn cached(relative: &str) -> PathBuf {
    let root = std::env::var_os("FORMWORK_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/formwork"),
        PathBuf::from,
    );
    let path = root.join(relative);
    assert!(path.is_file(), "{} is missing: run make setup", path.display());
    path
}

fn file(relative: &str, sha256: &str) -> FileSpec {
    FileSpec {
        path: cached(relative),
        sha256: sha256.to_owned(),
    }
}

/// `encoder` (all-MiniLM-L6-v2).
pub(crate) fn encoder() -> ModelSpec {
    let tokenizer = file("models/all-MiniLM-L6-v2-tokenizer.json", TOKENIZER_SHA256);
    let task = ModelTask::Encoder {
        tokenizer,
        max_tokens: 256,
    };
    let weights = file("models/all-MiniLM-L6-v2-int8.onnx", ENCODER_SHA256);
    ModelSpec::new("encoder", "1", task, weights)
}

/// `generator` (SmolLM2-135M-Instruct).
pub(crate) fn generator() -> ModelSpec {
    let task = ModelTask::Generator {
        context_tokens: 2_048,
        prefix_slots: 2,
    };
    let weights = file("models/SmolLM2-135M-Instruct.Q4_1.gguf", GENERATOR_SHA256);
    ModelSpec::new("generator", "1", task, weights)
}

/// An engine with these models.
pub(crate) fn engine(models: Vec<ModelSpec>) -> Engine {
    engine_and_models(models).0
}

/// The same, and the models themselves.
pub(crate) fn engine_and_models(models: Vec<ModelSpec>) -> (Engine, Inference) {
    let options = Options {
        onnxruntime: cached("lib/libonnxruntime.so"),
        ..Options::default()
    };
    let inference = Inference::start(options, models).expect("the models start");
    let engine = Engine::new(EngineOptions::default(), inference.clone()).expect("the engine starts");
    (engine, inference)
}

/// Builds `name` and installs it with every grant in an engine with these models.
pub(crate) async fn install(name: &str, models: Vec<ModelSpec>) -> Arc<Plugin> {
    let grants = BTreeSet::from(Grant::ALL);
    engine(models)
        .install(build(name), &grants)
        .await
        .unwrap_or_else(|error| panic!("installing {name}: {error}"))
}

/// The one plugin of a test file, installed once.
pub(crate) struct Shared {
    plugin: OnceCell<Arc<Plugin>>,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Shared {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            plugin: OnceCell::const_new(),
            runtime: OnceLock::new(),
        }
    }

    /// The plugin; its background work lives on a runtime that outlasts each test's own.
    pub(crate) async fn plugin(&'static self, name: &'static str, models: fn() -> Vec<ModelSpec>) -> Arc<Plugin> {
        let runtime = self
            .runtime
            .get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime starts"));
        let plugin = self.plugin.get_or_init(|| async move {
            runtime
                .spawn(async move { install(name, models()).await })
                .await
                .expect("the plugin is installed")
        });
        Arc::clone(plugin.await)
    }
}

fn context() -> CallContext {
    CallContext {
        owner: "test".into(),
        ..CallContext::default()
    }
}

/// Runs the work function on a form that takes any object.
pub(crate) async fn work(plugin: &Plugin, settings: &Value, data: &Value) -> Report<formwork_engine::Output> {
    plugin
        .work(
            &setup(&json!({ "type": "object" }), settings),
            &submission(data),
            context(),
        )
        .await
}

/// Its output.
pub(crate) async fn output(plugin: &Plugin, settings: &Value, data: &Value) -> Value {
    work(plugin, settings, data)
        .await
        .result
        .unwrap_or_else(|error| panic!("{data}: {error}"))
        .json
}

/// Why `prepare` refuses these settings.
pub(crate) async fn refusal(plugin: &Plugin, settings: &Value) -> PluginError {
    match plugin
        .prepare(&setup(&json!({ "type": "object" }), settings), context())
        .await
        .result
    {
        Err(CallError::Plugin(error)) => error,
        other => panic!("{settings}: expected a refusal, got {other:?}"),
    }
}

/// Every span must hold exactly its field's content.
pub(crate) fn check_spans(output: &Value, data: &Value) {
    let names: Vec<&str> = output["missing"]
        .as_array()
        .expect("an extraction has the contract's shape")
        .iter()
        .map(|name| name.as_str().expect("an extraction has the contract's shape"))
        .collect();
    for field in output["fields"]
        .as_array()
        .expect("an extraction has the contract's shape")
    {
        let spans = field["spans"]
            .as_array()
            .expect("an extraction has the contract's shape");
        assert!(!spans.is_empty(), "{field}");
        for span in spans {
            let text = data
                .pointer(
                    span["pointer"]
                        .as_str()
                        .expect("an extraction has the contract's shape"),
                )
                .and_then(Value::as_str)
                .expect("an extraction has the contract's shape");
            let (offset, length) = (
                span["offset"].as_u64().expect("an extraction has the contract's shape") as usize,
                span["length"].as_u64().expect("an extraction has the contract's shape") as usize,
            );
            let content: String = text.chars().skip(offset).take(length).collect();
            assert_eq!(field["content"], content, "{field}");
        }
        let confidence = field["confidence"]
            .as_f64()
            .expect("an extraction has the contract's shape");
        assert!((0.0..=1.0).contains(&confidence), "{field}");
        assert!(
            !names.contains(&field["name"].as_str().expect("an extraction has the contract's shape")),
            "found and missing: {field}"
        );
    }
}

/// The value of a field; null when it is missing.
pub(crate) fn value(output: &Value, name: &str) -> Value {
    let fields = output["fields"]
        .as_array()
        .expect("an extraction has the contract's shape");
    fields
        .iter()
        .find(|field| field["name"] == name)
        .map_or(Value::Null, |field| field["value"].clone())
}

/// Extracts from one message, and checks that every span holds exactly its field's content.
pub(crate) async fn extract(plugin: &Plugin, settings: &Value, message: &str) -> Value {
    let data = json!({ "m": message });
    let output = output(plugin, settings, &data).await;
    check_spans(&output, &data);
    output
}

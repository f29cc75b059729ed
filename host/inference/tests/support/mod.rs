//! The real models, and one service shared by the tests of a file.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::expect_used, reason = "a test helper fails the test by panicking")]

use std::path::PathBuf;
use std::sync::OnceLock;

use formwork_inference::{CallContext, FileSpec, GenerationRequest, Inference, ModelSpec, ModelTask, Options};

const GGUF_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const ONNX_SHA256: &str = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6";
const TOKENIZER_SHA256: &str = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037";

pub(crate) fn cached(relative: &str) -> PathBuf {
    let root = std::env::var_os("FORMWORK_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/formwork"),
        PathBuf::from,
    );
    let path = root.join(relative);
    assert!(path.is_file(), "{} is missing: run make setup", path.display());
    path
}

pub(crate) fn gguf() -> FileSpec {
    FileSpec {
        path: cached("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        sha256: GGUF_SHA256.to_owned(),
    }
}

pub(crate) fn onnx() -> FileSpec {
    FileSpec {
        path: cached("models/all-MiniLM-L6-v2-int8.onnx"),
        sha256: ONNX_SHA256.to_owned(),
    }
}

pub(crate) fn tokenizer() -> FileSpec {
    FileSpec {
        path: cached("models/all-MiniLM-L6-v2-tokenizer.json"),
        sha256: TOKENIZER_SHA256.to_owned(),
    }
}

pub(crate) fn spec(name: &str, task: ModelTask, file: FileSpec) -> ModelSpec {
    ModelSpec::new(name, "1", task, file).at_start()
}

pub(crate) fn generator(name: &str) -> ModelSpec {
    spec(
        name,
        ModelTask::Generator {
            context_tokens: 1024,
            prefix_slots: 2,
        },
        gguf(),
    )
}

pub(crate) fn encoder(name: &str) -> ModelSpec {
    spec(
        name,
        ModelTask::Encoder {
            tokenizer: tokenizer(),
            max_tokens: 256,
        },
        onnx(),
    )
}

pub(crate) fn graph(name: &str) -> ModelSpec {
    spec(name, ModelTask::Graph {}, onnx())
}

pub(crate) fn options() -> Options {
    Options {
        onnxruntime: cached("lib/libonnxruntime.so"),
        ..Options::default()
    }
}

/// All three kinds, loaded once per test binary.
pub(crate) fn service() -> &'static Inference {
    static SERVICE: OnceLock<Inference> = OnceLock::new();
    SERVICE.get_or_init(|| {
        Inference::start(options(), vec![generator("smol"), encoder("minilm"), graph("graph")])
            .expect("the models load")
    })
}

pub(crate) fn call() -> CallContext {
    CallContext {
        owner: "test".to_owned(),
        ..CallContext::default()
    }
}

pub(crate) fn ask(prompt: &str, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: prompt.to_owned(),
        max_tokens,
        ..GenerationRequest::default()
    }
}

/// What the model writes.
pub(crate) async fn written(inference: &Inference, model: &str, prompt: &str, max_tokens: u32) -> String {
    let completion = inference.generate(model, ask(prompt, max_tokens), &call()).await;
    let text = completion.expect("it begins").text().await;
    text.expect("it ends")
}

pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The value of a counter in the process's registry; 0 if it does not exist yet.
pub(crate) fn counter(name: &str, labels: &[(&str, &str)]) -> u64 {
    sum(name, labels, |metric| metric.get_counter().get_value())
}

/// The value of a gauge.
pub(crate) fn gauge(name: &str, labels: &[(&str, &str)]) -> u64 {
    sum(name, labels, |metric| metric.get_gauge().get_value())
}

fn sum(name: &str, labels: &[(&str, &str)], value: impl Fn(&prometheus::proto::Metric) -> f64) -> u64 {
    let mut total = 0.0;
    for family in prometheus::gather() {
        if family.name() != name {
            continue;
        }
        for metric in family.get_metric() {
            let matches = labels.iter().all(|(key, value)| {
                metric
                    .get_label()
                    .iter()
                    .any(|label| label.name() == *key && label.value() == *value)
            });
            if matches {
                total += value(metric);
            }
        }
    }
    total as u64
}

/// How often a histogram of a model was told a value.
pub(crate) fn observations(name: &str, model: &str) -> u64 {
    let families = prometheus::gather();
    let metrics = families.iter().filter(|family| family.name() == name);
    let of_model = metrics.flat_map(|family| family.get_metric()).filter(|metric| {
        let mut labels = metric.get_label().iter();
        labels.any(|label| label.name() == "model" && label.value() == model)
    });
    of_model.map(|metric| metric.get_histogram().get_sample_count()).sum()
}

//! Counters and histograms, by model. Labels are declared model names, three kinds of call and the
//! error codes: bounded.

use std::sync::LazyLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

/// Seconds a call waited for its model's worker.
pub(crate) static QUEUE_WAIT: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "formwork_inference_queue_wait_seconds",
        "Time a call waited for its model",
        &["model"],
    )
});
/// Seconds of native work per call.
pub(crate) static RUN: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "formwork_inference_run_seconds",
        "Time a call was worked on",
        &["model"],
    )
});
/// Calls by outcome.
pub(crate) static CALLS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_calls_total",
        "Calls by outcome",
        &["model", "owner", "outcome"],
    )
});
/// Tokens: `prompt` evaluated, `cached` reused, `output` generated, `input` encoded.
pub(crate) static TOKENS: LazyLock<IntCounterVec> =
    LazyLock::new(|| counter("formwork_inference_tokens_total", "Tokens by kind", &["model", "kind"]));
/// Texts embedded, by where the vector came from: `cache` or `model`.
pub(crate) static TEXTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_texts_total",
        "Texts embedded, by source",
        &["model", "source"],
    )
});

fn histogram(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets = vec![
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ];
    match HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels) {
        Ok(metric) => {
            if let Err(error) = prometheus::register(Box::new(metric.clone())) {
                tracing::warn!(name, %error, "metric is not exported");
            }
            metric
        }
        Err(error) => panic!("metric {name} is malformed: {error}"),
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    match IntCounterVec::new(Opts::new(name, help), labels) {
        Ok(metric) => {
            if let Err(error) = prometheus::register(Box::new(metric.clone())) {
                tracing::warn!(name, %error, "metric is not exported");
            }
            metric
        }
        Err(error) => panic!("metric {name} is malformed: {error}"),
    }
}

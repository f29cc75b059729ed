//! Counters and histograms, by model. Labels are declared model names, the pools, the error codes and a bounded number of
//! forms.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{CounterVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::limits;

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
/// Tokens: `prompt` evaluated, `cached` reused, `output` generated, `input` encoded, `padding` encoded for nothing.
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

/// Texts in one run of an encoder.
pub(crate) static BATCH_TEXTS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let opts = HistogramOpts::new("formwork_inference_batch_texts", "Texts in one run of an encoder")
        .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
    registered("formwork_inference_batch_texts", HistogramVec::new(opts, &["model"]))
});
/// Bytes of the embedding cache.
pub(crate) static CACHE_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    let name = "formwork_inference_embedding_cache_bytes";
    registered(name, IntGauge::new(name, "Bytes of kept embeddings"))
});
/// Calls that a model has accepted and not answered.
pub(crate) static IN_USE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "formwork_inference_calls_in_progress",
        "Calls a model has accepted and not answered",
    )
});
/// Calls that wait until their model is loaded.
pub(crate) static WAITING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "formwork_inference_load_waiters",
        "Calls that wait until their model is loaded",
    )
});
/// 1 while a model is loaded.
pub(crate) static LOADED: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauge("formwork_inference_model_loaded", "1 while the model is loaded"));
/// Bytes that a loaded model is reckoned with.
pub(crate) static RESIDENT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge(
        "formwork_inference_resident_bytes",
        "Memory a loaded model is reckoned with, bytes",
    )
});
/// Bytes that all models may take.
pub(crate) static BUDGET: LazyLock<IntGauge> = LazyLock::new(|| {
    let name = "formwork_inference_memory_budget_bytes";
    registered(name, IntGauge::new(name, "Memory that loaded models may take, bytes"))
});
/// Seconds a load took, checksum and warm-up included.
pub(crate) static LOAD: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "formwork_inference_load_seconds",
        "Time to load a model, checksum and warm-up included",
        &["model"],
    )
});
/// Loads by outcome: `ok` or an error code.
pub(crate) static LOADS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_loads_total",
        "Loads by outcome",
        &["model", "outcome"],
    )
});
/// Loaded models that were freed: for `budget`, because `idle`, on `request`, because `broken`.
pub(crate) static EVICTIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_evictions_total",
        "Loaded models that were freed, by reason",
        &["model", "reason"],
    )
});
/// Calls by form.
static FORM_CALLS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_form_calls_total",
        "Calls by form and outcome; forms beyond a number are `other`",
        &["form", "model", "outcome"],
    )
});
/// Seconds that calls of a form took, waiting included.
static FORM_SECONDS: LazyLock<CounterVec> = LazyLock::new(|| {
    let name = "formwork_inference_form_seconds_total";
    let opts = Opts::new(name, "Time that calls of a form took, waiting included, seconds");
    registered(name, CounterVec::new(opts, &["form", "model"]))
});

/// The forms that have labels of their own.
static FORMS: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(Mutex::default);

/// Counts a call for a form; without one, nothing is counted.
pub(crate) fn form_call(form: Option<&str>, model: &str, outcome: &str, took: Duration) {
    let Some(form) = form else { return };
    let known = {
        let mut forms = FORMS.lock().unwrap_or_else(PoisonError::into_inner);
        forms.contains(form) || (forms.len() < limits::FORM_LABELS && forms.insert(form.to_owned()))
    };
    let form = if known { form } else { "other" };
    FORM_CALLS.with_label_values(&[form, model, outcome]).inc();
    FORM_SECONDS
        .with_label_values(&[form, model])
        .inc_by(took.as_secs_f64());
}

/// The metric, known to the process's registry.
fn registered<M: Collector + Clone + 'static>(name: &str, metric: prometheus::Result<M>) -> M {
    match metric {
        Ok(metric) => {
            if let Err(error) = prometheus::register(Box::new(metric.clone())) {
                tracing::warn!(name, %error, "metric is not exported");
            }
            metric
        }
        Err(error) => panic!("metric {name} is malformed: {error}"),
    }
}

/// A histogram of seconds.
pub(crate) fn histogram(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let seconds = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ];
    histogram_of(name, help, labels, &seconds)
}

pub(crate) fn histogram_of(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(name, HistogramVec::new(options, labels))
}

pub(crate) fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(name, IntCounterVec::new(Opts::new(name, help), labels))
}

/// A gauge of each model.
fn gauge(name: &str, help: &str) -> IntGaugeVec {
    gauge_of(name, help, &["model"])
}

pub(crate) fn gauge_of(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(name, IntGaugeVec::new(Opts::new(name, help), labels))
}

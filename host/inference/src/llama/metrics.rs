//! What a generator tells about itself. Labels are declared model names, the callers' pools and words
//! from this crate: bounded.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::metrics::{counter, gauge_of, histogram, histogram_of};

/// Seconds from being asked to the first piece of text, waiting included.
pub(crate) static FIRST_TOKEN: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "formwork_inference_first_token_seconds",
        "Time from the call to its first token, waiting included",
        &["model", "owner"],
    )
});
/// Tokens a second from the first to the last token of a text.
pub(crate) static SPEED: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram_of(
        "formwork_inference_tokens_per_second",
        "Tokens a second of a text after its first token",
        &["model", "owner"],
        &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 150.0, 200.0, 300.0, 500.0],
    )
});
/// Tokens the model drew first that a grammar refused.
pub(crate) static FALLBACKS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_grammar_refusals_total",
        "Drawn tokens that the grammar refused",
        &["model"],
    )
});
/// Grammars by where they came from: `compiled` or `reused`.
pub(crate) static GRAMMARS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_grammars_total",
        "Grammars of constrained generations, by source",
        &["model", "source"],
    )
});
/// Prompts by where their evaluated beginning came from: `sequence`, `memory`, `disk` or `none`.
pub(crate) static PREFIXES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counter(
        "formwork_inference_prefixes_total",
        "Prompts by where their evaluated beginning came from",
        &["model", "source"],
    )
});
/// Bytes of evaluated prefixes kept in memory.
pub(crate) static PREFIX_BYTES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge_of(
        "formwork_inference_prefix_bytes",
        "Bytes of evaluated prefixes kept in memory",
        &["model"],
    )
});
/// Generations by what they are doing: `waiting`, `running` or `set_aside`.
pub(crate) static GENERATIONS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauge_of(
        "formwork_inference_generations",
        "Generations by state",
        &["model", "state"],
    )
});

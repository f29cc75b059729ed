//! What `/metrics` shows of the engine.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

/// Seconds of a call, by plugin; from 10 microseconds.
pub(crate) static CALL_SECONDS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| {
    let buckets = prometheus::exponential_buckets(10e-6, 4.0, 12).ok()?;
    registered(HistogramVec::new(
        HistogramOpts::new(
            "formwork_plugin_call_seconds",
            "time of one plugin call, from fresh store to answer",
        )
        .buckets(buckets),
        &["plugin"],
    ))
});

/// Calls by plugin and outcome code.
pub(crate) static CALLS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_plugin_calls_total",
            "plugin calls by outcome: ok or an error code",
        ),
        &["plugin", "outcome"],
    ))
});

/// Guest CPU by plugin.
pub(crate) static CPU_MICROSECONDS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_plugin_cpu_microseconds_total",
            "guest CPU time, inference on the host's side excluded",
        ),
        &["plugin"],
    ))
});

fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> Option<M> {
    let metric = metric.ok()?;
    prometheus::register(Box::new(metric.clone())).ok()?;
    Some(metric)
}

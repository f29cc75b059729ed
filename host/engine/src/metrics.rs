//! What `/metrics` shows of the engine.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::Report;

/// Seconds of a call, by plugin; from 10 microseconds.
static CALL_SECONDS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| {
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
static CALLS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_plugin_calls_total",
            "plugin calls by outcome: ok or an error code",
        ),
        &["plugin", "outcome"],
    ))
});

/// Guest CPU by plugin.
static CPU_MICROSECONDS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_plugin_cpu_microseconds_total",
            "guest CPU time, inference on the host's side excluded",
        ),
        &["plugin"],
    ))
});

static SNAPSHOTS: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    registered(IntGauge::new(
        "formwork_snapshots",
        "snapshots ready in memory, one a plugin version and form version's step",
    ))
});

static SNAPSHOT_BYTES: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    registered(IntGauge::new(
        "formwork_snapshot_bytes",
        "bytes of the snapshots ready in memory",
    ))
});

/// By what became of the request: `taken`, `loaded` (from disk), `failed`.
static SNAPSHOTS_MADE: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_snapshots_made_total",
            "snapshots made: taken, loaded or failed",
        ),
        &["how"],
    ))
});

static SNAPSHOT_SECONDS: LazyLock<Option<Histogram>> = LazyLock::new(|| {
    let buckets = prometheus::exponential_buckets(1e-3, 2.0, 12).ok()?;
    registered(Histogram::with_opts(
        HistogramOpts::new("formwork_snapshot_seconds", "time of making one snapshot").buckets(buckets),
    ))
});

static SNAPSHOTS_EVICTED: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    registered(IntCounter::new(
        "formwork_snapshots_evicted_total",
        "snapshots dropped from memory to stay within engine.snapshots.memory_bytes",
    ))
});

static SLOT_RESET: LazyLock<Option<IntGaugeVec>> = LazyLock::new(|| {
    registered(IntGaugeVec::new(
        Opts::new(
            "formwork_slot_reset",
            "1 for the way slots are made clean between calls",
        ),
        &["mode"],
    ))
});

/// Ends of an epoch at which a guest gave its thread away, by the pool that called.
static EPOCH_YIELDS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_epoch_yields_total",
            "ends of an epoch at which a guest gave its thread away, by calling pool",
        ),
        &["pool"],
    ))
});

pub(crate) fn epoch_yields(pool: &str) {
    if let Some(yields) = &*EPOCH_YIELDS {
        yields.with_label_values(&[pool]).inc();
    }
}

pub(crate) fn snapshot_made(from_disk: bool, took: Duration) {
    if let Some(made) = &*SNAPSHOTS_MADE {
        made.with_label_values(&[if from_disk { "loaded" } else { "taken" }])
            .inc();
    }
    if let Some(seconds) = &*SNAPSHOT_SECONDS {
        seconds.observe(took.as_secs_f64());
    }
}

pub(crate) fn snapshot_failed() {
    if let Some(made) = &*SNAPSHOTS_MADE {
        made.with_label_values(&["failed"]).inc();
    }
}

pub(crate) fn snapshot_evicted() {
    if let Some(evicted) = &*SNAPSHOTS_EVICTED {
        evicted.inc();
    }
}

pub(crate) fn snapshots(count: usize, bytes: usize) {
    if let (Some(gauge), Some(byte_gauge)) = (&*SNAPSHOTS, &*SNAPSHOT_BYTES) {
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        byte_gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

pub(crate) fn slot_reset(mode: &str) {
    if let Some(gauge) = &*SLOT_RESET {
        gauge.reset();
        gauge.with_label_values(&[mode]).set(1);
    }
}

/// The metrics of one plugin, found once: a lookup by label for every call would cost a microsecond.
pub(crate) struct PluginMetrics {
    name: String,
    seconds: Option<Histogram>,
    ok: Option<IntCounter>,
    cpu_microseconds: Option<IntCounter>,
}

impl PluginMetrics {
    pub(crate) fn of(plugin: &str) -> Self {
        Self {
            name: plugin.to_owned(),
            seconds: CALL_SECONDS.as_ref().map(|metric| metric.with_label_values(&[plugin])),
            ok: CALLS.as_ref().map(|metric| metric.with_label_values(&[plugin, "ok"])),
            cpu_microseconds: CPU_MICROSECONDS
                .as_ref()
                .map(|metric| metric.with_label_values(&[plugin])),
        }
    }

    pub(crate) fn observe<T>(&self, report: &Report<T>) {
        match &report.result {
            Ok(_) => {
                if let Some(ok) = &self.ok {
                    ok.inc();
                }
            }
            Err(error) => {
                if let Some(calls) = &*CALLS {
                    calls.with_label_values(&[self.name.as_str(), error.code()]).inc();
                }
            }
        }
        if let Some(seconds) = &self.seconds {
            seconds.observe(report.usage.wall.as_secs_f64());
        }
        if let Some(cpu) = &self.cpu_microseconds {
            cpu.inc_by(u64::try_from(report.usage.cpu.as_micros()).unwrap_or(u64::MAX));
        }
    }
}

fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> Option<M> {
    let metric = metric.ok()?;
    prometheus::register(Box::new(metric.clone())).ok()?;
    Some(metric)
}

//! What the store tells operators.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, core::Collector};
use std::sync::LazyLock;

/// From `BEGIN` to the end of `COMMIT`, the fsync included.
pub(crate) static COMMIT_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "formwork_store_commit_seconds",
        "time of one group commit in seconds, fsync included",
        vec![
            0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 4.0,
        ],
    )
});

/// How many writes share one commit.
pub(crate) static GROUP_WRITES: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "formwork_store_group_writes",
        "writes that shared one commit",
        vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
    )
});

/// Writes by outcome: `ok`, `error` (one write refused), `lost` (its whole group was not committed).
pub(crate) static WRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new("formwork_store_writes_total", "writes by outcome"),
        &["outcome"],
    ))
});

/// Bytes in the write-ahead log that are not in the database file yet.
pub(crate) static WAL_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    registered(IntGauge::new(
        "formwork_store_wal_bytes",
        "bytes in the write-ahead log after the latest commit",
    ))
});

/// Transactions that were run again because of a conflict or a passing error.
pub(crate) static TRANSACTION_RETRIES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_store_transaction_retries_total",
            "transactions run again after a conflict or a passing error, by operation",
        ),
        &["operation"],
    ))
});

/// How many transactions this node may have under way now.
pub(crate) static TRANSACTION_PLACES: LazyLock<IntGauge> = LazyLock::new(|| {
    registered(IntGauge::new(
        "formwork_store_transaction_places",
        "transactions this node may have under way at a time, fewer while mongodb is slow",
    ))
});

/// 1 while the dispatch index can be used.
pub(crate) static INDEX_UP: LazyLock<IntGauge> = LazyLock::new(|| {
    registered(IntGauge::new(
        "formwork_store_index_up",
        "1 while the dispatch index in redis can be used, 0 while tasks are claimed from mongodb directly",
    ))
});

/// Tasks that the dispatch index had lost and got back.
pub(crate) static INDEX_REPAIRED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_store_index_repaired_total",
            "tasks the dispatch index did not know and was told again, by pool",
        ),
        &["pool"],
    ))
});

/// 1 once the store has stopped after an I/O error.
pub(crate) static FATAL: LazyLock<IntGauge> = LazyLock::new(|| {
    registered(IntGauge::new(
        "formwork_store_fatal",
        "1 once the store has stopped acknowledging after an i/o error",
    ))
});

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are constants, any test that writes proves them"
)]
fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("metric is well formed");
    prometheus::register(Box::new(metric.clone())).expect("metric is registered once");
    metric
}

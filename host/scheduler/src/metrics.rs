//! What the scheduler tells operators. Labels are the three pools and fixed outcome words.

use formwork_tasks::Pool;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, core::Collector,
};
use std::sync::LazyLock;

/// From the time a task could run to its start.
pub(crate) static WAIT_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "formwork_scheduler_wait_seconds",
        "time from runnable to started in seconds, by pool",
        vec![
            0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0,
            60.0, 300.0, 1_800.0,
        ],
    )
});

/// From a run's start to its end, without the recording.
pub(crate) static RUN_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    histogram(
        "formwork_scheduler_run_seconds",
        "time from started to ended in seconds, by pool",
        vec![
            0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0,
        ],
    )
});

/// Runs by what was recorded: `completed, rejected, retry, dead, cancelled, released`; or not: `stale` (the fence
/// refused or the lease was lost), `unrecorded` (the store failed; the lease ends and the task comes back).
pub(crate) static OUTCOMES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new("formwork_scheduler_runs_total", "ended runs by pool and outcome"),
        &["pool", "outcome"],
    ))
});

/// Runs that went over their soft time limit.
pub(crate) static SOFT_LIMITS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_scheduler_soft_limits_total",
            "runs that went over their soft time limit, by pool",
        ),
        &["pool"],
    ))
});

/// Permits taken.
pub(crate) static PERMITS_IN_USE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    registered(IntGaugeVec::new(
        Opts::new(
            "formwork_scheduler_permits_in_use",
            "tasks claimed and not yet recorded, by pool",
        ),
        &["pool"],
    ))
});

/// Share of time in which the threads had something to do.
pub(crate) static BUSY_RATIO: LazyLock<GaugeVec> = LazyLock::new(|| {
    registered(GaugeVec::new(
        Opts::new(
            "formwork_scheduler_busy_ratio",
            "share of the last second in which a pool's threads were busy",
        ),
        &["pool"],
    ))
});

/// CPU time of the threads, and of native inference for them.
pub(crate) static CPU_SECONDS: LazyLock<CounterVec> = LazyLock::new(|| {
    registered(CounterVec::new(
        Opts::new(
            "formwork_scheduler_cpu_seconds_total",
            "CPU time of a pool in seconds: its threads and native inference on its behalf",
        ),
        &["pool"],
    ))
});

/// CPU time of native inference.
pub(crate) static NATIVE_CPU_SECONDS: LazyLock<CounterVec> = LazyLock::new(|| {
    registered(CounterVec::new(
        Opts::new(
            "formwork_scheduler_native_cpu_seconds_total",
            "CPU time of native inference on a pool's behalf in seconds, part of formwork_scheduler_cpu_seconds_total",
        ),
        &["pool"],
    ))
});

/// What a pool may use.
pub(crate) static CPU_RATE: LazyLock<GaugeVec> = LazyLock::new(|| {
    registered(GaugeVec::new(
        Opts::new(
            "formwork_scheduler_cpu_rate",
            "CPUs a pool may use now, its limit and what it got of the overflow; absent without a limit",
        ),
        &["pool"],
    ))
});

/// Waiting for CPU credit.
pub(crate) static PARKED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    registered(IntGaugeVec::new(
        Opts::new(
            "formwork_scheduler_parked",
            "guests that wait because their pool has used up its CPU budget",
        ),
        &["pool"],
    ))
});

/// Time spent so.
pub(crate) static PARKED_SECONDS: LazyLock<CounterVec> = LazyLock::new(|| {
    registered(CounterVec::new(
        Opts::new(
            "formwork_scheduler_parked_seconds_total",
            "time guests and generations waited for CPU credit in seconds, added up over them",
        ),
        &["pool"],
    ))
});

/// Periods in which the kernel's quota stopped threads.
pub(crate) static THROTTLED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_scheduler_cgroup_throttled_total",
            "periods in which the kernel stopped a pool's threads (nr_throttled of its cgroup); absent without a cgroup",
        ),
        &["pool"],
    ))
});

/// How limits are enforced: `none` (the pool has no limit), `budget`, `cgroup-v1`, `cgroup-v2`.
pub(crate) static ENFORCEMENT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    registered(IntGaugeVec::new(
        Opts::new(
            "formwork_scheduler_cpu_enforcement",
            "1 for the way a pool's CPU limit is enforced: none, budget, cgroup-v1 or cgroup-v2",
        ),
        &["pool", "mode"],
    ))
});

/// Permits there are.
pub(crate) static PERMITS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    registered(IntGaugeVec::new(
        Opts::new(
            "formwork_scheduler_permits",
            "tasks that may be claimed at once, by pool",
        ),
        &["pool"],
    ))
});

/// Time in which all of them were taken.
pub(crate) static PERMIT_WAIT_SECONDS: LazyLock<CounterVec> = LazyLock::new(|| {
    registered(CounterVec::new(
        Opts::new(
            "formwork_scheduler_permit_wait_seconds_total",
            "time in which all permits of a pool were taken, in seconds",
        ),
        &["pool"],
    ))
});

/// Calls from outside the queue that were refused because the inbox was full.
pub(crate) static INBOX_FULL: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_scheduler_inbox_full_total",
            "calls refused because a pool's inbox was full",
        ),
        &["pool"],
    ))
});

/// Tasks of vanished workers: `recovered, dead, cancelled`.
pub(crate) static REAPED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    registered(IntCounterVec::new(
        Opts::new(
            "formwork_scheduler_reaped_total",
            "tasks whose lease had ended, by pool and what became of them",
        ),
        &["pool", "outcome"],
    ))
});

/// Heartbeats that did not reach the store.
pub(crate) static HEARTBEATS_FAILED: LazyLock<IntCounter> = LazyLock::new(|| {
    registered(IntCounter::new(
        "formwork_scheduler_heartbeats_failed_total",
        "heartbeats the store did not take",
    ))
});

/// Shows 0 for what has not happened yet: an alert on something that is not there never fires.
pub(crate) fn appear(pool: Pool) {
    let pool = pool.as_str();
    for outcome in [
        "completed",
        "rejected",
        "retry",
        "dead",
        "cancelled",
        "released",
        "stale",
        "unrecorded",
    ] {
        OUTCOMES.with_label_values(&[pool, outcome]);
    }
    for outcome in ["recovered", "dead", "cancelled"] {
        REAPED.with_label_values(&[pool, outcome]);
    }
    for counter in [&SOFT_LIMITS, &INBOX_FULL] {
        counter.with_label_values(&[pool]);
    }
    for histogram in [&WAIT_SECONDS, &RUN_SECONDS] {
        histogram.with_label_values(&[pool]);
    }
    LazyLock::force(&HEARTBEATS_FAILED);
}

fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> HistogramVec {
    registered(HistogramVec::new(
        HistogramOpts::new(name, help).buckets(buckets),
        &["pool"],
    ))
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are constants, any test that runs a task proves them"
)]
fn registered<M: Collector + Clone + 'static>(metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("metric is well formed");
    prometheus::register(Box::new(metric.clone())).expect("metric is registered once");
    metric
}

//! Every limit of the scheduler that is not an option, in one place.

use std::time::Duration;

/// Threads one pool may have.
pub const POOL_THREADS: usize = 256;

/// Permits one pool may have.
pub const POOL_PERMITS: u32 = 4_096;

/// The longest wait between two runs that an operator may allow steps to ask for: thirty days.
pub const STEP_CAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Heartbeats a lease must have room for: one may be late or fail without losing the task.
pub const HEARTBEATS_PER_LEASE: u64 = 2;

/// The shortest sleep of a dispatcher that waits for a retry to come due: bounds the claims a second when the store's
/// clock is behind ours.
pub const DUE_WAIT_LEAST: Duration = Duration::from_millis(5);

/// How often what operators have set for the pools is looked at: a change on another node is seen within this.
pub const CONTROLS_EVERY: Duration = Duration::from_secs(1);

/// The first wait after a claim or a recovery failed.
pub const STORE_BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// The longest wait after a claim or a recovery failed.
pub const STORE_BACKOFF_LONGEST: Duration = Duration::from_secs(5);

/// The first wait after a result could not be recorded.
pub const RECORD_BACKOFF_FIRST: Duration = Duration::from_millis(50);

/// The longest wait after a result could not be recorded.
pub const RECORD_BACKOFF_LONGEST: Duration = Duration::from_secs(2);

/// How long a drain waits, after its grace and the grace of stopped runs, for the store to take the leases back.
pub const DRAIN_RELEASE: Duration = Duration::from_secs(5);

/// How often progress alone makes a heartbeat come early: often enough for somebody who watches, one write a second at
/// most however much the plugins tell.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// CPU time a pool may save up while it uses less than its rate, as time at that rate. A tenth of a second: enough for the
/// steps in which CPU is used (an epoch, a token), too little to be seen as a burst.
pub const BUDGET_SAVED: Duration = Duration::from_millis(100);

/// The shortest wait for credit: what tokio's timers can tell apart.
pub const BUDGET_WAIT_LEAST: Duration = Duration::from_millis(1);

/// How often the overflow is shared out anew among pools that burst: a pool that bursts gives CPU back within this time.
/// The kernel counts a machine's use in ticks of 10 ms; ten of them make a share.
pub const OVERFLOW_LOOK: Duration = Duration::from_millis(100);

/// The smallest CPU limit of a pool: a thousandth of a CPU is a millisecond a second, less than an epoch.
pub const CPUS_LEAST: f64 = 0.01;

/// The largest CPU limit of a pool.
pub const CPUS_MOST: f64 = 1_024.0;

/// The weight at which cgroups see the usual share.
pub const WEIGHT_DEFAULT: u32 = 100;

/// The largest weight, that of cgroup v2.
pub const WEIGHT_MOST: u32 = 10_000;

/// The period of a kernel quota: the kernel's own default.
pub const CGROUP_PERIOD: Duration = Duration::from_millis(100);

/// The smallest quota the kernel takes, in microseconds.
pub const CGROUP_QUOTA_LEAST_US: u64 = 1_000;

/// The share of a pool's hard limit after which inference is refused, in percent, when no soft limit is set: of the five
/// minutes of `batched`, thirty seconds are left to answer by rules.
pub const SOFT_LIMIT_PERCENT: u64 = 90;

/// How often the use of CPU and threads is measured.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Niceness of the threads of pool `default`: validation, which somebody waits for, goes first.
pub const NICE_DEFAULT: i32 = 5;

/// Niceness of the threads of pool `batched`, together with `SCHED_BATCH`: takes what nobody else wants.
pub const NICE_BATCHED: i32 = 19;

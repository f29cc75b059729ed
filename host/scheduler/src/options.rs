//! What an operator may set.

use crate::limits;
use formwork_tasks::{Pool, RetryPolicy};
use serde::{Deserialize, Deserializer, Serialize};
use std::{num::NonZeroUsize, time::Duration};

/// How the scheduler works. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerOptions {
    /// Validation: short, somebody is waiting.
    #[serde(deserialize_with = "high")]
    pub high: PoolOptions,
    /// Rules and exports.
    #[serde(deserialize_with = "default")]
    pub default: PoolOptions,
    /// Native inference.
    #[serde(deserialize_with = "batched")]
    pub batched: PoolOptions,
    /// How long a claimed task stays ours without a heartbeat. 30,000: after a crash nobody waits longer for the rest,
    /// and a machine that stalls for some seconds keeps its tasks.
    pub lease_ms: u64,
    /// How often leases are prolonged and ended ones of others are settled. 10,000: a lease survives a late heartbeat
    /// and a failed one.
    pub heartbeat_ms: u64,
    /// A task whose workers vanished this often is dead: it may be what kills them. 5: every crash also counts for the
    /// innocent tasks that ran beside the culprit.
    pub max_crashes: u32,
    /// How long a run that was told to stop may take to do so before it is dropped. 2,000: a guest stops within a tick
    /// of the engine's clock, a native generation within a token.
    pub stop_grace_ms: u64,
    /// No other process claims from the store (an embedded store sees to that), so that at start every running task is
    /// one of a dead process and is taken back at once. Set by the wiring, not by operators.
    #[serde(skip, default = "yes")]
    pub sole_process: bool,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self {
            high: PoolOptions::of(Pool::High),
            default: PoolOptions::of(Pool::Default),
            batched: PoolOptions::of(Pool::Batched),
            lease_ms: 30_000,
            heartbeat_ms: 10_000,
            max_crashes: 5,
            stop_grace_ms: 2_000,
            sole_process: true,
        }
    }
}

/// How one pool works. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolOptions {
    /// OS threads. `high`: as many as there are CPUs; `default` and `batched`: half of that, at least 1 (a batched task
    /// mostly waits for native inference, which has threads of its own).
    pub threads: usize,
    /// Tasks claimed and not yet recorded. More than the threads, because a claim and a result wait for the disk and share
    /// one write with others. `high` and `default`: 64; `batched`: 16, what native inference can batch.
    pub permits: u32,
    /// Runs that are under way on one thread at once; the rest waits in line. `high` and `default`: 4, so that a long run
    /// does not hold up a short one; `batched`: 16, because they mostly wait.
    pub runs_per_thread: u32,
    /// Calls from outside the queue (synchronous validation) that may wait for a thread before more are refused. 256: at
    /// a millisecond each, what waits longer than a quarter of a second is better told to come again.
    pub inbox: usize,
    /// The hard limit of one run's time, from its start. `high`: 30,000; `default`: 60,000; `batched`: 300,000.
    pub limit_ms: u64,
    /// How often the store is asked when no event came: events are hints and may be missed. 1,000.
    pub poll_ms: u64,
    /// When failed runs are tried again.
    pub retry: RetryPolicy,
}

impl PoolOptions {
    /// The defaults of a pool.
    #[must_use]
    pub fn of(pool: Pool) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let half = (cpus / 2).max(1);
        let (threads, permits, runs_per_thread, limit_ms) = match pool {
            Pool::High => (cpus, 64, 4, 30_000),
            Pool::Default => (half, 64, 4, 60_000),
            Pool::Batched => (half, 16, 16, 300_000),
        };
        Self {
            threads: threads.min(limits::POOL_THREADS),
            permits,
            runs_per_thread,
            inbox: 256,
            limit_ms,
            poll_ms: 1_000,
            retry: RetryPolicy::default(),
        }
    }

    pub(crate) const fn limit(&self) -> Duration {
        Duration::from_millis(self.limit_ms)
    }

    pub(crate) const fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }
}

/// An option outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scheduler option {option} is {value}, expected {expected}")]
pub struct OptionsError {
    /// Which one, as a path in the configuration.
    pub option: String,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub expected: String,
}

impl SchedulerOptions {
    /// The options of one pool.
    #[must_use]
    pub const fn pool(&self, pool: Pool) -> &PoolOptions {
        match pool {
            Pool::High => &self.high,
            Pool::Default => &self.default,
            Pool::Batched => &self.batched,
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`OptionsError`] names the first option that is out of range.
    pub fn check(&self) -> Result<(), OptionsError> {
        for pool in Pool::ALL {
            let options = self.pool(pool);
            let at = |name: &str| format!("{pool}.{name}");
            let threads = limits::POOL_THREADS as u64;
            within(at("threads"), options.threads as u64, 1, threads)?;
            let permits = u64::from(limits::POOL_PERMITS);
            within(at("permits"), options.permits.into(), 1, permits)?;
            within(at("runs_per_thread"), options.runs_per_thread.into(), 1, permits)?;
            within(at("inbox"), options.inbox as u64, 1, 1 << 20)?;
            within(at("limit_ms"), options.limit_ms, 1, DAY_MS)?;
            within(at("poll_ms"), options.poll_ms, 1, DAY_MS)?;
        }
        within("lease_ms".into(), self.lease_ms, 1, DAY_MS)?;
        let longest = self.lease_ms / limits::HEARTBEATS_PER_LEASE;
        within("heartbeat_ms".into(), self.heartbeat_ms, 1, longest)?;
        within("max_crashes".into(), self.max_crashes.into(), 1, u32::MAX.into())?;
        within("stop_grace_ms".into(), self.stop_grace_ms, 0, DAY_MS)
    }

    pub(crate) const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(crate) const fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) const fn stop_grace(&self) -> Duration {
        Duration::from_millis(self.stop_grace_ms)
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn within(option: String, value: u64, least: u64, most: u64) -> Result<(), OptionsError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(OptionsError {
        option,
        value,
        expected: format!("{least} to {most}"),
    })
}

const fn yes() -> bool {
    true
}

/// What a configuration says about a pool; the rest comes from that pool's own defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolPatch {
    threads: Option<usize>,
    permits: Option<u32>,
    runs_per_thread: Option<u32>,
    inbox: Option<usize>,
    limit_ms: Option<u64>,
    poll_ms: Option<u64>,
    retry: Option<RetryPolicy>,
}

fn patched<'de, D: Deserializer<'de>>(pool: Pool, source: D) -> Result<PoolOptions, D::Error> {
    let patch = PoolPatch::deserialize(source)?;
    let base = PoolOptions::of(pool);
    Ok(PoolOptions {
        threads: patch.threads.unwrap_or(base.threads),
        permits: patch.permits.unwrap_or(base.permits),
        runs_per_thread: patch.runs_per_thread.unwrap_or(base.runs_per_thread),
        inbox: patch.inbox.unwrap_or(base.inbox),
        limit_ms: patch.limit_ms.unwrap_or(base.limit_ms),
        poll_ms: patch.poll_ms.unwrap_or(base.poll_ms),
        retry: patch.retry.unwrap_or(base.retry),
    })
}

fn high<'de, D: Deserializer<'de>>(source: D) -> Result<PoolOptions, D::Error> {
    patched(Pool::High, source)
}

fn default<'de, D: Deserializer<'de>>(source: D) -> Result<PoolOptions, D::Error> {
    patched(Pool::Default, source)
}

fn batched<'de, D: Deserializer<'de>>(source: D) -> Result<PoolOptions, D::Error> {
    patched(Pool::Batched, source)
}

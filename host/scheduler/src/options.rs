//! What an operator may set.

use crate::limits;
use formwork_store::PoolControl;
use formwork_tasks::{Pool, RetryPolicy, StepMaxima, TimeLimits};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

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
    /// How CPU limits are enforced.
    pub cpu_enforcement: CpuEnforcement,
    /// The most that the steps of forms may ask for.
    pub step_maxima: StepMaxima,
    /// Which pools this process works for. Set by the wiring, not by operators.
    #[serde(skip)]
    pub roles: Roles,
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
            cpu_enforcement: CpuEnforcement::default(),
            step_maxima: StepMaxima::default(),
            roles: Roles::default(),
            sole_process: true,
        }
    }
}

/// How the CPU limits of pools are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CpuEnforcement {
    /// What is best here: the budget. A kernel quota stops threads wherever they are, also those that hold a lock.
    #[default]
    Auto,
    /// A budget of CPU time kept by this process: who has used it up is parked at the end of an epoch or between tokens.
    Budget,
    /// The budget, and below it a quota of the kernel on the pool's threads, where the process may make cgroups; where it
    /// may not, the budget alone.
    Cgroup,
}

/// Which pools a process works for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Pools whose tasks it claims.
    pub claims: BTreeSet<Pool>,
    /// Pools whose threads it has besides, for calls from outside the queue (a synchronous validation runs in `high`).
    pub calls: BTreeSet<Pool>,
}

impl Default for Roles {
    /// All of them.
    fn default() -> Self {
        Self {
            claims: Pool::ALL.into(),
            calls: BTreeSet::new(),
        }
    }
}

impl Roles {
    /// What a process does for a pool.
    #[must_use]
    pub fn of(&self, pool: Pool) -> Presence {
        if self.claims.contains(&pool) {
            Presence::Claims
        } else if self.calls.contains(&pool) {
            Presence::Calls
        } else {
            Presence::Absent
        }
    }
}

/// What a process does for a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It claims the pool's tasks.
    Claims,
    /// It has the pool's threads for calls from outside the queue, and claims no tasks.
    Calls,
    /// Nothing: the pool has no threads here.
    Absent,
}

/// What a pool may use, and what an operator may change while it works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolLimits {
    /// See [`PoolOptions::cpus`].
    pub cpus: Option<f64>,
    /// See [`PoolOptions::burst`].
    pub burst: bool,
    /// See [`PoolOptions::weight`].
    pub weight: u32,
    /// See [`PoolOptions::permits`].
    pub permits: u32,
}

/// How one pool works. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolOptions {
    /// OS threads. `high`: as many as there are CPUs; `default` and `batched`: half of that, at least 1 (a batched task
    /// mostly waits for native inference, which has threads of its own).
    pub threads: usize,
    /// CPU time a second that the pool may use over time, in CPUs: its threads and native inference on its behalf
    /// together. Written as 0 in a configuration: no limit but its threads. None for all pools: on an idle machine a limit
    /// only wastes, and niceness ranks the pools.
    #[serde(serialize_with = "cpus_or_zero")]
    pub cpus: Option<f64>,
    /// Whether it may use more than `cpus` while nothing else wants the CPU. Off: a limit that is set is meant.
    pub burst: bool,
    /// Its share of what is to spare when several pools burst, and in cgroups of the kernel. `high`: 800; `default`: 400;
    /// `batched`: 100.
    pub weight: u32,
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
    /// The soft limit of one run's time, from its start: inference is refused from then on and what is under way ends, so
    /// that the guest can still answer without it. 0: nine tenths of the hard limit, also where a step has its own.
    pub soft_limit_ms: u64,
    /// How often the store is asked when no event came: events are hints and may be missed. 1,000.
    pub poll_ms: u64,
    /// How long a task may wait before the autoscaling signal asks for more workers. `high`: 1,000, somebody waits; `default`:
    /// 10,000; `batched`: 60,000, about what a new worker needs until its models are loaded, and then some.
    pub target_wait_ms: u64,
    /// When failed runs are tried again.
    pub retry: RetryPolicy,
}

impl PoolOptions {
    /// The defaults of a pool.
    #[must_use]
    pub fn of(pool: Pool) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let half = (cpus / 2).max(1);
        let (threads, permits, runs_per_thread, limit_ms, weight, target_wait_ms) = match pool {
            Pool::High => (cpus, 128, 4, 30_000, 800, 1_000),
            Pool::Default => (half, 64, 4, 60_000, 400, 10_000),
            Pool::Batched => (half, 16, 16, 300_000, limits::WEIGHT_DEFAULT, 60_000),
        };
        Self {
            threads: threads.min(limits::POOL_THREADS),
            cpus: None,
            burst: false,
            weight,
            permits,
            runs_per_thread,
            inbox: 256,
            limit_ms,
            soft_limit_ms: 0,
            poll_ms: 1_000,
            target_wait_ms,
            retry: RetryPolicy::default(),
        }
    }

    /// What the pool may use under an operator's control.
    pub(crate) fn limits_under(&self, pool: Pool, control: &PoolControl) -> Result<PoolLimits, OptionsError> {
        let configured = self.limits();
        let limits = PoolLimits {
            cpus: control.cpus.map_or(configured.cpus, limit_of),
            burst: control.burst.unwrap_or(configured.burst),
            weight: configured.weight,
            permits: control.permits.unwrap_or(configured.permits),
        };
        limits.check(pool)?;
        Ok(limits)
    }

    /// What of it may be changed while it works.
    pub(crate) const fn limits(&self) -> PoolLimits {
        PoolLimits {
            cpus: self.cpus,
            burst: self.burst,
            weight: self.weight,
            permits: self.permits,
        }
    }

    /// The hard and the soft limit of a run, where its step says something, by that, as far as it may.
    pub(crate) fn run_limits(&self, step: TimeLimits, most: &StepMaxima) -> (Duration, Duration) {
        let hard = step.hard_ms.map_or(self.limit_ms, |hard| hard.min(most.hard_ms));
        let usual = match (self.soft_limit_ms, step.hard_ms) {
            // A step's own limit does not go with the pool's soft one.
            (0, _) | (_, Some(_)) => {
                hard / 100 * limits::SOFT_LIMIT_PERCENT + hard % 100 * limits::SOFT_LIMIT_PERCENT / 100
            }
            (soft, None) => soft,
        };
        let soft = step.soft_ms.unwrap_or(usual);
        (Duration::from_millis(hard), Duration::from_millis(soft.min(hard)))
    }

    pub(crate) const fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }
}

/// An option outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("scheduler option {option} is {value}, expected {expected}")]
pub struct OptionsError {
    /// Which one, as a path in the configuration.
    pub option: String,
    /// What it is.
    pub value: f64,
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
            options.limits().check(pool)?;
            within(at("runs_per_thread"), options.runs_per_thread.into(), 1, permits)?;
            within(at("inbox"), options.inbox as u64, 1, 1 << 20)?;
            within(at("limit_ms"), options.limit_ms, 1, DAY_MS)?;
            within(at("soft_limit_ms"), options.soft_limit_ms, 0, DAY_MS)?;
            within(at("poll_ms"), options.poll_ms, 1, DAY_MS)?;
            within(at("target_wait_ms"), options.target_wait_ms, 1, DAY_MS)?;
        }
        let most = &self.step_maxima;
        within(
            "step_maxima.max_attempts".into(),
            most.max_attempts.into(),
            1,
            u32::MAX.into(),
        )?;
        within(
            "step_maxima.cap_ms".into(),
            most.cap_ms,
            1,
            limits::STEP_CAP.as_millis() as u64,
        )?;
        within("step_maxima.hard_ms".into(), most.hard_ms, 1, DAY_MS)?;
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

impl PoolLimits {
    fn check(&self, pool: Pool) -> Result<(), OptionsError> {
        let at = |name: &str| format!("{pool}.{name}");
        if let Some(cpus) = self.cpus
            && !(limits::CPUS_LEAST..=limits::CPUS_MOST).contains(&cpus)
        {
            return Err(OptionsError {
                option: at("cpus"),
                value: cpus,
                expected: format!("0 (no limit) or {} to {}", limits::CPUS_LEAST, limits::CPUS_MOST),
            });
        }
        within(at("weight"), self.weight.into(), 1, limits::WEIGHT_MOST.into())?;
        within(at("permits"), self.permits.into(), 1, limits::POOL_PERMITS.into())
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn within(option: String, value: u64, least: u64, most: u64) -> Result<(), OptionsError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "shown to a person")]
    Err(OptionsError {
        option,
        value: value as f64,
        expected: format!("{least} to {most}"),
    })
}

/// 0 stands for no limit.
fn limit_of(cpus: f64) -> Option<f64> {
    (cpus != 0.0).then_some(cpus)
}

/// The configuration has a value for every key.
#[expect(clippy::ref_option, reason = "serde hands the field over")]
fn cpus_or_zero<S: Serializer>(cpus: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(cpus.unwrap_or(0.0))
}

const fn yes() -> bool {
    true
}

/// What a configuration says about a pool; the rest comes from that pool's own defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolPatch {
    threads: Option<usize>,
    cpus: Option<f64>,
    burst: Option<bool>,
    weight: Option<u32>,
    permits: Option<u32>,
    runs_per_thread: Option<u32>,
    inbox: Option<usize>,
    limit_ms: Option<u64>,
    soft_limit_ms: Option<u64>,
    poll_ms: Option<u64>,
    target_wait_ms: Option<u64>,
    retry: Option<RetryPolicy>,
}

fn patched<'de, D: Deserializer<'de>>(pool: Pool, source: D) -> Result<PoolOptions, D::Error> {
    let patch = PoolPatch::deserialize(source)?;
    let base = PoolOptions::of(pool);
    Ok(PoolOptions {
        threads: patch.threads.unwrap_or(base.threads),
        cpus: patch.cpus.map_or(base.cpus, limit_of),
        burst: patch.burst.unwrap_or(base.burst),
        weight: patch.weight.unwrap_or(base.weight),
        permits: patch.permits.unwrap_or(base.permits),
        runs_per_thread: patch.runs_per_thread.unwrap_or(base.runs_per_thread),
        inbox: patch.inbox.unwrap_or(base.inbox),
        limit_ms: patch.limit_ms.unwrap_or(base.limit_ms),
        soft_limit_ms: patch.soft_limit_ms.unwrap_or(base.soft_limit_ms),
        poll_ms: patch.poll_ms.unwrap_or(base.poll_ms),
        target_wait_ms: patch.target_wait_ms.unwrap_or(base.target_wait_ms),
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

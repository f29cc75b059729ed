//! The scheduler as its owner sees it.

use crate::{
    cgroup::Hierarchy,
    clock, controls, dispatcher, drain,
    drain::DrainReport,
    events, heartbeat,
    lane::Lane,
    limits,
    machine::CpuTicks,
    metrics,
    options::{CpuEnforcement, OptionsError, PoolLimits, Presence, SchedulerOptions},
    overflow,
    permits::Permits,
    recovery,
    runner::TaskRunner,
    runs::{Runs, Stop},
};
use formwork_store::{PoolControl, Store};
use formwork_tasks::{Pool, StepMaxima};
use serde::Serialize;
use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// The pools of this process at work on one store. Cheap to clone. Dropping the last handle stops it at once; leases
/// then end by themselves, so [`Scheduler::drain`] first.
#[derive(Clone)]
pub struct Scheduler {
    owner: Arc<Owner>,
}

/// Why the scheduler did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option is out of range.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Another scheduler of this process works on the same store; drain it first.
    #[error("a scheduler already runs on this store, drain it first")]
    AlreadyStarted,
    /// The system refused a thread.
    #[error("cannot start the scheduler's threads: {0}")]
    Threads(#[from] io::Error),
}

/// How a pool is doing in this process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PoolStatus {
    /// The pool.
    pub pool: Pool,
    /// What this process does for it; a pool that is absent has no threads here.
    pub presence: Presence,
    /// OS threads.
    pub threads: usize,
    /// Its CPU limit, in CPUs; nothing: only its threads limit it.
    pub cpus: Option<f64>,
    /// What it may use now, in CPUs: its limit, with `burst` also its share of what is to spare.
    pub cpu_rate: Option<f64>,
    /// Whether it may use more than its limit while nothing else wants the CPU.
    pub burst: bool,
    /// Its share of what is to spare.
    pub weight: u32,
    /// How its limit is enforced.
    pub enforcement: Enforcement,
    /// Tasks it may have claimed at once.
    pub permits: u32,
    /// How long a task may wait before more workers are asked for, in milliseconds.
    pub target_wait_ms: u64,
    /// Tasks it has claimed now.
    pub running: usize,
    /// Jobs (tasks and calls from outside) that wait for a thread.
    pub queued: usize,
    /// Whether it claims nothing because an operator paused it, here or on another node.
    pub paused: bool,
    /// Share of the last second in which its threads were busy, 0 to 1.
    pub busy_ratio: f64,
    /// CPU time it has used since the start, in seconds: its threads and native inference on their behalf.
    pub cpu_seconds: f64,
    /// Of that, native inference.
    pub native_cpu_seconds: f64,
    /// Guests that wait for CPU credit now.
    pub parked: usize,
    /// How long guests and generations have waited for CPU credit, added up over them, in seconds.
    pub parked_seconds: f64,
    /// How long all of its permits were taken, in seconds.
    pub permit_wait_seconds: f64,
    /// Periods in which the kernel's quota stopped its threads, where there is one.
    pub throttled: Option<u64>,
}

/// How a CPU limit is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Enforcement {
    /// There is no limit to enforce.
    None,
    /// By the budget of this process.
    Budget,
    /// By the budget, and below it by a quota of the kernel, cgroup v1.
    CgroupV1,
    /// By the budget, and below it by a quota of the kernel, cgroup v2.
    CgroupV2,
}

impl Enforcement {
    /// Every way.
    const ALL: [Self; 4] = [Self::None, Self::Budget, Self::CgroupV1, Self::CgroupV2];

    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Budget => "budget",
            Self::CgroupV1 => "cgroup-v1",
            Self::CgroupV2 => "cgroup-v2",
        }
    }
}

/// The state of one pool.
pub(crate) struct PoolState {
    pub(crate) pool: Pool,
    pub(crate) lane: Lane,
    pub(crate) permits: Arc<Permits>,
    /// What an operator allows now.
    limits: Mutex<PoolLimits>,
    presence: Presence,
    pub(crate) paused: AtomicBool,
    /// Tasks may be there, a retry may be due earlier, or the pause has changed.
    pub(crate) wake: Notify,
}

/// Ended runs, for the report of a drain.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) recorded: AtomicU64,
    pub(crate) released: AtomicU64,
}

/// What all parts share.
pub(crate) struct Shared {
    pub(crate) options: SchedulerOptions,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runner: Arc<dyn TaskRunner>,
    pub(crate) worker: String,
    pub(crate) pools: Vec<Arc<PoolState>>,
    pub(crate) runs: Runs,
    /// An operator changed what is set for a pool.
    pub(crate) controls_changed: Notify,
    /// One reads and applies the controls at a time, so that what was read first is not applied last.
    pub(crate) controls: tokio::sync::Mutex<()>,
    pub(crate) tally: Tally,
    /// Claim nothing more.
    pub(crate) draining: CancellationToken,
    /// End every thread.
    pub(crate) shutdown: CancellationToken,
    /// Whether tasks of a former process were taken back; nothing is claimed before.
    pub(crate) recovered: watch::Sender<bool>,
    pub(crate) dispatchers: Mutex<Vec<JoinHandle<()>>>,
    drain_begun: AtomicBool,
    pub(crate) drained: watch::Sender<Option<DrainReport>>,
    ownership: Mutex<Option<StoreOwnership>>,
}

impl Shared {
    pub(crate) fn pool(&self, pool: Pool) -> &Arc<PoolState> {
        &self.pools[pool as usize]
    }

    pub(crate) fn wake_all(&self) {
        for pool in &self.pools {
            pool.wake.notify_one();
        }
    }

    /// Ends every thread; the store may be given to another scheduler.
    pub(crate) fn end(&self) {
        for pool in &self.pools {
            pool.lane.close();
        }
        self.shutdown.cancel();
        self.ownership.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

struct Owner {
    shared: Arc<Shared>,
    control: Handle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        for run in self.shared.runs.all() {
            run.stop(Stop::Drain);
        }
        self.shared.end();
    }
}

impl Scheduler {
    /// Starts the pools: takes back the tasks of a former process, then claims. Returns at once; the work happens on
    /// threads of its own, the caller needs no runtime.
    ///
    /// # Errors
    /// [`StartError::Options`] for an option out of range, [`StartError::AlreadyStarted`] when this process already has
    /// a scheduler on this store (which goes on undisturbed), [`StartError::Threads`] when the system refuses a thread.
    pub fn start(
        options: SchedulerOptions,
        store: Arc<dyn Store>,
        runner: Arc<dyn TaskRunner>,
    ) -> Result<Self, StartError> {
        options.check()?;
        let ownership = StoreOwnership::take(&store).ok_or(StartError::AlreadyStarted)?;
        let hierarchy = hierarchy(options.cpu_enforcement);
        let mut pools = Vec::with_capacity(Pool::ALL.len());
        for pool in Pool::ALL {
            let state = PoolState::start(pool, &options, hierarchy.as_ref())?;
            pools.push(Arc::new(state));
        }
        let worker = format!("w-{:016x}", rand::random::<u64>());
        let shared = Arc::new(Shared {
            options,
            store,
            runner,
            worker,
            pools,
            runs: Runs::new(),
            controls_changed: Notify::new(),
            controls: tokio::sync::Mutex::default(),
            tally: Tally::default(),
            draining: CancellationToken::new(),
            shutdown: CancellationToken::new(),
            recovered: watch::Sender::new(false),
            dispatchers: Mutex::default(),
            drain_begun: AtomicBool::new(false),
            drained: watch::Sender::new(None),
            ownership: Mutex::new(Some(ownership)),
        });
        // Listens before anything is looked at, so that no event falls between.
        let events = shared.store.subscribe();

        let control = Builder::new_current_thread().enable_time().build()?;
        let handle = control.handle().clone();
        let owner = Owner {
            shared: Arc::clone(&shared),
            control: handle.clone(),
        };
        // From here on an error drops the owner, which ends what was started.
        heartbeat::start(Arc::clone(&shared))?;
        let mut dispatchers = Vec::with_capacity(shared.pools.len());
        for pool in shared.pools.iter().filter(|pool| pool.presence == Presence::Claims) {
            let work = dispatcher::run(Arc::clone(&shared), Arc::clone(pool));
            dispatchers.push(handle.spawn(work));
        }
        *shared.dispatchers.lock().unwrap_or_else(PoisonError::into_inner) = dispatchers;
        handle.spawn(events::listen(Arc::clone(&shared), events));
        handle.spawn(sample(Arc::clone(&shared)));
        handle.spawn(controls::run(Arc::clone(&shared)));
        handle.spawn(share_overflow(Arc::clone(&shared)));
        handle.spawn(recovery::run(Arc::clone(&shared)));
        let shutdown = shared.shutdown.clone();
        thread::Builder::new()
            .name("fw-control".to_owned())
            .spawn(move || control.block_on(shutdown.cancelled()))?;
        tracing::info!(worker = shared.worker, started_at = %clock::now(), "scheduler started");
        Ok(Self { owner: Arc::new(owner) })
    }

    /// The name under which this process claims tasks; random per start.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.owner.shared.worker
    }

    /// The threads of a pool, for work that must not run on the caller's runtime. Those of a pool this process does not
    /// work for refuse everything.
    #[must_use]
    pub fn lane(&self, pool: Pool) -> &Lane {
        &self.owner.shared.pool(pool).lane
    }

    /// Reads and applies what operators have set for the pools; it is in force here when this comes back. Without it a
    /// change is seen at once if this process made it, else within a second.
    ///
    /// # Errors
    /// The store's.
    pub async fn refresh_controls(&self) -> formwork_store::Result<()> {
        controls::look(&self.owner.shared).await
    }

    /// What a pool may use here under a control; to be asked before a control is stored, since one that is out of range is
    /// not applied.
    ///
    /// # Errors
    /// [`OptionsError`] names the first number that is out of range.
    pub fn limits_under(&self, pool: Pool, control: &PoolControl) -> Result<PoolLimits, OptionsError> {
        self.owner.shared.options.pool(pool).limits_under(pool, control)
    }

    /// The most that the steps of forms may ask for.
    #[must_use]
    pub fn step_maxima(&self) -> &StepMaxima {
        &self.owner.shared.options.step_maxima
    }

    /// How every pool is doing, in the order of `Pool::ALL`.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        let shared = &self.owner.shared;
        let status = |state: &Arc<PoolState>| {
            let (usage, budget, limits) = (state.lane.usage(), state.lane.budget().usage(), state.limits());
            PoolStatus {
                pool: state.pool,
                presence: state.presence,
                threads: usage.threads,
                cpus: limits.cpus,
                cpu_rate: budget.rate,
                burst: limits.burst,
                weight: limits.weight,
                enforcement: state.enforcement(),
                permits: limits.permits,
                target_wait_ms: shared.options.pool(state.pool).target_wait_ms,
                running: shared.runs.of(state.pool),
                queued: usage.queued,
                paused: state.paused.load(Ordering::Acquire),
                busy_ratio: usage.busy_ratio,
                cpu_seconds: usage.cpu_seconds,
                native_cpu_seconds: usage.native_cpu_seconds,
                parked: budget.parked,
                parked_seconds: budget.parked_time.as_secs_f64(),
                permit_wait_seconds: state.permits.waited_seconds(),
                throttled: state.lane.throttled(),
            }
        };
        shared.pools.iter().map(status).collect()
    }

    /// Whether it no longer claims because a drain has begun (or ended).
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.owner.shared.draining.is_cancelled()
    }

    /// Whether the tasks of a former process have been taken back, so that claiming has begun; for a readiness probe.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.owner.shared.recovered.borrow() && !self.is_draining()
    }

    /// Waits until claiming has begun, or a drain.
    pub async fn ready(&self) {
        let shared = &self.owner.shared;
        let mut recovered = shared.recovered.subscribe();
        tokio::select! {
            _ = recovered.wait_for(|recovered| *recovered) => {}
            () = shared.draining.cancelled() => {}
        }
    }

    /// Stops claiming, waits up to `grace` for what runs, gives the rest back without spending attempts, and ends the
    /// threads. Calling it again, also at the same time, waits for the same drain and gives the same report (the grace
    /// of the first call counts). Dropping the future does not stop the drain.
    pub async fn drain(&self, grace: std::time::Duration) -> DrainReport {
        let Owner { shared, control } = &*self.owner;
        if !shared.drain_begun.swap(true, Ordering::AcqRel) {
            control.spawn(drain::run(Arc::clone(shared), grace));
        }
        let mut drained = shared.drained.subscribe();
        // Cannot fail: `shared` holds the sender.
        let report = drained.wait_for(Option::is_some).await;
        report.ok().and_then(|report| *report).unwrap_or_default()
    }
}

/// Where groups of the kernel can be made, if they are asked for.
fn hierarchy(enforcement: CpuEnforcement) -> Option<Hierarchy> {
    if enforcement != CpuEnforcement::Cgroup {
        return None;
    }
    Hierarchy::find()
        .inspect_err(|reason| tracing::warn!(reason, "no cgroups here, CPU limits are enforced by the budget alone"))
        .ok()
}

impl PoolState {
    fn start(pool: Pool, options: &SchedulerOptions, hierarchy: Option<&Hierarchy>) -> Result<Self, StartError> {
        let pool_options = options.pool(pool);
        let limits = pool_options.limits();
        let presence = options.roles.of(pool);
        let lane = if presence == Presence::Absent {
            Lane::absent(pool)
        } else {
            let group = hierarchy.and_then(|hierarchy| {
                let group = hierarchy.pool(pool);
                let failed = |error: &io::Error| tracing::warn!(%pool, %error, "no cgroup for this pool");
                group.inspect_err(failed).ok()
            });
            Lane::start_in(pool, pool_options, group)?
        };
        let state = Self {
            pool,
            lane,
            permits: Permits::new(limits.permits),
            limits: Mutex::new(limits),
            presence,
            paused: AtomicBool::new(false),
            wake: Notify::new(),
        };
        state.tell_group(&limits);
        tracing::info!(
            %pool,
            presence = ?presence,
            cpus = limits.cpus,
            burst = limits.burst,
            enforcement = state.enforcement().as_str(),
            "pool ready"
        );
        Ok(state)
    }

    pub(crate) fn limits(&self) -> PoolLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the pool may use, from now on; runs that are under way go on.
    pub(crate) fn set_limits(&self, limits: PoolLimits) {
        {
            // Held until all is told, so that two callers do not mix.
            let mut now = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            if *now == limits {
                return;
            }
            *now = limits;
            // With `burst` the next look at the machine raises it again.
            self.lane.budget().set_rate(limits.cpus);
            self.permits.set_limit(limits.permits);
            self.tell_group(&limits);
        }
        let (cpus, burst, permits) = (limits.cpus, limits.burst, limits.permits);
        tracing::info!(pool = %self.pool, cpus, burst, permits, "pool limits changed");
    }

    /// Sets what the pool may use until the next look, unless its limits have just been changed.
    fn share(&self, seen: &PoolLimits, rate: Option<f64>) {
        let now = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if *now == *seen {
            self.lane.budget().set_rate(rate);
        }
    }

    fn tell_group(&self, limits: &PoolLimits) {
        if let Err(error) = self.lane.set_group_limits(limits) {
            tracing::warn!(pool = %self.pool, %error, "the cgroup does not take the limits, the budget holds");
        }
    }

    fn enforcement(&self) -> Enforcement {
        match self.limits().cpus {
            None => Enforcement::None,
            Some(_) => self.lane.group_enforcement().unwrap_or(Enforcement::Budget),
        }
    }
}

async fn sample(shared: Arc<Shared>) {
    let mut permit_waits = [0.0; Pool::ALL.len()];
    for state in &shared.pools {
        if state.presence != Presence::Absent {
            metrics::appear(state.pool);
        }
    }
    loop {
        for (state, waited_before) in shared.pools.iter().zip(&mut permit_waits) {
            if state.presence == Presence::Absent {
                continue;
            }
            state.lane.sample();
            let label = [state.pool.as_str()];
            // So that a pool without tasks shows 0 instead of nothing.
            metrics::PERMITS_IN_USE.with_label_values(&label);
            metrics::PERMITS
                .with_label_values(&label)
                .set(state.permits.limit().into());
            let waited = state.permits.waited_seconds();
            metrics::PERMIT_WAIT_SECONDS
                .with_label_values(&label)
                .inc_by((waited - *waited_before).max(0.0));
            *waited_before = waited;
            let now = state.enforcement();
            for mode in Enforcement::ALL {
                metrics::ENFORCEMENT
                    .with_label_values(&[label[0], mode.as_str()])
                    .set((mode == now).into());
            }
        }
        tokio::time::sleep(limits::SAMPLE_EVERY).await;
    }
}

/// Gives pools that burst what the machine has to spare, again and again.
async fn share_overflow(shared: Arc<Shared>) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    #[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
    let cpus = cpus as f64;
    let mut ticks_before = CpuTicks::read();
    let cpu = |state: &Arc<PoolState>| state.lane.budget().usage().cpu;
    let mut before: Vec<Duration> = shared.pools.iter().map(cpu).collect();
    let mut at = Instant::now();
    loop {
        tokio::time::sleep(limits::OVERFLOW_LOOK).await;
        let used_until_now: Vec<Duration> = shared.pools.iter().map(cpu).collect();
        let passed = at.elapsed().as_secs_f64();
        at = Instant::now();
        let used = used_until_now.iter().zip(&before);
        let used: Vec<f64> = used
            .map(|(now, before)| now.saturating_sub(*before).as_secs_f64() / passed)
            .collect();
        before = used_until_now;
        let ticks = CpuTicks::read();
        let busy = ticks
            .zip(ticks_before)
            .and_then(|(now, before)| now.busy_cpus_since(&before));
        ticks_before = ticks;
        let limits: Vec<PoolLimits> = shared.pools.iter().map(|state| state.limits()).collect();
        if !limits.iter().any(|limits| limits.burst && limits.cpus.is_some()) {
            continue;
        }
        let loads: Vec<overflow::Load> = limits
            .iter()
            .zip(used)
            .zip(&shared.pools)
            .map(|((limits, used), state)| overflow::Load {
                limit: limits.cpus,
                burst: limits.burst,
                weight: limits.weight,
                used,
                rate: state.lane.budget().usage().rate,
            })
            .collect();
        let ours: f64 = loads.iter().map(|load| load.used).sum();
        // Where the system does not tell how busy it is, it counts as busy.
        let others = busy.map_or(cpus, |busy| (busy - ours).max(0.0));
        // Pools that burst are left out: their lines are what the overflow is for.
        let in_line = shared
            .pools
            .iter()
            .any(|state| !state.limits().burst && state.lane.is_short_of_threads());
        for (state, (limits, rate)) in shared
            .pools
            .iter()
            .zip(limits.iter().zip(overflow::rates(&loads, cpus, others, in_line)))
        {
            if limits.burst {
                state.share(limits, rate);
            }
        }
    }
}

/// Stores that a scheduler of this process works on, by address; the owner keeps its store alive, so an address is
/// not used twice at the same time.
static OWNED: LazyLock<Mutex<HashSet<usize>>> = LazyLock::new(Mutex::default);

/// Keeps a second scheduler off the same store: it would take back the running tasks of the first as those of a dead
/// process.
struct StoreOwnership(usize);

impl StoreOwnership {
    fn take(store: &Arc<dyn Store>) -> Option<Self> {
        let address = Arc::as_ptr(store).cast::<()>().addr();
        OWNED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(address)
            // Not `then_some`: its argument would be dropped, and a drop gives the store free.
            .then(|| Self(address))
    }
}

impl Drop for StoreOwnership {
    fn drop(&mut self) {
        OWNED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

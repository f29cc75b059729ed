//! The scheduler as its owner sees it.

use crate::{
    clock, controls, dispatcher, drain,
    drain::DrainReport,
    events, heartbeat,
    lane::Lane,
    limits, metrics,
    options::{OptionsError, SchedulerOptions},
    recovery,
    runner::TaskRunner,
    runs::{Runs, Stop},
};
use formwork_store::Store;
use formwork_tasks::Pool;
use serde::Serialize;
use std::{
    collections::HashSet,
    io,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::{Notify, Semaphore, watch},
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
    /// OS threads.
    pub threads: usize,
    /// Tasks it may have claimed at once.
    pub permits: u32,
    /// Tasks it has claimed now.
    pub running: usize,
    /// Jobs (tasks and calls from outside) that wait for a thread.
    pub queued: usize,
    /// Whether it claims nothing because an operator paused it, here or on another node.
    pub paused: bool,
    /// Share of the last second in which its threads were busy, 0 to 1.
    pub busy_ratio: f64,
    /// CPU time its threads have used since the start, in seconds.
    pub cpu_seconds: f64,
}

/// The state of one pool.
pub(crate) struct PoolState {
    pub(crate) pool: Pool,
    pub(crate) lane: Lane,
    pub(crate) permits: Arc<Semaphore>,
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
        let mut pools = Vec::with_capacity(Pool::ALL.len());
        for pool in Pool::ALL {
            let pool_options = options.pool(pool);
            pools.push(Arc::new(PoolState {
                pool,
                lane: Lane::start(pool, pool_options)?,
                permits: Arc::new(Semaphore::new(pool_options.permits as usize)),
                paused: AtomicBool::new(false),
                wake: Notify::new(),
            }));
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
        for pool in &shared.pools {
            let work = dispatcher::run(Arc::clone(&shared), Arc::clone(pool));
            dispatchers.push(handle.spawn(work));
        }
        *shared.dispatchers.lock().unwrap_or_else(PoisonError::into_inner) = dispatchers;
        handle.spawn(events::listen(Arc::clone(&shared), events));
        handle.spawn(sample(Arc::clone(&shared)));
        handle.spawn(controls::run(Arc::clone(&shared)));
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

    /// The threads of a pool, for work that must not run on the caller's runtime.
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

    /// How every pool is doing, in the order of `Pool::ALL`.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        let shared = &self.owner.shared;
        let status = |state: &Arc<PoolState>| {
            let usage = state.lane.usage();
            PoolStatus {
                pool: state.pool,
                threads: usage.threads,
                permits: shared.options.pool(state.pool).permits,
                running: shared.runs.of(state.pool),
                queued: usage.queued,
                paused: state.paused.load(Ordering::Acquire),
                busy_ratio: usage.busy_ratio,
                cpu_seconds: usage.cpu_seconds,
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

async fn sample(shared: Arc<Shared>) {
    loop {
        for pool in &shared.pools {
            pool.lane.sample();
            // So that a pool without tasks shows 0 instead of nothing.
            let label = [pool.pool.as_str()];
            metrics::PERMITS_IN_USE.with_label_values(&label);
        }
        tokio::time::sleep(limits::SAMPLE_EVERY).await;
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

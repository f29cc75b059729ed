//! The runs this process holds leases for.

use crate::metrics;
use formwork_store::{NewProgress, TaskId};
use formwork_tasks::{Pool, RetryRules, RunLease};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Why a run was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody asked for it.
    Cancel,
    /// Its time is up.
    Deadline,
    /// The process goes down.
    Drain,
    /// The lease is somebody else's; whatever comes out is stale.
    Lost,
}

/// What holds for one run.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) hard: Duration,
    pub(crate) soft: Duration,
    pub(crate) retry: RetryRules,
}

/// One run under way, from its claim until it is recorded.
pub(crate) struct Run {
    pub(crate) id: TaskId,
    pub(crate) lease: RunLease,
    pub(crate) pool: Pool,
    pub(crate) cancel: CancellationToken,
    /// What holds for it, known soon after its start.
    pub(crate) rules: OnceLock<Rules>,
    /// When a thread began with it.
    pub(crate) started: OnceLock<Instant>,
    stop: Mutex<Option<Stop>>,
    renewed: Mutex<Instant>,
    /// What the run said since the latest beat.
    progress: Mutex<Option<NewProgress>>,
}

impl Run {
    /// Tells the run to stop. The first reason counts, but a lost lease outweighs all others.
    pub(crate) fn stop(&self, reason: Stop) {
        {
            let mut stop = lock(&self.stop);
            if stop.is_none() || reason == Stop::Lost {
                *stop = Some(reason);
            }
        }
        self.cancel.cancel();
    }

    pub(crate) fn reason(&self) -> Option<Stop> {
        *lock(&self.stop)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.reason() == Some(Stop::Lost)
    }

    /// Takes what the run said since the latest beat.
    pub(crate) fn take_progress(&self) -> Option<NewProgress> {
        lock(&self.progress).take()
    }

    /// Gives back what a failed beat did not tell, unless the run has said more since.
    pub(crate) fn untold_progress(&self, progress: NewProgress) {
        lock(&self.progress).get_or_insert(progress);
    }

    fn has_progress(&self) -> bool {
        lock(&self.progress).is_some()
    }

    /// The lease was prolonged by a call made at `at`.
    pub(crate) fn renew(&self, at: Instant) {
        let mut renewed = lock(&self.renewed);
        *renewed = at.max(*renewed);
    }

    /// How long the lease has not been prolonged.
    pub(crate) fn unrenewed(&self) -> Duration {
        lock(&self.renewed).elapsed()
    }
}

/// All runs of this process.
pub(crate) struct Runs {
    table: Mutex<HashMap<(TaskId, RunLease), Arc<Run>>>,
    count: watch::Sender<usize>,
    /// A cancel came for a task that is not here: perhaps it was just being claimed.
    missed_cancel: AtomicBool,
    /// Wakes the heartbeat before its time.
    pub(crate) beat_now: Notify,
    /// A run has said how far it is.
    pub(crate) progressed: Notify,
}

impl Runs {
    pub(crate) fn new() -> Self {
        Self {
            table: Mutex::default(),
            count: watch::Sender::new(0),
            missed_cancel: AtomicBool::new(false),
            beat_now: Notify::new(),
            progressed: Notify::new(),
        }
    }

    /// Adds a run that was claimed by a call made at `claimed_at`.
    pub(crate) fn insert(&self, id: TaskId, lease: RunLease, pool: Pool, claimed_at: Instant) -> Arc<Run> {
        let run = Arc::new(Run {
            id,
            lease,
            pool,
            cancel: CancellationToken::new(),
            rules: OnceLock::new(),
            started: OnceLock::new(),
            stop: Mutex::new(None),
            renewed: Mutex::new(claimed_at),
            progress: Mutex::new(None),
        });
        let older: Vec<_> = {
            let mut table = lock(&self.table);
            let older = table.values().filter(|other| other.id == id).cloned();
            let older = older.collect();
            table.insert((id, lease), Arc::clone(&run));
            self.count.send_replace(table.len());
            older
        };
        // The task was taken from an older run of our own that has not noticed yet.
        for other in older {
            other.stop(Stop::Lost);
        }
        if self.missed_cancel.swap(false, Ordering::AcqRel) {
            self.beat_now.notify_one();
        }
        metrics::PERMITS_IN_USE.with_label_values(&[pool.as_str()]).inc();
        run
    }

    pub(crate) fn remove(&self, run: &Run) {
        let mut table = lock(&self.table);
        if table.remove(&(run.id, run.lease)).is_some() {
            metrics::PERMITS_IN_USE.with_label_values(&[run.pool.as_str()]).dec();
        }
        self.count.send_replace(table.len());
    }

    /// Somebody wants the task stopped. If it is not here, the next claim asks the store: the task may be between its
    /// claim and this table.
    pub(crate) fn cancel(&self, id: TaskId) {
        let found: Vec<_> = {
            let table = lock(&self.table);
            let found: Vec<_> = table.values().filter(|run| run.id == id).cloned().collect();
            if found.is_empty() {
                self.missed_cancel.store(true, Ordering::Release);
            }
            found
        };
        for run in found {
            run.stop(Stop::Cancel);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Run>> {
        lock(&self.table).values().cloned().collect()
    }

    /// Runs that have said how far they are since the latest beat.
    pub(crate) fn with_progress(&self) -> Vec<Arc<Run>> {
        let table = lock(&self.table);
        table.values().filter(|run| run.has_progress()).cloned().collect()
    }

    /// Keeps what a run says until the next beat takes it along; only the latest word counts.
    pub(crate) fn progress(&self, run: &Run, progress: NewProgress) {
        *lock(&run.progress) = Some(progress);
        self.progressed.notify_one();
    }

    /// Runs of one pool.
    pub(crate) fn of(&self, pool: Pool) -> usize {
        lock(&self.table).values().filter(|run| run.pool == pool).count()
    }

    /// Waits until there are none.
    pub(crate) async fn none(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! How many tasks a pool may have claimed at once; the number may change while tasks run.
//!
//! **Rejected.** tokio's semaphore: permits that are taken cannot be withdrawn, so a lower limit would need a second
//! account of what is owed.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Instant;
use tokio::sync::Notify;

/// The permits of one pool.
pub(crate) struct Permits {
    state: Mutex<State>,
    changed: Notify,
    /// How long all permits were taken, in nanoseconds, while somebody asked for one.
    waited_ns: AtomicU64,
}

#[derive(Debug)]
struct State {
    limit: u32,
    taken: u32,
}

/// Some permits; they are free again when this is dropped.
pub(crate) struct Permit {
    permits: Arc<Permits>,
    count: u32,
}

impl Permits {
    pub(crate) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { limit, taken: 0 }),
            changed: Notify::new(),
            waited_ns: AtomicU64::new(0),
        })
    }

    pub(crate) fn limit(&self) -> u32 {
        self.lock().limit
    }

    /// What is taken beyond a lower limit stays taken until it is given back.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.lock().limit = limit;
        self.changed.notify_one();
    }

    /// Seconds in which all permits were taken and one was asked for.
    pub(crate) fn waited_seconds(&self) -> f64 {
        std::time::Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// All permits that are free; waits until one is. Only one caller may wait at a time.
    pub(crate) async fn take_free(self: &Arc<Self>) -> Permit {
        let mut waited = Waited {
            permits: self,
            since: None,
        };
        loop {
            if let Some(permit) = self.try_take_free() {
                return permit;
            }
            waited.since.get_or_insert_with(Instant::now);
            // A permit that came back in between is remembered.
            self.changed.notified().await;
        }
    }

    fn try_take_free(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.lock();
        let count = state.limit.saturating_sub(state.taken);
        state.taken += count;
        (count > 0).then(|| Permit {
            permits: Arc::clone(self),
            count,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// One of them.
    pub(crate) fn split_one(&mut self) -> Option<Self> {
        self.count = self.count.checked_sub(1)?;
        Some(Self {
            permits: Arc::clone(&self.permits),
            count: 1,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        state.taken = state.taken.saturating_sub(self.count);
        drop(state);
        self.permits.changed.notify_one();
    }
}

struct Waited<'a> {
    permits: &'a Permits,
    since: Option<Instant>,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.since {
            let ns = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.permits.waited_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }
}

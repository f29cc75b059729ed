//! Which models are in memory.
//!
//! **Problem.** More models are declared than fit into memory, and loading one takes seconds. **Promise.** A call for a
//! model that is not loaded loads it and waits for that, as long as its deadline allows; callers of the same model wait for
//! the same load. What loaded models are reckoned with stays within the budget: the least recently used model that nobody
//! is using and nobody pinned makes room; a model in use is never taken away from its callers, but after a while it takes
//! no new ones until it has made room. A model that cannot be loaded does not touch the others; it is tried again, by the
//! next call, after a pause that grows. **Cost.** One thread (`infer-keeper`) that loads and frees, one model at a time; a
//! lock of some hundred nanoseconds at both ends of a call. **Rejected.** Loading on the caller's thread (callers are
//! guests' threads); counting models instead of bytes; evicting by the process's resident memory, which sandboxes and page
//! cache move too.

mod keeper;
mod table;

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use crate::call::CallContext;
use crate::error::Error;
use crate::loader::{Loaded, Loader};
use crate::metrics;
use crate::model::{Load, MemoryStatus, ModelId, ModelSpec, ModelStatus};
use table::{Entry, Phase, Table};

/// The declared models, and the thread that loads and frees them.
pub(crate) struct Residency {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    table: Mutex<Table>,
    /// Told when the keeper may have something to do.
    wake: Condvar,
    loader: Loader,
    budget: u64,
    budget_reason: &'static str,
    /// Calls that may wait for one load.
    queue: usize,
}

/// A loaded model that is not freed before this is dropped.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    loaded: Arc<Loaded>,
    /// Whether it is counted among the model's uses.
    counted: bool,
}

impl Residency {
    /// Loads what is to be loaded at start, and starts the keeper.
    pub(crate) fn start(loader: Loader, models: Vec<ModelSpec>) -> Result<Self, Error> {
        let (budget, budget_reason) = loader.options.budget();
        let at_start: Vec<String> = models
            .iter()
            .filter(|spec| spec.load == Load::Start)
            .map(|spec| spec.name.clone())
            .collect();
        let shared = Arc::new(Shared {
            table: Mutex::new(Table::new(models)),
            wake: Condvar::new(),
            queue: loader.options.queue.max(1),
            loader,
            budget,
            budget_reason,
        });
        metrics::BUDGET.set(i64::try_from(budget).unwrap_or(i64::MAX));
        for name in at_start {
            if let Err(error) = keeper::load_at_start(&shared, &name) {
                keeper::stop(&shared);
                return Err(error);
            }
        }
        let keeping = Arc::clone(&shared);
        let keeper = std::thread::Builder::new()
            .name("infer-keeper".to_owned())
            .spawn(move || keeper::keep(&keeping))
            .map_err(|error| Error::Native(format!("cannot start the thread that loads models: {error}")))?;
        Ok(Self {
            shared,
            keeper: Mutex::new(Some(keeper)),
        })
    }

    /// The model, loading it if need be. `force`: also if it is too early to try a failed load again.
    pub(crate) async fn lease(&self, model: &str, call: &CallContext, force: bool) -> Result<Lease, Error> {
        let waiting = match self.request(model, force)? {
            Ok(lease) => return Ok(lease),
            Err(waiting) => waiting,
        };
        tokio::select! {
            biased;
            error = call.given_up() => Err(error),
            answer = waiting => answer.unwrap_or(Err(Error::ShuttingDown)),
        }
    }

    /// A lease at once, or the place where it will arrive.
    fn request(
        &self,
        model: &str,
        force: bool,
    ) -> Result<Result<Lease, oneshot::Receiver<Result<Lease, Error>>>, Error> {
        let now = Instant::now();
        let mut table = self.shared.lock();
        let ticket = table.next_ticket();
        let entry = table.find_mut(model)?;
        match &entry.phase {
            Phase::Ready(loaded) if !entry.draining && loaded.is_alive() => {
                let loaded = Arc::clone(loaded);
                entry.in_use += 1;
                entry.publish();
                return Ok(Ok(Lease {
                    shared: Arc::clone(&self.shared),
                    loaded,
                    counted: true,
                }));
            }
            Phase::Stopped => return Err(Error::ShuttingDown),
            Phase::Failed { error, retry_at } if !force && now < *retry_at => {
                return Err(Error::LoadFailed {
                    model: model.to_owned(),
                    reason: error.to_string(),
                    retry_seconds: (*retry_at - now).as_secs() + 1,
                });
            }
            _ => {}
        }
        entry.forget_gone();
        if entry.waiters.len() >= self.shared.queue {
            return Err(Error::Busy {
                model: model.to_owned(),
                limit: self.shared.queue,
            });
        }
        if matches!(entry.phase, Phase::Evicted | Phase::Failed { .. }) {
            entry.phase = Phase::Wanted { ticket, since: now };
        }
        let (reply, waiting) = oneshot::channel();
        entry.waiters.push(reply);
        entry.publish();
        drop(table);
        self.shared.wake.notify_one();
        Ok(Err(waiting))
    }

    /// Frees a loaded model now; a model that is not loaded stays so.
    pub(crate) async fn unload(&self, model: &str) -> Result<(), Error> {
        let freed = {
            let mut table = self.shared.lock();
            let entry = table.find_mut(model)?;
            entry.forget_gone();
            let calls = entry.in_use + entry.waiters.len();
            match &entry.phase {
                Phase::Ready(_) | Phase::Wanted { .. } | Phase::Loading if calls > 0 => {
                    return Err(Error::InUse {
                        model: model.to_owned(),
                        calls,
                    });
                }
                Phase::Ready(_) => {}
                _ => return Ok(()),
            }
            entry.unload = Some("request");
            let (reply, freed) = oneshot::channel();
            entry.freed.push(reply);
            freed
        };
        self.shared.wake.notify_one();
        freed.await.map_err(|_| Error::ShuttingDown)
    }

    /// Keeps a model in memory when others need room, or no longer.
    pub(crate) fn pin(&self, model: &str, pinned: bool) -> Result<(), Error> {
        self.shared.lock().find_mut(model)?.pinned = pinned;
        self.shared.wake.notify_one();
        Ok(())
    }

    /// The declaration of a model.
    pub(crate) fn declared<T>(&self, model: &str, read: impl FnOnce(&ModelSpec) -> T) -> Result<T, Error> {
        self.shared.lock().find_mut(model).map(|entry| read(&entry.spec))
    }

    pub(crate) fn statuses(&self) -> Vec<ModelStatus> {
        self.shared.lock().entries.values().map(Entry::status).collect()
    }

    pub(crate) fn memory(&self) -> MemoryStatus {
        let table = self.shared.lock();
        MemoryStatus {
            budget_bytes: self.shared.budget,
            reason: self.shared.budget_reason,
            used_bytes: table.used(),
            peak_bytes: table.peak,
        }
    }

    /// Ends all workers and frees all models; harmless when repeated.
    pub(crate) fn stop(&self) {
        self.shared.loader.shutdown.cancel();
        self.shared.lock().stopping = true;
        self.shared.wake.notify_one();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && keeper.join().is_err()
        {
            tracing::error!("the thread that loads models had panicked");
        }
        keeper::stop(&self.shared);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Which model.
    pub(crate) fn id(&self) -> &ModelId {
        &self.loaded.id
    }
}

impl Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lease").field(&self.loaded.id).finish()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let mut table = self.shared.lock();
        let someone_waits = table.someone_waits();
        let Ok(entry) = table.find_mut(&self.loaded.id.name) else {
            return;
        };
        entry.in_use = entry.in_use.saturating_sub(1);
        entry.last_used = Some((Instant::now(), SystemTime::now()));
        entry.publish();
        // An idle timer is set when a model becomes idle.
        if entry.in_use == 0 && (someone_waits || entry.spec.idle_unload_seconds > 0 || !self.loaded.is_alive()) {
            drop(table);
            self.shared.wake.notify_one();
        }
    }
}

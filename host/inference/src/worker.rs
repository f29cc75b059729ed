//! One OS thread per loaded model, fed through a bounded queue.
//!
//! Problem: native contexts are not shareable, and native calls block. Promise: a model is used by
//! its own thread only; a full queue answers `busy` at once; a dead worker is visible. Cost: one
//! model does one step at a time. Rejected: `spawn_blocking` around a mutex, where waiting callers
//! hold threads and have no order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::error::Error;
use crate::metrics;

/// Told by a worker's body when its model is loaded.
pub(crate) struct Ready(SyncSender<Result<(), Error>>);

impl Ready {
    pub(crate) fn loaded(self) {
        // `start` waits for this; if it is gone, so is the queue, and the body ends by itself.
        let _ = self.0.try_send(Ok(()));
    }
}

pub(crate) struct Worker<J> {
    model: String,
    limit: usize,
    /// Jobs that are handed over and not begun, where the body takes them out of the queue earlier.
    waiting: Option<Arc<AtomicUsize>>,
    alive: Arc<AtomicBool>,
    queue: Mutex<Option<SyncSender<J>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct AliveGuard(Arc<AtomicBool>);

impl Drop for AliveGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<J: Send + 'static> Worker<J> {
    /// Starts the thread and waits until `body` said [`Ready::loaded`] or ended.
    pub(crate) fn start(
        model: &str,
        limit: usize,
        body: impl FnOnce(Ready, &Receiver<J>) -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let (sender, jobs) = sync_channel(limit.max(1));
        let (ready, loaded) = sync_channel(1);
        let alive = Arc::new(AtomicBool::new(true));
        let guard = AliveGuard(Arc::clone(&alive));
        let name = model.to_owned();
        let thread = std::thread::Builder::new()
            .name(format!("infer-{model}"))
            .spawn(move || {
                let _guard = guard;
                let failed = ready.clone();
                if let Err(error) = body(Ready(ready), &jobs)
                    && failed.try_send(Err(error.clone())).is_err()
                {
                    tracing::error!(model = name, %error, "model worker ended");
                }
            })
            .map_err(|error| Error::Native(format!("cannot start a thread for model {model}: {error}")))?;
        loaded
            .recv()
            .map_err(|_| Error::Native(format!("model {model}: the worker died while loading")))??;
        Ok(Self {
            model: model.to_owned(),
            limit: limit.max(1),
            waiting: None,
            alive,
            queue: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The same for a body that takes jobs out of the queue before it begins them: it lowers `waiting`
    /// by one for each job that it begins or refuses, and so many may wait.
    pub(crate) fn start_counting(
        model: &str,
        limit: usize,
        waiting: Arc<AtomicUsize>,
        body: impl FnOnce(Ready, &Receiver<J>) -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let mut worker = Self::start(model, limit, body)?;
        worker.waiting = Some(waiting);
        Ok(worker)
    }

    /// Hands a job over without waiting; `owner` is who asks, for the metrics.
    pub(crate) fn submit(&self, job: J, owner: &str) -> Result<(), Error> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted under the lock and before the hand-over, so that no more than `limit` pass and the
        // body never lowers what was not raised.
        let counted = self.waiting.as_ref().filter(|waiting| {
            let counted = waiting.load(Ordering::Acquire) < self.limit;
            if counted {
                waiting.fetch_add(1, Ordering::AcqRel);
            }
            counted
        });
        let handed_over = queue.as_ref().map(|queue| {
            if self.waiting.is_some() && counted.is_none() {
                return Err(TrySendError::Full(job));
            }
            queue.try_send(job)
        });
        if let (Some(counted), Some(Err(_)) | None) = (counted, &handed_over) {
            counted.fetch_sub(1, Ordering::AcqRel);
        }
        let refusal = match handed_over {
            Some(Ok(())) => return Ok(()),
            None => Error::ShuttingDown,
            Some(Err(TrySendError::Full(_))) => Error::Busy {
                model: self.model.clone(),
                limit: self.limit,
            },
            Some(Err(TrySendError::Disconnected(_))) => self.died(),
        };
        metrics::CALLS
            .with_label_values(&[self.model.as_str(), owner, refusal.code()])
            .inc();
        Err(refusal)
    }

    /// What a caller hears whose job was dropped.
    pub(crate) fn died(&self) -> Error {
        Error::Native(format!("the worker of model {} died", self.model))
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Takes no more jobs and waits for the thread; harmless when repeated.
    pub(crate) fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(model = self.model, "model worker had panicked");
        }
    }
}

//! One OS thread per loaded model, fed through a bounded queue.
//!
//! Problem: native contexts are not shareable, and native calls block. Promise: a model is used by
//! its own thread only; a full queue answers `busy` at once; a dead worker is visible. Cost: one
//! model does one step at a time. Rejected: `spawn_blocking` around a mutex, where waiting callers
//! hold threads and have no order.

use std::sync::atomic::{AtomicBool, Ordering};
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
            alive,
            queue: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands a job over without waiting; `owner` is who asks, for the metrics.
    pub(crate) fn submit(&self, job: J, owner: &str) -> Result<(), Error> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = match queue.as_ref().map(|queue| queue.try_send(job)) {
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

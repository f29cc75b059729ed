//! Stops a native run when nobody waits for it any more.
//!
//! One run may serve several calls: it is told to terminate when the last of them has left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::RunOptions;

use super::graph::native;
use crate::error::Error;

/// One native run.
pub(crate) struct Run {
    pub(crate) options: RunOptions,
    wanted_by: AtomicUsize,
}

impl Run {
    pub(crate) fn start(calls: usize) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            options: RunOptions::new().map_err(native)?,
            wanted_by: AtomicUsize::new(calls),
        }))
    }
}

/// The run that a call takes part in, if it is being worked on.
#[derive(Default)]
pub(crate) struct RunSlot(Mutex<Option<Arc<Run>>>);

impl RunSlot {
    pub(crate) fn enter(&self, run: &Arc<Run>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(run));
    }

    pub(crate) fn clear(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The caller is gone.
    pub(crate) fn leave(&self) {
        let run = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(run) = run
            && run.wanted_by.fetch_sub(1, Ordering::AcqRel) == 1
            && let Err(error) = run.options.terminate()
        {
            tracing::warn!(%error, "a native run could not be told to terminate");
        }
    }
}

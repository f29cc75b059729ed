//! The epoch: one OS thread per engine, at normal priority, that ends every slice of guest time.
//!
//! It must not be a task of an async runtime: a guest that spins would stop the runtime that is to stop it.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Error;

/// Stops its thread when dropped.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: &wasmtime::Engine, epoch: Duration) -> Result<Self, Error> {
        let engine = engine.weak();
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("fw-epoch".into())
            .spawn(move || {
                while stopped.recv_timeout(epoch) == Err(RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                }
            })
            .map_err(Error::Ticker)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the ticker has been printed; there is nothing to add to it here.
            let _ended = thread.join();
        }
    }
}

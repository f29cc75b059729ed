//! The epoch: one OS thread per engine, at normal priority, that ends every slice of guest time.
//!
//! It must not be a task of an async runtime: a guest that spins would stop the runtime that is to stop it.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Error;

/// Stops its thread when dropped.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Ends an epoch every `epoch`, and calls `every_second` about as often as it says.
    pub(crate) fn start(
        engine: &wasmtime::Engine,
        epoch: Duration,
        every_second: impl Fn() + Send + 'static,
    ) -> Result<Self, Error> {
        let engine = engine.weak();
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new()
            .name("fw-epoch".into())
            .spawn(move || {
                let mut last = Instant::now();
                while stopped.recv_timeout(epoch) == Err(RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                    if last.elapsed() >= Duration::from_secs(1) {
                        every_second();
                        last = Instant::now();
                    }
                }
            })
            .map_err(Error::Thread)?;
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

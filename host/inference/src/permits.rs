//! The one limit on concurrent native work.
//!
//! Problem: llama.cpp and ONNX Runtime each believe that the machine is theirs. Promise: at most
//! `n` native steps run at once, in the order they asked. A permit is held for one **step** (an
//! encoder batch, a part of a prompt, one token), never for a whole generation, so an embedding
//! waits for one token and not for five minutes of text. Cost: two lock operations per step, under a
//! microsecond against milliseconds. Rejected: a permit per request (starves short work), tokio's
//! semaphore (the workers are plain threads).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(crate) struct Permits {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    next_ticket: u64,
    serving: u64,
}

/// Gives the permit back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            state: Mutex::new(State {
                free: count.max(1),
                next_ticket: 0,
                serving: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// Waits for a turn, first come first served.
    pub(crate) fn acquire(&self) -> Permit<'_> {
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        while state.serving != ticket || state.free == 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.serving += 1;
        state.free -= 1;
        self.changed.notify_all();
        Permit(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.changed.notify_all();
    }
}

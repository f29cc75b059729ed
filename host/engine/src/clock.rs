//! The CPU time of a guest: the time its thread ran while the call was being polled.
//!
//! A guest that waits for inference is not polled, so the models' time is not its own. What host functions do
//! synchronously is counted, as it is the guest's doing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use nix::time::{ClockId, clock_gettime};

/// CPU time of the current thread, nanoseconds.
fn thread_cpu_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// Adds up the CPU time of one call.
#[derive(Debug, Default)]
pub(crate) struct CpuClock {
    /// Of the polls that have ended.
    finished_ns: AtomicU64,
    /// The thread's clock when the running poll began.
    poll_began_ns: AtomicU64,
}

impl CpuClock {
    /// All of it, once no poll is running.
    pub(crate) fn total_ns(&self) -> u64 {
        self.finished_ns.load(Ordering::Relaxed)
    }

    /// All of it, from within a poll.
    pub(crate) fn running_ns(&self) -> u64 {
        self.total_ns() + thread_cpu_ns().saturating_sub(self.poll_began_ns.load(Ordering::Relaxed))
    }
}

/// A future whose polls are timed.
pub(crate) struct CpuTimed<F> {
    clock: Arc<CpuClock>,
    future: Pin<Box<F>>,
}

impl<F> CpuTimed<F> {
    pub(crate) fn new(clock: Arc<CpuClock>, future: F) -> Self {
        Self {
            clock,
            future: Box::pin(future),
        }
    }
}

impl<F: Future> Future for CpuTimed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let began = thread_cpu_ns();
        self.clock.poll_began_ns.store(began, Ordering::Relaxed);
        let poll = self.future.as_mut().poll(context);
        let spent = thread_cpu_ns().saturating_sub(began);
        self.clock.finished_ns.fetch_add(spent, Ordering::Relaxed);
        poll
    }
}

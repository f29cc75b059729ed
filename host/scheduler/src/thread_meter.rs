//! What one thread uses: CPU time as the kernel counts it, and the share of time in which it had something to do.
//!
//! Both are read from outside while the thread computes, so that a guest that does not yield is seen while it runs,
//! not when it is over.

use nix::{
    sys::time::TimeValLike,
    time::{ClockId, clock_gettime},
    unistd::gettid,
};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Meter of one thread. The thread itself calls `begin`, `parked`, `unparked` and `end`; anybody reads.
#[derive(Debug)]
pub(crate) struct ThreadMeter {
    zero: Instant,
    clock: OnceLock<ClockId>,
    busy_ns: AtomicU64,
    /// When it became busy, in nanoseconds after `zero`; 0 while parked.
    busy_since_ns: AtomicU64,
    cpu_ns: AtomicU64,
    /// Its id may be another thread's by now.
    ended: AtomicBool,
}

impl ThreadMeter {
    pub(crate) fn new() -> Self {
        Self {
            zero: Instant::now(),
            clock: OnceLock::new(),
            busy_ns: AtomicU64::new(0),
            busy_since_ns: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    /// The calling thread is the metered one.
    pub(crate) fn begin(&self) {
        // The kernel's name for the CPU clock of thread `tid`, as pthread_getcpuclockid makes it:
        // the inverted id, shifted by three, with the bits "per thread" (4) and "scheduler clock" (2).
        let clock = (!gettid().as_raw() << 3) | 6;
        let _ = self.clock.set(ClockId::from_raw(clock));
        self.unparked();
    }

    /// The metered thread is about to end.
    pub(crate) fn end(&self) {
        self.parked();
        self.cpu();
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn unparked(&self) {
        self.busy_since_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    pub(crate) fn parked(&self) {
        let since = self.busy_since_ns.swap(0, Ordering::Relaxed);
        if since > 0 {
            let passed = self.now_ns().saturating_sub(since);
            self.busy_ns.fetch_add(passed, Ordering::Relaxed);
        }
    }

    /// Seconds in which the thread had something to do, since it began.
    pub(crate) fn busy_seconds(&self) -> f64 {
        let since = self.busy_since_ns.load(Ordering::Relaxed);
        let running = match since {
            0 => 0,
            since => self.now_ns().saturating_sub(since),
        };
        seconds(self.busy_ns.load(Ordering::Relaxed).saturating_add(running))
    }

    /// CPU time the thread has used; what was last seen once it has ended.
    pub(crate) fn cpu(&self) -> Duration {
        if !self.ended.load(Ordering::Acquire)
            && let Some(clock) = self.clock.get()
            && let Ok(used) = clock_gettime(*clock)
            && let Ok(used) = u64::try_from(used.num_nanoseconds())
        {
            self.cpu_ns.fetch_max(used, Ordering::Relaxed);
        }
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of years fit a double to the microsecond"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

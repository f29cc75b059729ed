//! The CPU account of one pool, kept by the process itself.
//!
//! **Problem.** A pool shall use half a CPU although its threads, and the native workers it shares with other pools,
//! could use more; a kernel quota cannot count shared workers, and stops threads that hold locks. **Promise.** Credit
//! grows with time at the pool's rate and shrinks by the CPU time its threads used (read from their CPU clocks, also
//! while they compute) and by what native workers used for it. Who asks while credit is used up waits: a guest at the
//! end of its epoch, a generation between two tokens, a run before it starts. They stand in line: whoever waits longest
//! gets the next credit. Over seconds the pool uses what its rate says; a debt is paid back in full. **Cost.** Some
//! microseconds per look, a look per epoch of a guest. **Rejected.** A full stop until the next period, as the kernel's
//! quota does it: with a period of 100 ms everything in the pool then stands still for tens of milliseconds; here a
//! guest of a pool with half a CPU computes 5 ms and waits 5. Forgiving debts: a long native step would not count.

use crate::limits;
use formwork_tasks::Pool;
use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Reads the time.
pub type Clock = Box<dyn Fn() -> Instant + Send + Sync>;

/// Reads how much CPU time the pool's own threads have used so far.
pub type CpuMeter = Box<dyn Fn() -> Duration + Send + Sync>;

/// The CPU account of one pool. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

/// What went through an account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetUsage {
    /// CPU time in all: the pool's threads and native workers on its behalf.
    pub cpu: Duration,
    /// Of that, native workers.
    pub native: Duration,
    /// What it may use now, in CPUs; nothing: as much as its threads can.
    pub rate: Option<f64>,
    /// Guests and generations that wait for credit.
    pub parked: usize,
    /// How long guests and generations have waited for credit, added up.
    pub parked_time: Duration,
}

struct Inner {
    pool: Pool,
    clock: Clock,
    threads: CpuMeter,
    native_ns: AtomicU64,
    /// Whether there is a rate; without one nobody asks for the time.
    limited: AtomicBool,
    account: Mutex<Account>,
    /// The rate has changed.
    changed: Notify,
    /// Held by the first of those who wait for credit. tokio's lock is given in the order in which it was asked for.
    line: tokio::sync::Mutex<()>,
    parked: AtomicUsize,
    parked_ns: AtomicU64,
}

struct Account {
    /// CPUs.
    rate: Option<f64>,
    /// Seconds of CPU; negative: a debt.
    credit: f64,
    at: Instant,
    cpu: Duration,
}

impl Budget {
    /// The account of a pool whose threads are read by `threads`. `rate` is what the pool may use, in CPUs.
    #[must_use]
    pub fn new(pool: Pool, rate: Option<f64>, clock: Clock, threads: CpuMeter) -> Self {
        let account = Account {
            rate,
            credit: 0.0,
            at: clock(),
            cpu: threads(),
        };
        Self {
            inner: Arc::new(Inner {
                pool,
                clock,
                threads,
                native_ns: AtomicU64::new(0),
                limited: AtomicBool::new(rate.is_some()),
                account: Mutex::new(account),
                changed: Notify::new(),
                line: tokio::sync::Mutex::default(),
                parked: AtomicUsize::new(0),
                parked_ns: AtomicU64::new(0),
            }),
        }
    }

    /// Whose account it is.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.inner.pool
    }

    /// What it may use from now on, in CPUs.
    pub fn set_rate(&self, rate: Option<f64>) {
        let inner = &self.inner;
        {
            let mut account = inner.account();
            if account.rate == rate {
                return;
            }
            inner.settle(&mut account);
            account.rate = rate;
            inner.limited.store(rate.is_some(), Ordering::Release);
        }
        inner.changed.notify_waiters();
    }

    /// A native worker used CPU on the pool's behalf.
    pub fn charge(&self, used: Duration) {
        let ns = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.inner.native_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// `None` while there is credit; else how long until there is, if nobody uses more meanwhile.
    #[must_use]
    pub fn overdrawn(&self) -> Option<Duration> {
        let inner = &self.inner;
        if !inner.limited.load(Ordering::Acquire) {
            return None;
        }
        let mut account = inner.account();
        inner.settle(&mut account);
        let rate = account.rate?;
        if account.credit >= 0.0 {
            return None;
        }
        let wait = -account.credit / rate;
        Some(Duration::from_secs_f64(wait).max(limits::BUDGET_WAIT_LEAST))
    }

    /// Waits until there is credit and everybody who waited before has had their turn.
    pub async fn credit(&self) {
        let _first = self.inner.line.lock().await;
        loop {
            let mut changed = pin!(self.inner.changed.notified());
            // Listen first, then look, then wait: a change in between is not missed.
            changed.as_mut().enable();
            let Some(wait) = self.overdrawn() else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    /// [`Self::credit`] for what is under way: it is counted as parked meanwhile.
    pub async fn park(&self) {
        if self.overdrawn().is_none() {
            return;
        }
        let _parked = Parked::begin(&self.inner);
        self.credit().await;
    }

    /// Something that is not a future stood still for want of credit.
    pub fn stood_still(&self, time: Duration) {
        self.inner.add_parked(time);
    }

    /// What went through the account.
    #[must_use]
    pub fn usage(&self) -> BudgetUsage {
        let inner = &self.inner;
        let native = inner.native();
        BudgetUsage {
            cpu: (inner.threads)() + native,
            native,
            rate: inner.account().rate,
            parked: inner.parked.load(Ordering::Relaxed),
            parked_time: Duration::from_nanos(inner.parked_ns.load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Budget")
            .field("pool", &self.inner.pool)
            .field("usage", &self.usage())
            .finish()
    }
}

impl Inner {
    fn account(&self) -> MutexGuard<'_, Account> {
        // No code that can panic runs under this lock.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn native(&self) -> Duration {
        Duration::from_nanos(self.native_ns.load(Ordering::Relaxed))
    }

    /// Credits the time that passed and debits the CPU that was used.
    fn settle(&self, account: &mut Account) {
        let (now, cpu) = ((self.clock)(), (self.threads)() + self.native());
        let passed = now.saturating_duration_since(account.at).as_secs_f64();
        let used = cpu.saturating_sub(account.cpu).as_secs_f64();
        (account.at, account.cpu) = (account.at.max(now), account.cpu.max(cpu));
        account.credit = match account.rate {
            None => 0.0,
            Some(rate) => {
                let most = rate * limits::BUDGET_SAVED.as_secs_f64();
                (account.credit + rate * passed - used).min(most)
            }
        };
    }

    fn add_parked(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.parked_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// Counts the time until it is dropped, also when whoever waited is cancelled.
struct Parked<'a> {
    inner: &'a Inner,
    began: Instant,
}

impl<'a> Parked<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.parked.fetch_add(1, Ordering::Relaxed);
        let began = (inner.clock)();
        Self { inner, began }
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.inner.parked.fetch_sub(1, Ordering::Relaxed);
        let until = (self.inner.clock)();
        self.inner.add_parked(until.saturating_duration_since(self.began));
    }
}

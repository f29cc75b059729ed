//! Whose CPU native work is.
//!
//! Problem: models run on threads of their own, so the CPU limit of the pool that asked would not hold for
//! them. Promise: the time is charged to the caller's budget as it is used, and work for a caller whose
//! budget is overdrawn waits: before it is queued, and a generation also between two parts of a prompt and
//! between two tokens. Cost: two readings of the thread's CPU clock per step. Rejected: moving the workers
//! into the caller's cgroup (a model serves all pools); wall time (a step that had to wait for a CPU would
//! be charged for the waiting).

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::call::CallContext;
use crate::error::Error;

/// How long a worker whose callers all wait for credit sleeps between two looks at cancellation and deadline.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The CPU account of whoever calls. What implements it knows the limit.
pub trait CpuBudget: Debug + Send + Sync {
    /// CPU time was used natively on the caller's behalf.
    fn charge(&self, used: Duration);

    /// `None` while CPU may be used; else about how long until it may be used again.
    fn overdrawn(&self) -> Option<Duration>;

    /// Resolves when CPU may be used.
    fn park(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// A native worker stood still for so long because the budget was overdrawn.
    fn stood_still(&self, time: Duration);
}

impl CallContext {
    /// Waits until the caller may use CPU, as long as the call is wanted.
    pub(crate) async fn credit(&self) -> Result<(), Error> {
        let Some(budget) = self.budget.as_ref().filter(|budget| budget.overdrawn().is_some()) else {
            return Ok(());
        };
        tokio::select! {
            biased;
            error = self.given_up() => Err(error),
            () = budget.park() => Ok(()),
        }
    }

    /// About how long until the caller may use CPU again; `None` when it may now.
    pub(crate) fn overdrawn(&self) -> Option<Duration> {
        self.budget.as_ref()?.overdrawn()
    }

    /// Runs a native step and charges its CPU time to the caller. Native threads work in step, so the calling
    /// thread's time stands for each of the `threads`.
    pub(crate) fn metered<T>(&self, threads: usize, step: impl FnOnce() -> T) -> T {
        let Some(budget) = &self.budget else {
            return step();
        };
        let (result, used) = measured(step);
        budget.charge(used * u32::try_from(threads).unwrap_or(1).max(1));
        result
    }
}

/// Runs a native step; answers the CPU time that this thread used for it.
pub(crate) fn measured<T>(step: impl FnOnce() -> T) -> (T, Duration) {
    let began = thread_cpu();
    let result = step();
    (result, thread_cpu().saturating_sub(began))
}

/// CPU time of the current thread.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

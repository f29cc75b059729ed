//! How the operating system ranks the threads of a pool against each other.
//!
//! A thread that computes for `batched` must not delay one that answers a person. `SCHED_BATCH` with niceness 19 does
//! that without a quota (a quota stops threads that hold locks, and leaves idle CPUs idle). Raising one's own niceness
//! needs no privilege. A refusal (a seccomp profile) is logged; the pool then runs unranked.
#![expect(
    unsafe_code,
    reason = "setpriority and sched_setscheduler have no safe wrapper in nix; both take plain numbers or a pointer to a local"
)]

use crate::limits;
use formwork_tasks::Pool;
use nix::{errno::Errno, libc};

/// Ranks the calling thread for its pool.
pub(crate) fn apply(pool: Pool) {
    let outcome = match pool {
        Pool::High => return,
        Pool::Default => nice(limits::NICE_DEFAULT),
        Pool::Batched => batch().and_then(|()| nice(limits::NICE_BATCHED)),
    };
    if let Err(error) = outcome {
        tracing::warn!(%pool, %error, "thread keeps the usual priority, the system refused to lower it");
    }
}

fn nice(niceness: i32) -> Result<(), Errno> {
    // SAFETY: takes numbers only. On Linux `who` 0 with PRIO_PROCESS is the calling thread.
    let code = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    Errno::result(code).map(drop)
}

fn batch() -> Result<(), Errno> {
    // SAFETY: a C struct of integers, for which all zeros is a value; SCHED_BATCH demands priority 0.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live local that the call only reads; pid 0 is the calling thread.
    let code = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    Errno::result(code).map(drop)
}

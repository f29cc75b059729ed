//! CPU-limited pools that claim tasks, run them on threads of their own and record results.
//!
//! **Problem.** Tasks of very different weight share one machine: a validation somebody waits for, and a generation
//! that may take minutes. A guest that computes must never hold up a request, a timer or a heartbeat; a worker that
//! died, hangs or lost its lease must never lose a task or record it twice. **Promise.** Each pool has its own OS
//! threads and niceness ([`Lane`]), its own permits and its own CPU account ([`Budget`]); a task is claimed only when a permit is free, so claimed
//! work never waits for room; leases are prolonged from a thread no guest can hold up; what is recorded goes through
//! the store's fence. **Cost.** A few threads, one hop between threads per task. **Rejected.** One work-stealing
//! runtime with priorities: a guest that computes holds its thread until it yields, and the operating system cannot
//! tell the threads of one pool from those of another.
//!
//! What a task does is none of this crate's business: it is told by a [`TaskRunner`].

mod budget;
mod cgroup;
mod clock;
mod controls;
mod demand;
mod dispatcher;
mod drain;
mod events;
mod executor;
mod heartbeat;
mod lane;
pub mod limits;
mod machine;
mod metrics;
mod niceness;
mod options;
mod overflow;
mod permits;
mod recorder;
mod recovery;
mod runner;
mod runs;
mod scheduler;
mod thread_meter;

pub use budget::{Budget, BudgetUsage, Clock, CpuMeter};
pub use demand::Demand;
pub use drain::DrainReport;
pub use lane::{Lane, LaneError, LaneUsage};
pub use machine::CpuTicks;
pub use options::{CpuEnforcement, OptionsError, PoolLimits, PoolOptions, Presence, Roles, SchedulerOptions};
pub use runner::{ProgressReporter, RunContext, RunOutcome, StepRules, TaskRunner};
pub use scheduler::{Enforcement, PoolStatus, Scheduler, StartError};

//! The task state machine: what a task may do next, who may make it do so, and what that means for its
//! submission.
//!
//! **Problem.** Every durable queue hides its rules in its queries, so that two backends disagree and a
//! race is found by a user. **Promise.** All rules live here, pure: no I/O, no clock, no randomness
//! (times and random numbers are arguments), so that a backend only loads a [`Lifecycle`], applies one
//! [`Command`] and stores what came out, inside its own transaction. **Cost.** A backend reads a row before
//! it writes it. **Rejected.** Rules as guarded `UPDATE … WHERE state = …` statements: one statement less,
//! but a second copy of the rules for every backend.
//!
//! The fence is [`RunLease`], which rises with every claim of a task and never falls. A worker that shows
//! an older one is stale and records nothing. The attempt counter is not a fence: it falls again when a
//! task is released or retried by an operator.

mod clock;
mod lifecycle;
pub mod pipeline;
mod pool;
mod retry;
mod state;
mod step_rules;

pub use clock::Millis;
pub use lifecycle::{
    Change, Command, DeadReason, Disposition, Lifecycle, Refusal, RunLease, Transition, UnknownDeadReason, Verdict,
};
pub use pipeline::{Assessment, OnReject, Plan, PlanError, Progress, Step, SubmissionStatus};
pub use pool::{Pool, Priority, UnknownPool, UnknownPriority};
pub use retry::{InvalidRetryPolicy, RetryPolicy};
pub use state::{Actor, EDGES, Edge, State, UnknownState};
pub use step_rules::{ErrorRule, RetryRules, RetryWords, StepMaxima, TimeLimits};

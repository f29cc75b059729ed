//! The order of a form's steps, and what the states of its tasks mean for the submission.
//!
//! A [`Plan`] is checked once, when a form version is published. After every change of a task the store
//! asks [`Plan::assess`] in the same transaction, so that two branches that end at the same moment cannot
//! both miss (or both start) the step that joins them.

mod assess;
mod plan;

pub use assess::{Assessment, Progress, SubmissionStatus, UnknownStatus};
pub use plan::{MAX_NAME_LENGTH, MAX_STEPS, OnReject, Plan, PlanError, Step};

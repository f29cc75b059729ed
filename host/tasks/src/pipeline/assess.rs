//! What the states of its tasks mean for a submission.

use super::{OnReject, Plan};
use crate::{State, Verdict};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a submission is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubmissionStatus {
    /// At least one task is still to end.
    Processing,
    /// Every step completed.
    Done,
    /// A step found it invalid and the pipeline stopped.
    Rejected,
    /// A step is dead or was cancelled, so that the pipeline cannot end.
    Failed,
}

impl SubmissionStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Processing, Self::Done, Self::Rejected, Self::Failed];

    /// The name used in APIs, metrics and storage.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Done => "done",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more happens without an operator.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Processing)
    }
}

impl fmt::Display for SubmissionStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A status name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown submission status: {0:?}, expected one of processing, done, rejected, failed")]
pub struct UnknownStatus(pub String);

impl FromStr for SubmissionStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// How far one step's task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The task's state.
    pub state: State,
    /// What it says about the submission, when completed.
    pub verdict: Option<Verdict>,
}

/// What follows from the states of all tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// Steps that have no task yet and may run now: indexes into the plan, ascending.
    pub ready: Vec<usize>,
    /// Tasks to stop because a step rejected the submission: indexes into the plan, ascending.
    pub stop: Vec<usize>,
    /// The submission's status once `ready` are made and `stop` are stopped.
    pub status: SubmissionStatus,
}

impl Plan {
    /// What follows from the tasks so far; `tasks[i]` belongs to step `i`, `None` (or a short slice) means
    /// that it has no task yet.
    ///
    /// A rejection outweighs a failure: the submitter has an answer. After a rejection nothing new starts,
    /// what waits is stopped, and what runs may end.
    #[must_use]
    pub fn assess(&self, tasks: &[Option<Progress>]) -> Assessment {
        let progress = |step: usize| tasks.get(step).copied().flatten();
        let mut steps = 0..self.steps().len();

        let stopped = steps.clone().any(|step| {
            self.steps()[step].on_reject == OnReject::Stop
                && progress(step).is_some_and(|task| task.verdict == Some(Verdict::Rejected))
        });
        if stopped {
            let in_state =
                |step: usize, wanted: &[State]| progress(step).is_some_and(|task| wanted.contains(&task.state));
            let running = steps.clone().any(|step| in_state(step, &[State::Running]));
            let status = if running {
                SubmissionStatus::Processing
            } else {
                SubmissionStatus::Rejected
            };
            let waiting = [State::Available, State::Retryable];
            let stop = steps.filter(|&step| in_state(step, &waiting)).collect();
            return Assessment {
                ready: Vec::new(),
                stop,
                status,
            };
        }

        let completed = |step: usize| progress(step).is_some_and(|task| task.state == State::Completed);
        let active = |step: usize| progress(step).is_some_and(|task| !task.state.is_terminal());
        let ready: Vec<usize> = steps
            .clone()
            .filter(|&step| progress(step).is_none())
            .filter(|&step| self.waits_for[step].iter().all(|&before| completed(before)))
            .collect();
        let status = if !ready.is_empty() || steps.clone().any(active) {
            SubmissionStatus::Processing
        } else if steps.all(completed) {
            SubmissionStatus::Done
        } else {
            SubmissionStatus::Failed
        };
        Assessment {
            ready,
            stop: Vec::new(),
            status,
        }
    }
}

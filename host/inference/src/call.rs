//! Who calls, until when, and how to stop it. Every native step looks here before it starts.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::cpu_budget::CpuBudget;
use crate::error::Error;

/// The frame of one call.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// When the call is given up; `None` waits for as long as it takes.
    pub deadline: Option<Instant>,
    /// Cancels the call: queued work is skipped, running work stops at the next step.
    pub cancel: CancellationToken,
    /// The pool that calls, a metrics label: keep it to a handful of names.
    pub owner: String,
    /// Whose CPU the work is; `None`: nobody's, without a limit.
    pub budget: Option<Arc<dyn CpuBudget>>,
    /// The form that the call is made for, a metrics label; forms beyond [`crate::limits::FORM_LABELS`] are counted together.
    pub form: Option<Arc<str>>,
    /// Whose step comes first where several wait for one model.
    pub priority: Priority,
}

/// How much of a model's time a call gets while others want it too: a high one sixteen times, a normal
/// one four times what a low one gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Priority {
    /// Work that can wait.
    Low,
    /// The usual.
    #[default]
    Normal,
    /// Somebody waits for the answer.
    High,
}

impl CallContext {
    /// `Ok` while the call is still wanted.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::DeadlineExceeded),
            _ => Ok(()),
        }
    }

    /// Resolves when the call is no longer wanted.
    pub(crate) async fn given_up(&self) -> Error {
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Error::Cancelled,
            () = deadline => Error::DeadlineExceeded,
        }
    }

    /// The same frame with a token of its own, so that a dropped call can be stopped alone.
    pub(crate) fn child(&self) -> Self {
        Self {
            deadline: self.deadline,
            cancel: self.cancel.child_token(),
            owner: self.owner.clone(),
            budget: self.budget.clone(),
            form: self.form.clone(),
            priority: self.priority,
        }
    }
}

//! One task's life: the part of a task that decides what may happen to it.
//!
//! A backend loads a [`Lifecycle`], calls [`Lifecycle::apply`] and stores the result in the same
//! transaction. A refused command changes nothing.

use crate::{Actor, Millis, State};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The fencing token of one run of a task: rises by one with every claim and never falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunLease(pub u64);

impl fmt::Display for RunLease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// What a completed step says about the submission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Go on.
    #[default]
    Accepted,
    /// A validator found errors; the pipeline stops unless the step says `on_reject = "continue"`.
    Rejected,
}

impl Verdict {
    /// The name used in APIs and storage.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

/// Why a task is in the dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadReason {
    /// Its error cannot be cured by trying again.
    Failed,
    /// It used all its attempts.
    Exhausted,
    /// Its worker vanished too often: it may be what kills them.
    Crashed,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Failed, Self::Exhausted, Self::Crashed];

    /// The name used in APIs, metrics and storage.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
            Self::Crashed => "crashed",
        }
    }
}

/// A reason that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason: {0:?}, expected one of failed, exhausted, crashed")]
pub struct UnknownDeadReason(pub String);

impl FromStr for DeadReason {
    type Err = UnknownDeadReason;

    fn from_str(text: &str) -> Result<Self, UnknownDeadReason> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownDeadReason(text.to_owned()))
    }
}

/// What shall become of a task whose run did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Try again at this time.
    RetryAt(Millis),
    /// Put it into the dead-letter queue.
    Dead(DeadReason),
    /// The run was stopped because a cancel was requested.
    Cancelled,
}

/// What somebody asks of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// A worker takes the lease until `until`.
    Claim {
        /// When the lease ends unless a heartbeat prolongs it.
        until: Millis,
    },
    /// The worker is alive; its lease now ends at `until` (never earlier than before).
    Heartbeat {
        /// The lease the worker holds.
        lease: RunLease,
        /// The new end.
        until: Millis,
    },
    /// The worker has a result.
    Complete {
        /// The lease the worker holds.
        lease: RunLease,
        /// What the result says about the submission.
        verdict: Verdict,
    },
    /// The worker's run failed.
    Fail {
        /// The lease the worker holds.
        lease: RunLease,
        /// What shall become of the task.
        disposition: Disposition,
    },
    /// The worker gives the task back without spending an attempt (graceful drain).
    Release {
        /// The lease the worker holds.
        lease: RunLease,
    },
    /// The reaper found the lease ended.
    Expire {
        /// The task is dead when its workers vanished this many times (at least 1).
        max_crashes: u32,
    },
    /// The time of the next attempt has come.
    Promote,
    /// A client or operator wants it stopped.
    Cancel,
    /// The pipeline stops before this task.
    Stop,
    /// An operator wants a dead or cancelled task run again (or a retryable one at once).
    Retry,
}

/// A move from one state to another, as it goes into the task's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Who made it move.
    pub actor: Actor,
    /// Why, as a stable code: `claimed, completed, rejected, retry, failed, exhausted, crashed, released, lease_ended,
    /// due, cancelled, pipeline_stopped, operator_retry`.
    pub why: &'static str,
}

/// What an accepted command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The task changed its state.
    Moved(Transition),
    /// Something changed, the state did not (a heartbeat, a cancel request to a running task).
    Kept,
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The worker shows a lease that is not the current one: somebody else has the task, or it ended.
    #[error("stale run lease, the task belongs to another run or has ended")]
    Stale,
    /// Too early: `run_at` has not come, or the lease has not ended.
    #[error("too early, due at {0}")]
    NotDue(Millis),
    /// The task's state does not allow it.
    #[error("a task that is {0} does not allow this")]
    WrongState(State),
}

/// The deciding part of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lifecycle {
    /// Where the task is.
    pub state: State,
    /// The fence; see [`RunLease`].
    pub run_lease: RunLease,
    /// Runs started and not given back. For people and for the retry policy, never a fence.
    pub attempt: u32,
    /// Runs that ended with an error.
    pub errors: u32,
    /// Runs whose worker vanished; counted apart from errors.
    pub crashes: u32,
    /// When it may run.
    pub run_at: Millis,
    /// When the current lease ends; only while running.
    pub lease_until: Option<Millis>,
    /// A cancel was requested while it was running.
    pub cancel_requested: bool,
    /// What its result says; only when completed.
    pub verdict: Option<Verdict>,
    /// Why it is dead; only when dead.
    pub dead_reason: Option<DeadReason>,
}

impl Lifecycle {
    /// A task that has just been made and may run at once; `run_at` is now.
    #[must_use]
    pub const fn new(run_at: Millis) -> Self {
        Self {
            state: State::Available,
            run_lease: RunLease(0),
            attempt: 0,
            errors: 0,
            crashes: 0,
            run_at,
            lease_until: None,
            cancel_requested: false,
            verdict: None,
            dead_reason: None,
        }
    }

    /// Applies one command at the time `now`.
    ///
    /// # Errors
    /// A [`Refusal`] when the command is not allowed; the task is then unchanged.
    pub fn apply(&mut self, command: Command, now: Millis) -> Result<Change, Refusal> {
        let before = *self;
        let change = self.decide(command, now)?;
        debug_assert_eq!(self.broken_invariant(&before), None, "{before:?} {command:?}");
        Ok(change)
    }

    fn decide(&mut self, command: Command, now: Millis) -> Result<Change, Refusal> {
        match command {
            Command::Claim { until } => self.claim(until),
            Command::Heartbeat { lease, until } => {
                self.check(lease)?;
                self.lease_until = self.lease_until.max(Some(until));
                Ok(Change::Kept)
            }
            Command::Complete { lease, verdict } => {
                self.check(lease)?;
                self.verdict = Some(verdict);
                let why = match verdict {
                    Verdict::Accepted => "completed",
                    Verdict::Rejected => "rejected",
                };
                Ok(self.go(State::Completed, Actor::Worker, why))
            }
            Command::Fail { lease, disposition } => self.fail(lease, disposition),
            Command::Release { lease } => {
                self.check(lease)?;
                self.attempt = self.attempt.saturating_sub(1);
                if self.cancel_requested {
                    return Ok(self.go(State::Cancelled, Actor::Worker, "cancelled"));
                }
                Ok(self.go(State::Available, Actor::Worker, "released"))
            }
            Command::Expire { max_crashes } => self.expire(max_crashes, now),
            Command::Promote => match self.state {
                State::Retryable if self.run_at > now => Err(Refusal::NotDue(self.run_at)),
                State::Retryable => Ok(self.go(State::Available, Actor::Reaper, "due")),
                other => Err(Refusal::WrongState(other)),
            },
            Command::Cancel => match self.state {
                State::Available | State::Retryable => Ok(self.go(State::Cancelled, Actor::Operator, "cancelled")),
                State::Running => {
                    self.cancel_requested = true;
                    Ok(Change::Kept)
                }
                other => Err(Refusal::WrongState(other)),
            },
            Command::Stop => match self.state {
                State::Available | State::Retryable => {
                    Ok(self.go(State::Cancelled, Actor::Pipeline, "pipeline_stopped"))
                }
                other => Err(Refusal::WrongState(other)),
            },
            Command::Retry => match self.state {
                State::Dead | State::Cancelled | State::Retryable => {
                    self.attempt = 0;
                    self.errors = 0;
                    self.crashes = 0;
                    self.dead_reason = None;
                    self.run_at = now;
                    Ok(self.go(State::Available, Actor::Operator, "operator_retry"))
                }
                other => Err(Refusal::WrongState(other)),
            },
        }
    }

    fn claim(&mut self, until: Millis) -> Result<Change, Refusal> {
        if self.state != State::Available {
            return Err(Refusal::WrongState(self.state));
        }
        self.run_lease = RunLease(self.run_lease.0 + 1);
        self.attempt = self.attempt.saturating_add(1);
        let change = self.go(State::Running, Actor::Worker, "claimed");
        self.lease_until = Some(until);
        Ok(change)
    }

    fn fail(&mut self, lease: RunLease, disposition: Disposition) -> Result<Change, Refusal> {
        self.check(lease)?;
        if self.cancel_requested || disposition == Disposition::Cancelled {
            return Ok(self.go(State::Cancelled, Actor::Worker, "cancelled"));
        }
        self.errors = self.errors.saturating_add(1);
        Ok(match disposition {
            Disposition::RetryAt(at) => {
                self.run_at = at;
                self.go(State::Retryable, Actor::Worker, "retry")
            }
            Disposition::Dead(reason) => {
                self.dead_reason = Some(reason);
                self.go(State::Dead, Actor::Worker, reason.as_str())
            }
            Disposition::Cancelled => self.go(State::Cancelled, Actor::Worker, "cancelled"),
        })
    }

    fn expire(&mut self, max_crashes: u32, now: Millis) -> Result<Change, Refusal> {
        if self.state != State::Running {
            return Err(Refusal::WrongState(self.state));
        }
        if let Some(until) = self.lease_until
            && until > now
        {
            return Err(Refusal::NotDue(until));
        }
        self.crashes = self.crashes.saturating_add(1);
        if self.cancel_requested {
            return Ok(self.go(State::Cancelled, Actor::Reaper, "cancelled"));
        }
        if self.crashes >= max_crashes.max(1) {
            self.dead_reason = Some(DeadReason::Crashed);
            return Ok(self.go(State::Dead, Actor::Reaper, DeadReason::Crashed.as_str()));
        }
        Ok(self.go(State::Available, Actor::Reaper, "lease_ended"))
    }

    /// The fence: only the current run of a running task may speak for it. A build with `--cfg formwork_broken_fence` has
    /// none; it exists to show that the tests notice (`make broken-fence`).
    fn check(&self, lease: RunLease) -> Result<(), Refusal> {
        let fenced = !cfg!(formwork_broken_fence);
        if self.state == State::Running && (self.run_lease == lease || !fenced) {
            Ok(())
        } else {
            Err(Refusal::Stale)
        }
    }

    fn go(&mut self, to: State, actor: Actor, why: &'static str) -> Change {
        let from = self.state;
        self.state = to;
        self.lease_until = None;
        self.cancel_requested = false;
        Change::Moved(Transition { from, to, actor, why })
    }

    /// The first invariant that does not hold after a step from `before`, or `None`. Checked after every
    /// command in debug builds; the property tests check it in every build.
    #[must_use]
    pub fn broken_invariant(&self, before: &Self) -> Option<&'static str> {
        let moved = before.state != self.state;
        let checks = [
            (self.run_lease >= before.run_lease, "run_lease never falls"),
            (
                (self.run_lease > before.run_lease) == (moved && self.state == State::Running),
                "run_lease rises exactly with a claim",
            ),
            (
                self.lease_until.is_some() == (self.state == State::Running),
                "exactly a running task has a lease",
            ),
            (
                self.verdict.is_some() == (self.state == State::Completed),
                "exactly a completed task has a verdict",
            ),
            (
                self.dead_reason.is_some() == (self.state == State::Dead),
                "exactly a dead task has a reason",
            ),
            (
                !self.cancel_requested || self.state == State::Running,
                "only a running task has a pending cancel request",
            ),
            (
                before.state != State::Completed || self == before,
                "a completed task never changes",
            ),
        ];
        checks.iter().find(|(holds, _)| !holds).map(|(_, name)| *name)
    }
}

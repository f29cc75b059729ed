//! The states of a task and every legal edge between them.
//!
//! ```text
//!             claim                complete
//! available ─────────▶ running ───────────────▶ completed
//!   ▲  ▲  │             │ │ │  fail, no retry left; crashed too often
//!   │  │  │ cancel      │ │ └──────────────────▶ dead ───┐
//!   │  │  └──────────┐  │ │ fail, retry later           │ operator retry
//!   │  │ release,    │  │ └──────▶ retryable            │
//!   │  │ lease ended │  │ cancel     │  │ cancel        │
//!   │  └─────────────┼──┤ requested  │  └─▶ cancelled   │
//!   │   time came    └──┴────────────┼────▶ cancelled ──┤
//!   └────────────────────────────────┘                  │
//!   ▲───────────────────────────────────────────────────┘
//! ```

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waiting for a worker; its time has come.
    Available,
    /// A worker holds its lease.
    Running,
    /// Failed, and waiting for the time of its next attempt.
    Retryable,
    /// Its result is recorded.
    Completed,
    /// Stopped on request, or because the pipeline ended before it.
    Cancelled,
    /// In the dead-letter queue with a reason.
    Dead,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Available,
        Self::Running,
        Self::Retryable,
        Self::Completed,
        Self::Cancelled,
        Self::Dead,
    ];

    /// The name used in APIs, metrics and storage.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Running => "running",
            Self::Retryable => "retryable",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }

    /// Whether the task has ended; only an operator's retry leads out, and never out of `completed`.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Dead)
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A state name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown task state: {0:?}, expected one of available, running, retryable, completed, cancelled, dead")]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// Who moved a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The pipeline, when the steps before are done or when it stops.
    Pipeline,
    /// The worker that holds the lease (or takes it).
    Worker,
    /// The store's own housekeeping: due times and ended leases.
    Reaper,
    /// A person or client through the API.
    Operator,
}

impl Actor {
    /// Every actor.
    pub const ALL: [Self; 4] = [Self::Pipeline, Self::Worker, Self::Reaper, Self::Operator];

    /// The name used in APIs and storage.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Worker => "worker",
            Self::Reaper => "reaper",
            Self::Operator => "operator",
        }
    }
}

impl FromStr for Actor {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|actor| actor.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// One legal edge of the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Who may take it.
    pub actor: Actor,
    /// What must hold, in words.
    pub guard: &'static str,
}

const fn edge(from: State, to: State, actor: Actor, guard: &'static str) -> Edge {
    Edge { from, to, actor, guard }
}

const LEASE: &str = "the worker shows the current run_lease";
const ENDED: &str = "the lease has ended";

/// Every legal edge. A task is born `available` by the pipeline; everything else is here.
pub const EDGES: &[Edge] = &[
    edge(
        State::Available,
        State::Running,
        Actor::Worker,
        "none; run_lease rises by one",
    ),
    edge(State::Available, State::Cancelled, Actor::Operator, "none"),
    edge(
        State::Available,
        State::Cancelled,
        Actor::Pipeline,
        "another step rejected the submission",
    ),
    edge(State::Running, State::Completed, Actor::Worker, LEASE),
    edge(State::Running, State::Retryable, Actor::Worker, LEASE),
    edge(State::Running, State::Dead, Actor::Worker, LEASE),
    edge(State::Running, State::Cancelled, Actor::Worker, LEASE),
    edge(State::Running, State::Available, Actor::Worker, LEASE),
    edge(State::Running, State::Available, Actor::Reaper, ENDED),
    edge(
        State::Running,
        State::Cancelled,
        Actor::Reaper,
        "the lease has ended and a cancel was requested",
    ),
    edge(
        State::Running,
        State::Dead,
        Actor::Reaper,
        "the lease has ended once too often",
    ),
    edge(State::Retryable, State::Available, Actor::Reaper, "run_at has come"),
    edge(State::Retryable, State::Cancelled, Actor::Operator, "none"),
    edge(
        State::Retryable,
        State::Cancelled,
        Actor::Pipeline,
        "another step rejected the submission",
    ),
    edge(State::Retryable, State::Available, Actor::Operator, "none"),
    edge(State::Dead, State::Available, Actor::Operator, "none"),
    edge(State::Cancelled, State::Available, Actor::Operator, "none"),
];

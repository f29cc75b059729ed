//! A task on its way through a change, the same over every backend: the state machine is asked here, and what
//! comes out (the changed record and its line of history) is what a backend stores.

use crate::{Error, NewProgress, ReapedAs, Result, TaskError, TaskEvent, TaskFilter, TaskId, TaskProgress, limits};
use formwork_tasks::{Actor, Change, Command, Lifecycle, Millis, Pool, Priority, Refusal, State, Step, Transition};

/// The part of a task that changes, and what is needed to change it.
#[derive(Clone, Debug)]
pub(crate) struct TaskRecord {
    pub(crate) id: TaskId,
    pub(crate) pool: Pool,
    pub(crate) priority: Priority,
    pub(crate) form: String,
    pub(crate) form_version: u32,
    pub(crate) step_name: String,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) worker: Option<String>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) error: Option<TaskError>,
    /// Lines of history; rises with every move.
    pub(crate) events: u32,
}

/// What an allowed command did.
pub(crate) enum Applied {
    /// The record changed, its state did not: no history.
    Kept,
    /// The state changed; the line belongs into the history.
    Moved(Transition, TaskEvent),
}

impl Applied {
    /// The same without the line of history.
    pub(crate) fn change(&self) -> Change {
        match self {
            Self::Kept => Change::Kept,
            Self::Moved(moved, _) => Change::Moved(*moved),
        }
    }
}

impl TaskRecord {
    /// The task of a step that may run now; its history begins with [`TaskEvent::created`].
    pub(crate) fn create(
        id: TaskId,
        form: &str,
        form_version: u32,
        step: &Step,
        priority: Priority,
        now: Millis,
    ) -> Self {
        Self {
            id,
            pool: step.pool,
            priority,
            form: form.to_owned(),
            form_version,
            step_name: step.name.clone(),
            lifecycle: Lifecycle::new(now),
            worker: None,
            started_at: None,
            finished_at: None,
            error: None,
            events: 1,
        }
    }

    /// Applies a command; a refusal changes nothing. `detail` follows the reason in the history.
    pub(crate) fn apply(&mut self, command: Command, now: Millis, detail: Option<&str>) -> Result<Applied, Refusal> {
        let Change::Moved(moved) = self.lifecycle.apply(command, now)? else {
            return Ok(Applied::Kept);
        };
        match moved.to {
            State::Running => {
                self.started_at = Some(now.0);
                self.finished_at = None;
            }
            to if to.is_terminal() => self.finished_at = Some(now.0),
            _ => self.finished_at = None,
        }
        self.events += 1;
        let who = match (moved.actor, &self.worker) {
            (Actor::Worker, Some(worker)) => format!("worker:{worker}"),
            (actor, _) => actor.as_str().to_owned(),
        };
        let why = match detail {
            Some(detail) => format!("{}: {detail}", moved.why),
            None => moved.why.to_owned(),
        };
        let line = TaskEvent {
            sequence: self.events,
            at: now,
            who,
            from: Some(moved.from),
            to: self.lifecycle.state,
            run_lease: self.lifecycle.run_lease,
            why,
        };
        Ok(Applied::Moved(moved, line))
    }

    /// What became of a task whose lease had ended, once the command was applied.
    pub(crate) fn reaped_as(&self) -> ReapedAs {
        match self.lifecycle.state {
            State::Dead => ReapedAs::Dead,
            State::Cancelled => ReapedAs::Cancelled,
            _ => ReapedAs::Recovered,
        }
    }
}

impl TaskEvent {
    /// The first line of a task's history.
    pub(crate) fn created(at: Millis) -> Self {
        let life = Lifecycle::new(at);
        Self {
            sequence: 1,
            at,
            who: Actor::Pipeline.as_str().to_owned(),
            from: None,
            to: life.state,
            run_lease: life.run_lease,
            why: "created".to_owned(),
        }
    }
}

impl TaskError {
    /// An error as it is kept: cut to what the limits allow.
    pub(crate) fn cut(code: &str, message: &str) -> Self {
        Self {
            code: cut(code, limits::ERROR_CODE_BYTES).to_owned(),
            message: cut(message, limits::ERROR_MESSAGE_BYTES).to_owned(),
        }
    }
}

impl TaskProgress {
    /// What a run says at `at`, as it is kept.
    pub(crate) fn kept(new: &NewProgress, at: Millis) -> Self {
        Self {
            fraction: new.fraction.filter(|fraction| (0.0..=1.0).contains(fraction)),
            message: cut(&new.message, limits::PROGRESS_MESSAGE_BYTES).to_owned(),
            at,
        }
    }
}

impl TaskFilter {
    /// The same filter, of dead tasks only.
    pub(crate) fn of_dead(&self) -> Result<Self> {
        if let Some(state) = self.state.filter(|state| *state != State::Dead) {
            return Err(Error::Invalid {
                what: "filter",
                why: format!("only dead tasks can be redriven, not {state} ones"),
            });
        }
        Ok(Self {
            state: Some(State::Dead),
            ..self.clone()
        })
    }
}

/// The longest prefix of at most `bytes` bytes that ends between characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

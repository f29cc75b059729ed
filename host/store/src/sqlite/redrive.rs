//! Running dead tasks again, in bulk and in bounded slices.

use super::{operate, task_list, writer::Write};
use crate::{Error, Redriven, Result, Retry, TaskFilter, limits};
use formwork_tasks::{Millis, State};

/// Does to dead tasks that match what a retry does to one.
pub(super) fn redrive(write: &mut Write<'_>, filter: &TaskFilter, limit: u32, now: Millis) -> Result<Redriven> {
    if let Some(state) = filter.state.filter(|state| *state != State::Dead) {
        return Err(Error::Invalid {
            what: "filter",
            why: format!("only dead tasks can be redriven, not {state} ones"),
        });
    }
    let limit = limit.min(limits::REDRIVE_TASKS);
    let mut redriven = Redriven::default();
    for id in task_list::dead(write.connection, filter, limit + 1)? {
        if redriven.count == limit {
            redriven.more = true;
            break;
        }
        if operate::retry(write, id, now)? == Retry::Retried {
            redriven.count += 1;
        }
    }
    Ok(redriven)
}

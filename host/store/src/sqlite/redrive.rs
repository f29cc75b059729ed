//! Running dead tasks again, in bulk and in bounded slices.

use super::{operate, task_list, writer::Write};
use crate::{Redriven, Result, Retry, TaskFilter, limits};
use formwork_tasks::Millis;

/// Does to dead tasks that match what a retry does to one.
pub(super) fn redrive(write: &mut Write<'_>, filter: &TaskFilter, limit: u32, now: Millis) -> Result<Redriven> {
    let filter = filter.of_dead()?;
    let limit = limit.min(limits::REDRIVE_TASKS);
    let mut redriven = Redriven::default();
    for id in task_list::dead(write.connection, &filter, limit + 1)? {
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

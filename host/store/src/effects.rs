//! What a transaction tells the world once it is committed, and how it changes the counters of the pools.
//!
//! Counting a million waiting tasks whenever somebody looks at a pool would be as slow as it is pointless;
//! every move of a task is counted instead, and the sums are written with the commit.

use crate::{StoreEvent, TaskId};
use formwork_tasks::{Pool, State};

/// Events and counter changes of one write, or of a whole group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    events: Vec<StoreEvent>,
    counts: [[i64; State::ALL.len()]; Pool::ALL.len()],
}

impl Effects {
    /// Remembers an event, once.
    pub(crate) fn tell(&mut self, event: StoreEvent) {
        if !self.events.contains(&event) {
            self.events.push(event);
        }
    }

    /// Counts a task that entered `to`, coming from `from` unless it is new, and tells who waits for it.
    pub(crate) fn moved(&mut self, pool: Pool, from: Option<State>, to: State) {
        let row = &mut self.counts[pool as usize];
        if let Some(from) = from {
            row[from as usize] -= 1;
        }
        row[to as usize] += 1;
        if to == State::Available {
            self.tell(StoreEvent::TasksAvailable { pool });
        }
    }

    /// Tells who watches a task. It is known from before: nobody can watch one that is new.
    pub(crate) fn changed(&mut self, task: TaskId) {
        self.events.push(StoreEvent::TaskChanged { task });
    }

    /// Counts a task that is no longer kept. What was completed stays counted: it is how much was done, ever.
    pub(crate) fn forget(&mut self, pool: Pool, state: State) {
        if state != State::Completed {
            self.counts[pool as usize][state as usize] -= 1;
        }
    }

    /// Adds what another write did.
    pub(crate) fn merge(&mut self, other: Self) {
        for event in other.events {
            // Pool events repeat in every group; events of single tasks do not.
            if matches!(event, StoreEvent::TasksAvailable { .. }) {
                self.tell(event);
            } else {
                self.events.push(event);
            }
        }
        for (row, other_row) in self.counts.iter_mut().zip(other.counts) {
            for (count, other_count) in row.iter_mut().zip(other_row) {
                *count += other_count;
            }
        }
    }

    /// The counters that change, and by how much.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Pool, State, i64)> {
        let of = |pool: Pool| State::ALL.map(|state| (pool, state, self.counts[pool as usize][state as usize]));
        Pool::ALL.into_iter().flat_map(of).filter(|(_, _, change)| *change != 0)
    }

    /// The events, to be told after the commit.
    pub(crate) fn into_events(self) -> Vec<StoreEvent> {
        self.events
    }
}

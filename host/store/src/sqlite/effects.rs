//! What a transaction tells the world once it is committed, and the counters it keeps.
//!
//! Counting a million waiting tasks whenever somebody looks at a pool would be as slow as it is pointless;
//! every move of a task is counted instead, summed up in memory, and written once per commit.

use super::failure::sql;
use crate::{Result, StoreEvent};
use formwork_tasks::{Pool, State};
use rusqlite::{Connection, params};

/// Events and counter changes of one write, or of a whole group.
#[derive(Debug, Default)]
pub(super) struct Effects {
    events: Vec<StoreEvent>,
    counts: [[i64; State::ALL.len()]; Pool::ALL.len()],
}

impl Effects {
    /// Remembers an event, once.
    pub(super) fn tell(&mut self, event: StoreEvent) {
        if !self.events.contains(&event) {
            self.events.push(event);
        }
    }

    /// Counts a task that entered `to`, coming from `from` unless it is new.
    pub(super) fn count(&mut self, pool: Pool, from: Option<State>, to: State) {
        let row = &mut self.counts[pool as usize];
        if let Some(from) = from {
            row[from as usize] -= 1;
        }
        row[to as usize] += 1;
    }

    /// Counts a task that is no longer kept. What was completed stays counted: it is how much was done, ever.
    pub(super) fn forget(&mut self, pool: Pool, state: State) {
        if state != State::Completed {
            self.counts[pool as usize][state as usize] -= 1;
        }
    }

    /// Adds what another write did.
    pub(super) fn merge(&mut self, other: Self) {
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

    /// Writes the counters, inside the transaction.
    pub(super) fn write_counts(&self, connection: &Connection) -> Result<()> {
        for pool in Pool::ALL {
            for state in State::ALL {
                let change = self.counts[pool as usize][state as usize];
                if change == 0 {
                    continue;
                }
                connection
                    .prepare_cached(
                        "INSERT INTO pool_counts (pool, state, count) VALUES (?1, ?2, ?3)
                         ON CONFLICT DO UPDATE SET count = count + excluded.count",
                    )
                    .and_then(|mut statement| statement.execute(params![pool.as_str(), state.as_str(), change]))
                    .map_err(sql("count"))?;
            }
        }
        Ok(())
    }

    /// The events, to be told after the commit.
    pub(super) fn into_events(self) -> Vec<StoreEvent> {
        self.events
    }
}

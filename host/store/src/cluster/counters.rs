//! The counters of the pools, without a document that every transaction fights for.
//!
//! A counter that all increment makes all transactions conflict; counting tasks takes time with their number.
//! So the sum is spread over slots, documents that only one transaction at a time increments: a node leases
//! a slot for each transaction in flight. Slots of nodes that are gone are folded into one.
//!
//! A transaction leases its slot before it reads anything: one that was given back after the transaction's snapshot
//! was taken would conflict with it, although nobody else uses it any more.

use super::database::{Abort, Database, Operation};
use super::unit::Unit;
use crate::{Result, effects::Effects, limits};
use async_trait::async_trait;
use formwork_tasks::{Millis, Pool, State};
use futures::TryStreamExt as _;
use mongodb::{
    ClientSession,
    bson::{Document, doc},
};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// The slots of this node that no transaction uses now.
pub(super) struct Slots {
    node: String,
    free: Mutex<Free>,
}

/// The one that was given back first is leased first, and there is always a choice: a transaction whose abort was lost
/// keeps its slot locked for a while, and whoever met it there must not come to the same one again.
#[derive(Default)]
struct Free {
    numbers: VecDeque<u32>,
    made: u32,
}

/// How many slots a node has at least.
const SLOTS_LEAST: u32 = 4;

/// A slot, for as long as a transaction may use it.
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    number: u32,
}

impl Slots {
    pub(super) fn of(node: String) -> Self {
        let free = Mutex::default();
        Self { node, free }
    }

    pub(super) fn lease(&self) -> Slot<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let known = if free.made < SLOTS_LEAST {
            None
        } else {
            free.numbers.pop_front()
        };
        let number = known.unwrap_or_else(|| {
            free.made += 1;
            free.made
        });
        Slot { slots: self, number }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut free = self.slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.numbers.push_back(self.number);
    }
}

/// Adds what a transaction changed, as part of it.
pub(super) async fn add(
    database: &Database,
    session: &mut ClientSession,
    slot: &Slot<'_>,
    effects: &Effects,
    now: Millis,
) -> mongodb::error::Result<()> {
    let changes: Document = effects
        .counts()
        .map(|(pool, state, change)| (field(pool, state), change.into()))
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let id = format!("{}:{}", slot.slots.node, slot.number);
    let update = doc! { "$inc": changes, "$set": { "at": now.0 } };
    let counts = database.counts.update_one(doc! { "_id": id }, update);
    counts.upsert(true).session(session).await.map(drop)
}

fn field(pool: Pool, state: State) -> String {
    format!("{pool}.{state}")
}

/// The sum over all slots.
pub(super) async fn read(database: &Database) -> mongodb::error::Result<[[i64; State::ALL.len()]; Pool::ALL.len()]> {
    let mut slots = database.counts.find(doc! {}).await?;
    let mut sums = [[0; State::ALL.len()]; Pool::ALL.len()];
    while let Some(slot) = slots.try_next().await? {
        add_slot(&mut sums, &slot);
    }
    Ok(sums)
}

fn add_slot(sums: &mut [[i64; State::ALL.len()]; Pool::ALL.len()], slot: &Document) {
    for pool in Pool::ALL {
        let Ok(states) = slot.get_document(pool.as_str()) else {
            continue;
        };
        for state in State::ALL {
            sums[pool as usize][state as usize] += states.get_i64(state.as_str()).unwrap_or(0);
        }
    }
}

/// Folds slots that nobody has used for long into one. Right even if their node still lives: a transaction
/// that uses one of them at this moment conflicts with this one, and makes its slot anew.
pub(super) struct Fold {
    pub(super) unused_since: Millis,
}

const FOLDED: &str = "folded";

#[async_trait]
impl Operation for Fold {
    type Output = ();

    async fn run(&self, unit: &mut Unit<'_>) -> Result<(), Abort> {
        let database = unit.database;
        let stale = doc! { "_id": { "$ne": FOLDED }, "at": { "$lt": self.unused_since.0 } };
        let find = database.counts.find(stale).limit(i64::from(limits::SWEEP_TASKS));
        let mut cursor = find.session(&mut unit.session).await?;
        let mut sums = [[0; State::ALL.len()]; Pool::ALL.len()];
        let mut ids = Vec::new();
        while let Some(slot) = cursor.next(&mut unit.session).await.transpose()? {
            add_slot(&mut sums, &slot);
            ids.extend(slot.get_str("_id").map(str::to_owned));
        }
        if ids.is_empty() {
            return Ok(());
        }
        let delete = database.counts.delete_many(doc! { "_id": { "$in": ids } });
        delete.session(&mut unit.session).await?;
        let mut changes = Document::new();
        for pool in Pool::ALL {
            for state in State::ALL {
                changes.insert(field(pool, state), sums[pool as usize][state as usize]);
            }
        }
        let fold = database
            .counts
            .update_one(doc! { "_id": FOLDED }, doc! { "$inc": changes });
        fold.upsert(true).session(&mut unit.session).await?;
        Ok(())
    }
}

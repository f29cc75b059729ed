//! Prolongs the leases of a node's runs.
//!
//! **Problem.** A node under load has hundreds of runs and says several times within a lease that they go on. As a
//! transaction for each run that is more work than the tasks themselves, and each may undo the recording of its run:
//! leases end, tasks are taken back and run again, and an overload lasts longer than its cause. **Promise.** Two round
//! trips for [`limits::HEARTBEAT_TASKS`] runs, over connections of their own; none waits for more than a third of a lease,
//! and what one run has to wait for is told of that run alone. **Cost.** The fence stands a second time, as a filter; what
//! is answered is the state machine's judgement of what is read afterwards. **Rejected.** One transaction for all of them:
//! every result that is recorded meanwhile would undo it.

use super::{
    database::{Database, failed},
    documents::{ProgressDocument, TaskDocument, parse_key, run_of, task_key},
};
use crate::{Beat, Error, HeartbeatReply, Result, StoreEvent, TaskId, TaskProgress, limits};
use formwork_tasks::{Command, Millis};
use futures::TryStreamExt as _;
use mongodb::{
    Collection,
    bson::{Document, doc, serialize_to_bson},
    options::{CollectionOptions, ReadConcern},
};
use rand::seq::SliceRandom;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The tasks that transactions of this node have locked to record how their runs ended. Nobody can take them meanwhile,
/// and a heartbeat would have to wait for them: they are left out.
#[derive(Default)]
pub(super) struct Locked {
    tasks: Mutex<HashSet<TaskId>>,
}

/// One of them, until this is dropped.
pub(super) struct Hold<'a> {
    locked: &'a Locked,
    task: TaskId,
}

impl Locked {
    pub(super) fn hold(&self, task: TaskId) -> Hold<'_> {
        self.tasks().insert(task);
        Hold { locked: self, task }
    }

    /// The beats of all other runs.
    fn others(&self, beats: &[Beat]) -> Vec<Beat> {
        let locked = self.tasks();
        let others = beats.iter().filter(|beat| !locked.contains(&beat.task));
        others.cloned().collect()
    }

    fn tasks(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.locked.tasks().remove(&self.task);
    }
}

/// What came of a heartbeat.
#[derive(Default)]
pub(super) struct Prolonged {
    pub(super) reply: HeartbeatReply,
    /// Events to tell: whose progress was recorded.
    pub(super) events: Vec<StoreEvent>,
}

/// Prolongs the leases of these runs to `now + lease_ms`.
pub(super) async fn prolong(database: &Database, beats: &[Beat], lease_ms: u64, now: Millis) -> Result<Prolonged> {
    let mut beats = database.locked.others(beats);
    // What stands before a task that somebody else has locked is prolonged: not the same ones every time.
    beats.shuffle(&mut rand::rng());
    let parts = beats.chunks(limits::HEARTBEAT_TASKS);
    let parts = parts.map(|part| async move { (part, prolong_part(database, part, lease_ms, now).await) });
    let mut all = Prolonged::default();
    let mut failed = None;
    for (part, answer) in futures::future::join_all(parts).await {
        match answer {
            Ok(prolonged) => {
                all.reply.lost.extend(prolonged.reply.lost);
                all.reply.cancel.extend(prolonged.reply.cancel);
                all.reply.missed.extend(prolonged.reply.missed);
                all.events.extend(prolonged.events);
            }
            Err(error) => {
                all.reply.missed.extend(part.iter().map(|beat| beat.task));
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if all.reply.missed.len() == beats.len() => Err(error),
        _ => Ok(all),
    }
}

async fn prolong_part(database: &Database, beats: &[Beat], lease_ms: u64, now: Millis) -> Result<Prolonged> {
    let until = now.plus(lease_ms);
    // So this heartbeat and the next one are both answered before a lease ends.
    let patience = Duration::from_millis((lease_ms / 3).min(limits::TRANSACTION_MS));
    let updates: Vec<Document> = beats.iter().map(|beat| statement(beat, until, now)).collect();
    // Whether or not it is answered in time: what is read next tells how far it came.
    let written = write(database, updates, patience).await;
    let mut tasks = read(database, beats).await?;
    let mut prolonged = Prolonged::default();
    let HeartbeatReply { lost, cancel, missed } = &mut prolonged.reply;
    for beat in beats {
        let (id, lease) = (beat.task, beat.run_lease);
        let Some(task) = tasks.remove(&id) else {
            lost.push(id);
            continue;
        };
        let mut life = task.lifecycle()?;
        let is_late = life.lease_until < Some(until);
        if life.apply(Command::Heartbeat { lease, until }, now).is_err() {
            lost.push(id);
            continue;
        }
        if life.cancel_requested {
            cancel.push(id);
        }
        if is_late {
            missed.push(id);
        } else if beat.progress.is_some() {
            prolonged.events.push(StoreEvent::TaskChanged { task: id });
        }
    }
    match written {
        Err(error) if prolonged.reply.missed.len() == beats.len() => Err(error),
        _ => Ok(prolonged),
    }
}

/// The statement for one run: does nothing if the run is over. Repeated, and late, it does no harm.
fn statement(beat: &Beat, until: Millis, now: Millis) -> Document {
    let mut change = doc! { "$max": { "lease_until": until.0 } };
    if let Some(new) = &beat.progress {
        let progress = ProgressDocument::change(beat.run_lease, TaskProgress::kept(new, now));
        change.insert("$set", doc! { "progress": progress });
    }
    doc! { "q": run_of(beat.task, beat.run_lease), "u": change }
}

/// Sends statements as one command without a transaction: each is done, or not done, by itself.
async fn write(database: &Database, updates: Vec<Document>, patience: Duration) -> Result<()> {
    let concern = serialize_to_bson(&database.write_concern).map_err(|error| Error::backend("heartbeat", error))?;
    let command = doc! {
        "update": database.tasks.name(),
        "updates": updates,
        "ordered": false,
        "writeConcern": concern,
        "maxTimeMS": i64::try_from(patience.as_millis()).unwrap_or(i64::MAX),
    };
    match tokio::time::timeout(patience, database.alive.run_command(command)).await {
        Ok(answer) => answer.map(drop).map_err(failed("heartbeat")),
        Err(_) => Err(Error::Unavailable {
            operation: "heartbeat",
            source: "no answer in time".into(),
        }),
    }
}

async fn read(database: &Database, beats: &[Beat]) -> Result<BTreeMap<TaskId, TaskDocument>> {
    // What was written a moment ago without a majority (`interval`) must be seen.
    let options = CollectionOptions::builder().read_concern(ReadConcern::local()).build();
    let tasks: Collection<TaskDocument> = database.alive.collection_with_options(database.tasks.name(), options);
    let keys: Vec<String> = beats.iter().map(|beat| task_key(beat.task)).collect();
    let found = tasks.find(doc! { "_id": { "$in": keys } }).await;
    let found: Vec<TaskDocument> = found
        .map_err(failed("heartbeat"))?
        .try_collect()
        .await
        .map_err(failed("heartbeat"))?;
    found
        .into_iter()
        .map(|task| Ok((parse_key(&task.key)?, task)))
        .collect()
}

//! What a store does by itself: it keeps the index whole and the clock right.
//!
//! Every node runs it; duties in Redis make most of it happen once. Nothing here is needed for a task not to be
//! lost, only for it not to wait.

use super::{
    Inner,
    counters::Fold,
    documents::{TaskDocument, parse_key, task_key},
    index::{IndexError, REBUILD, SWEEP, Taken, Word},
    views::all,
    work::Promote,
};
use crate::{Error, Result, TaskId, limits, metrics, record::TaskRecord};
use formwork_tasks::{Pool, State};
use mongodb::bson::doc;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Where the sweep of this node is, by pool: the last key it compared.
#[derive(Default)]
struct Sweep {
    after: [String; Pool::ALL.len()],
}

/// Why a step of the upkeep did not end; it is tried again.
enum Cut {
    Index(IndexError),
    Store(Error),
}

impl From<IndexError> for Cut {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Runs for ever.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut sweep = Sweep::default();
    let mut clock_read = Instant::now();
    let mut warned = false;
    loop {
        tokio::time::sleep(pause()).await;
        if clock_read.elapsed() >= Duration::from_millis(limits::CLOCK_SYNC_MS) {
            clock_read = Instant::now();
            if let Err(error) = inner.database.hello().await {
                tracing::debug!(%error, "the server's clock was not read");
            }
            fold_counters(&inner).await;
        }
        if !inner.index.is_up() {
            match inner.index.probe().await {
                Ok(()) => warned = false,
                Err(error) => {
                    if !std::mem::replace(&mut warned, true) {
                        tracing::error!(%error, "the dispatch index cannot be used");
                    }
                    continue;
                }
            }
        }
        for pool in Pool::ALL {
            match look_after(&inner, pool, &mut sweep).await {
                Ok(()) => {}
                Err(Cut::Index(error)) => tracing::debug!(%pool, %error, "the index was not looked after"),
                Err(Cut::Store(error)) => tracing::warn!(%pool, %error, "the index was not looked after"),
            }
        }
    }
}

/// Says that this node lives, and ends the transactions of those that do not; for ever. Apart from the rest of the upkeep,
/// which may take long: a node must not seem gone because another one's index is being rebuilt.
pub(super) async fn stay_present(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(pause()).await;
        let Some(now) = inner.database.clock.own() else { return };
        let database = &inner.database;
        if let Err(error) = database.presence.tell(database, now).await {
            tracing::debug!(%error, "the other nodes were not told that this one lives");
            continue;
        }
        match database.presence.end_silent(database, now).await {
            Ok(0) => {}
            Ok(nodes) => tracing::info!(nodes, "transactions of silent nodes ended"),
            Err(error) => tracing::warn!(%error, "transactions of silent nodes were not ended"),
        }
    }
}

/// Not in step with the other nodes.
fn pause() -> Duration {
    Duration::from_millis(limits::UPKEEP_MS / 2 + rand::random_range(0..=limits::UPKEEP_MS))
}

async fn look_after(inner: &Inner, pool: Pool, sweep: &mut Sweep) -> Result<(), Cut> {
    make_whole(inner, pool).await?;
    take_back(inner, pool).await?;
    if inner.index.duty(pool, SWEEP, limits::SWEEP_LEASE_MS, true).await? {
        promote(inner, pool).await?;
        sweep_on(inner, pool, &mut sweep.after[pool as usize]).await?;
    }
    Ok(())
}

/// Rebuilds the index of every pool that is not whole; what a store does when it opens.
pub(super) async fn make_all_whole(inner: &Inner) -> Result<()> {
    for pool in Pool::ALL {
        match make_whole(inner, pool).await {
            Ok(()) => {}
            Err(Cut::Index(error)) => tracing::warn!(%pool, %error, "the index was not rebuilt, will be tried again"),
            Err(Cut::Store(error)) => return Err(error),
        }
    }
    Ok(())
}

async fn make_whole(inner: &Inner, pool: Pool) -> Result<(), Cut> {
    let index = &inner.index;
    let run = index.server_run().await?;
    if index.is_whole(pool, &run).await? {
        return Ok(());
    }
    // A node that knows that it is behind does its own telling, also while another one rebuilds.
    let behind = index.is_behind(pool);
    if !index.duty(pool, REBUILD, limits::REBUILD_LEASE_MS, true).await? && !behind {
        return Ok(());
    }
    tracing::info!(%pool, "rebuilding the dispatch index from mongodb");
    index.begin_rebuild(pool);
    let result = rebuild(inner, pool, &run, behind).await;
    if !matches!(result, Ok(true)) {
        index.rebuild_failed(pool);
    }
    result.map(drop)
}

/// Tells the index every task of a pool that waits, in bounded batches; true if it was not interrupted.
async fn rebuild(inner: &Inner, pool: Pool, run: &str, alone: bool) -> Result<bool, Cut> {
    let mut after = String::new();
    loop {
        let tasks = waiting_after(inner, pool, &after).await?;
        let Some(last) = tasks.last() else { break };
        after = task_key(last.id);
        remind(inner, pool, &tasks).await?;
        let kept = inner.index.duty(pool, REBUILD, limits::REBUILD_LEASE_MS, false).await?;
        if !kept && !alone {
            return Ok(false);
        }
    }
    // Who rebuilt for itself only has nothing to declare, unless the duty was free.
    let declared = inner.index.declare_whole(pool, run).await?;
    Ok(declared || alone)
}

/// The next tasks of a pool that wait, for a worker or for their time, in the order of their keys.
async fn waiting_after(inner: &Inner, pool: Pool, after: &str) -> Result<Vec<TaskRecord>> {
    let mut found = Vec::new();
    for state in [State::Available, State::Retryable] {
        let filter = doc! {
            "state": state.as_str(),
            "_id": { "$gt": after },
            "pool": pool.as_str(),
        };
        let tasks = &inner.database.tasks;
        found.extend(
            all(
                "read waiting tasks",
                tasks,
                filter,
                doc! { "_id": 1 },
                limits::SWEEP_TASKS,
            )
            .await?,
        );
    }
    // Each list was cut at its own key: beyond the lower cut the other list is not complete.
    found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    found.truncate(limits::SWEEP_TASKS as usize);
    found.into_iter().map(TaskDocument::into_record).collect()
}

/// Tells the index about tasks it does not know; tells subscribers if there were any that can run.
async fn remind(inner: &Inner, pool: Pool, tasks: &[TaskRecord]) -> Result<(), Cut> {
    let words: Vec<Word> = tasks.iter().filter_map(Word::reminder).collect();
    let missing = inner.index.tell(pool, &words).await?;
    if missing > 0 {
        metrics::INDEX_REPAIRED
            .with_label_values(&[pool.as_str()])
            .inc_by(missing);
        tracing::info!(%pool, missing, "the dispatch index was told tasks it did not know");
        inner.events.tell(vec![crate::StoreEvent::TasksAvailable { pool }]);
    }
    Ok(())
}

/// Puts tasks that were handed out and not settled where they belong: their claim was lost half-way.
async fn take_back(inner: &Inner, pool: Pool) -> Result<(), Cut> {
    let keys = inner.index.overdue(pool).await?;
    if keys.is_empty() {
        return Ok(());
    }
    let ids: Vec<TaskId> = keys.iter().filter_map(|key| parse_key(key).ok()).collect();
    inner.correct(pool, &ids).await?;
    inner.events.tell(vec![crate::StoreEvent::TasksAvailable { pool }]);
    Ok(())
}

/// Makes retries available whose time has come, so that nodes which sleep hear of it.
async fn promote(inner: &Inner, pool: Pool) -> Result<(), Cut> {
    let Some(now) = inner.database.clock.own() else {
        return Ok(());
    };
    if let Taken::Due(keys) = inner.index.take(pool, 0, now, true).await? {
        let ids = keys.iter().filter_map(|key| parse_key(key).ok()).collect();
        inner.promote(pool, ids, now).await?;
    }
    Ok(())
}

/// Compares one slice of the waiting tasks with the index.
async fn sweep_on(inner: &Inner, pool: Pool, after: &mut String) -> Result<(), Cut> {
    let tasks = waiting_after(inner, pool, after).await?;
    *after = match tasks.last() {
        Some(last) if tasks.len() >= limits::SWEEP_TASKS as usize => task_key(last.id),
        _ => String::new(),
    };
    remind(inner, pool, &tasks).await
}

async fn fold_counters(inner: &Inner) {
    let Some(now) = inner.database.clock.own() else { return };
    let unused_since = formwork_tasks::Millis(now.0.saturating_sub(limits::COUNTER_SLOT_IDLE_MS));
    if let Err(error) = inner
        .database
        .transact("fold counters", now, &Fold { unused_since })
        .await
    {
        tracing::debug!(%error, "counters were not folded");
    }
}

impl Inner {
    /// Makes due retries available; those that are not due (any more) are put where they belong.
    pub(super) async fn promote(&self, pool: Pool, ids: Vec<TaskId>, now: formwork_tasks::Millis) -> Result<()> {
        let operation = Promote { ids };
        let (_, consequences) = self.database.transact("promote", now, &operation).await?;
        let moved: Vec<TaskId> = consequences.moved.iter().map(|task| task.id).collect();
        self.after_commit(consequences).await;
        let left: Vec<TaskId> = operation.ids.into_iter().filter(|id| !moved.contains(id)).collect();
        self.correct(pool, &left).await
    }

    /// Tells the index how tasks of a pool really are.
    pub(super) async fn correct(&self, pool: Pool, ids: &[TaskId]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = ids.iter().copied().map(task_key).collect();
        let filter = doc! { "_id": { "$in": &keys } };
        let found = all("read tasks", &self.database.tasks, filter, doc! { "_id": 1 }, 0).await?;
        let mut words = Vec::with_capacity(ids.len());
        let mut unknown: std::collections::BTreeSet<String> = keys.into_iter().collect();
        for document in found {
            unknown.remove(&document.key);
            let task = document.into_record()?;
            words.push(Word::correction(&task));
        }
        words.extend(unknown.into_iter().map(Word::settled));
        // If it does not arrive the pool is behind, and will be compared.
        let _ = self.index.tell(pool, &words).await;
        Ok(())
    }
}

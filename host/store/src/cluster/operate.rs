//! What operators and clients do to tasks, and the numbers they look at.

use super::{
    counters,
    database::{Abort, Database, Operation, failed},
    unit::Unit,
};
use crate::{Cancel, Error, PoolStats, Result, Retry, StoreEvent, TaskId};
use async_trait::async_trait;
use formwork_tasks::{Change, Command, Millis, Pool, State};
use mongodb::bson::{Document, doc};

/// Cancels a task, or asks its worker to.
pub(super) struct CancelTask {
    pub(super) task: TaskId,
}

#[async_trait]
impl Operation for CancelTask {
    type Output = Cancel;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Cancel, Abort> {
        let id = self.task;
        let mut task = unit.load(id).await?.ok_or(Error::UnknownTask(id))?;
        match unit.apply(&mut task, Command::Cancel, None) {
            Ok(Change::Moved(_)) => {
                unit.settle([id.submission]).await?;
                Ok(Cancel::Cancelled)
            }
            Ok(Change::Kept) => {
                unit.tell(StoreEvent::CancelRequested { task: id });
                Ok(Cancel::Requested)
            }
            Err(_) => Ok(Cancel::AlreadyFinished(task.lifecycle.state)),
        }
    }
}

/// Makes a task available again.
pub(super) struct RetryTask {
    pub(super) task: TaskId,
}

#[async_trait]
impl Operation for RetryTask {
    type Output = Retry;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Retry, Abort> {
        let id = self.task;
        let mut task = unit.load(id).await?.ok_or(Error::UnknownTask(id))?;
        match unit.apply(&mut task, Command::Retry, None) {
            Ok(_) => {
                unit.settle([id.submission]).await?;
                Ok(Retry::Retried)
            }
            Err(_) => Ok(Retry::Refused(task.lifecycle.state)),
        }
    }
}

/// Makes those of the named tasks available again that are dead; answers how many.
pub(super) struct Redrive {
    pub(super) ids: Vec<TaskId>,
}

#[async_trait]
impl Operation for Redrive {
    type Output = u32;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<u32, Abort> {
        let mut tasks = unit.load_many(&self.ids).await?;
        // Another operator may have been faster.
        tasks.retain_mut(|task| task.lifecycle.state == State::Dead && unit.apply(task, Command::Retry, None).is_ok());
        unit.settle(tasks.iter().map(|task| task.id.submission)).await?;
        Ok(u32::try_from(tasks.len()).unwrap_or(u32::MAX))
    }
}

/// A write that changes nothing anybody reads, to prove that writing works.
pub(super) async fn probe(database: &Database, now: Millis) -> Result<()> {
    let update = database
        .meta
        .update_one(doc! { "_id": "probe" }, doc! { "$set": { "at": now.0 } });
    update.upsert(true).await.map_err(failed("probe")).map(drop)
}

/// When the pool's next retry is due, in the store's time.
pub(super) async fn next_due(database: &Database, pool: Pool) -> Result<Option<Millis>> {
    let filter = doc! { "state": State::Retryable.as_str(), "pool": pool.as_str() };
    first_time(database, filter, doc! { "run_at": 1 })
        .await
        .map(|found| found.map(|(at, _)| at))
}

/// The load of every pool.
pub(super) async fn pool_stats(database: &Database, now: Millis) -> Result<Vec<PoolStats>> {
    let counts = counters::read(database).await.map_err(failed("read pool stats"))?;
    let mut stats = Vec::with_capacity(Pool::ALL.len());
    for pool in Pool::ALL {
        let count = |state: State| u64::try_from(counts[pool as usize][state as usize]).unwrap_or(0);
        let oldest = match count(State::Available) {
            0 => None,
            _ => oldest_available(database, pool).await?,
        };
        stats.push(PoolStats {
            pool,
            available: count(State::Available),
            running: count(State::Running),
            retryable: count(State::Retryable),
            completed: count(State::Completed),
            cancelled: count(State::Cancelled),
            dead: count(State::Dead),
            oldest_available_ms: oldest.map(|since| now.since(since)),
        });
    }
    Ok(stats)
}

/// One look at the index for each priority in use: the index is ordered by priority first.
async fn oldest_available(database: &Database, pool: Pool) -> Result<Option<Millis>> {
    let mut oldest: Option<Millis> = None;
    let mut below = i32::MAX;
    loop {
        let filter = doc! {
            "state": State::Available.as_str(),
            "pool": pool.as_str(),
            "priority": { "$lt": below },
        };
        let Some((first, priority)) = first_time(database, filter, doc! { "priority": -1, "run_at": 1 }).await? else {
            return Ok(oldest);
        };
        oldest = Some(oldest.map_or(first, |oldest| oldest.min(first)));
        below = priority;
    }
}

/// `run_at` and priority of the first task that matches.
async fn first_time(database: &Database, filter: Document, order: Document) -> Result<Option<(Millis, i32)>> {
    #[derive(serde::Deserialize)]
    struct Row {
        run_at: i64,
        priority: i32,
    }
    let tasks = database.tasks.clone_with_type::<Row>();
    let find = tasks
        .find_one(filter)
        .sort(order)
        .projection(doc! { "run_at": 1, "priority": 1 });
    let row = find.await.map_err(failed("read times"))?;
    Ok(row.map(|row| (Millis(row.run_at), row.priority)))
}

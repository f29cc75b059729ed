//! What workers do: claim, heartbeat, record, give back; and the reaper that comes after those who vanish.

use super::{
    database::{Abort, Database, Operation, failed},
    documents::parse_key,
    unit::Unit,
};
use crate::{Error, Failure, Reaped, Record, Result, TaskError, TaskId, TaskResult, limits, record::TaskRecord};
use async_trait::async_trait;
use formwork_tasks::{Command, Millis, Pool, RunLease, State};
use futures::TryStreamExt as _;
use mongodb::bson::{Document, doc};
use std::time::Duration;

/// Makes retries available whose time has come.
pub(super) struct Promote {
    pub(super) ids: Vec<TaskId>,
}

#[async_trait]
impl Operation for Promote {
    type Output = ();

    async fn run(&self, unit: &mut Unit<'_>) -> Result<(), Abort> {
        for mut task in unit.load_many(&self.ids).await? {
            // Refused when another node was faster.
            let _ = unit.apply(&mut task, Command::Promote, None);
        }
        Ok(())
    }
}

/// Takes those of the named tasks that wait in the pool.
pub(super) struct Claim<'a> {
    pub(super) pool: Pool,
    pub(super) ids: Vec<TaskId>,
    pub(super) worker: &'a str,
    pub(super) lease_ms: u64,
}

#[async_trait]
impl Operation for Claim<'_> {
    /// The tasks as they are now: taken ones are running.
    type Output = Vec<TaskRecord>;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Vec<TaskRecord>, Abort> {
        let until = unit.now.plus(self.lease_ms);
        let mut taken = Vec::with_capacity(self.ids.len());
        for mut task in unit.load_many(&self.ids).await? {
            let before = task.worker.replace(self.worker.to_owned());
            let claimed = task.pool == self.pool && unit.apply(&mut task, Command::Claim { until }, None).is_ok();
            if claimed {
                taken.push(task);
            } else {
                task.worker = before;
            }
        }
        Ok(taken)
    }
}

/// Which tasks wait in a pool, in the order of claims: how work goes on without the index. `spread` reads further,
/// so that nodes that look at the same time do not all want the same tasks.
pub(super) async fn waiting(database: &Database, pool: Pool, limit: u32, spread: u32) -> Result<Vec<TaskId>> {
    let filter = doc! { "state": State::Available.as_str(), "pool": pool.as_str() };
    let order = doc! { "priority": -1, "run_at": 1, "_id": 1 };
    let mut ids = task_ids(database, filter, order, limit.saturating_mul(spread)).await?;
    while ids.len() > limit as usize {
        ids.remove(rand::random_range(0..ids.len()));
    }
    Ok(ids)
}

/// Which retries of a pool are due.
pub(super) async fn due(database: &Database, pool: Pool, now: Millis) -> Result<Vec<TaskId>> {
    let state = State::Retryable.as_str();
    let filter = doc! { "state": state, "pool": pool.as_str(), "run_at": { "$lte": now.0 } };
    task_ids(database, filter, doc! { "run_at": 1 }, limits::PROMOTE_TASKS).await
}

/// Which leases have ended.
pub(super) async fn ended(database: &Database, now: Millis) -> Result<Vec<TaskId>> {
    let filter = doc! { "state": State::Running.as_str(), "lease_until": { "$lte": now.0 } };
    task_ids(database, filter, doc! { "lease_until": 1 }, limits::REAP_TASKS).await
}

async fn task_ids(database: &Database, filter: Document, order: Document, limit: u32) -> Result<Vec<TaskId>> {
    #[derive(serde::Deserialize)]
    struct Row {
        #[serde(rename = "_id")]
        key: String,
    }
    let find = database.tasks.find(filter).sort(order).limit(limit.into());
    let cursor = find.projection(doc! { "_id": 1 }).await.map_err(failed("find tasks"))?;
    let rows: Vec<Row> = cursor.with_type().try_collect().await.map_err(failed("find tasks"))?;
    rows.iter().map(|row| parse_key(&row.key)).collect()
}

/// Records a result and everything that follows from it.
pub(super) struct Complete {
    pub(super) task: TaskId,
    pub(super) lease: RunLease,
    pub(super) result: TaskResult,
}

#[async_trait]
impl Operation for Complete {
    type Output = Record;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Record, Abort> {
        let result = &self.result;
        let Some(mut task) = unit.load(self.task).await? else {
            return Ok(Record::Stale);
        };
        task.error = None; // stays unsaved if the fence refuses
        let command = Command::Complete {
            lease: self.lease,
            verdict: result.verdict,
        };
        if unit.apply(&mut task, command, None).is_err() {
            return Ok(Record::Stale);
        }
        unit.lock(task.id).await?;
        unit.record_run(
            task.id,
            Some(result.cpu_ms),
            Some(&result.provenance),
            Some(&result.output),
        )?;
        if let Some(chunk) = &result.export {
            unit.record_chunk(&task, &chunk.bytes);
        }
        unit.settle([task.id.submission]).await?;
        Ok(Record::Recorded)
    }
}

/// Records a run that failed or was cancelled. A task that waits again is settled too: a step may have rejected the
/// submission while it ran, and then it must not run again.
pub(super) struct Fail {
    pub(super) task: TaskId,
    pub(super) lease: RunLease,
    /// With its disposition in the store's time.
    pub(super) failure: Failure,
}

#[async_trait]
impl Operation for Fail {
    type Output = Record;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Record, Abort> {
        let failure = &self.failure;
        let Some(mut task) = unit.load(self.task).await? else {
            return Ok(Record::Stale);
        };
        let error = TaskError::cut(&failure.code, &failure.message);
        task.error = Some(error.clone());
        let command = Command::Fail {
            lease: self.lease,
            disposition: failure.disposition,
        };
        if unit.apply(&mut task, command, Some(&error.code)).is_err() {
            return Ok(Record::Stale);
        }
        unit.lock(task.id).await?;
        unit.record_run(task.id, failure.cpu_ms, failure.provenance.as_ref(), None)?;
        unit.settle([task.id.submission]).await?;
        Ok(Record::Recorded)
    }
}

/// Gives a task back without spending an attempt.
pub(super) struct Release {
    pub(super) task: TaskId,
    pub(super) lease: RunLease,
}

#[async_trait]
impl Operation for Release {
    type Output = Record;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Record, Abort> {
        let Some(mut task) = unit.load(self.task).await? else {
            return Ok(Record::Stale);
        };
        if unit
            .apply(&mut task, Command::Release { lease: self.lease }, None)
            .is_err()
        {
            return Ok(Record::Stale);
        }
        unit.lock(task.id).await?;
        unit.settle([task.id.submission]).await?;
        Ok(Record::Recorded)
    }
}

/// Settles those of the named runs whose lease has ended.
pub(super) struct Reap {
    pub(super) ids: Vec<TaskId>,
    pub(super) max_crashes: u32,
}

#[async_trait]
impl Operation for Reap {
    type Output = Vec<Reaped>;

    /// The reaper comes again; what is locked is locked for longer than it should wait.
    fn patience(&self) -> Duration {
        Duration::from_millis(limits::REAP_MS)
    }

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Vec<Reaped>, Abort> {
        let mut ended = unit.load_many(&self.ids).await?;
        let command = Command::Expire {
            max_crashes: self.max_crashes,
        };
        // Refused when a heartbeat, a result or another node's reaper came first.
        ended.retain_mut(|task| unit.apply(task, command, None).is_ok());
        unit.settle(ended.iter().map(|task| task.id.submission)).await?;
        let reaped = ended.iter().map(|task| Reaped {
            id: task.id,
            pool: task.pool,
            // Settling stops it if a step has rejected the submission meanwhile.
            outcome: unit.changed(task.id).unwrap_or(task).reaped_as(),
        });
        Ok(reaped.collect())
    }
}

/// A task that was claimed must have what its worker needs.
pub(super) fn missing(id: TaskId) -> Error {
    Error::backend("read payload", format!("no data for {id}"))
}

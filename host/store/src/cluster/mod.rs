//! The backend for many nodes: MongoDB holds the truth, Redis an index of what waits.
//!
//! **Problem.** Several processes on several machines must share one queue and lose nothing when any of them, or a
//! database server, is killed. **Promise.** Everything [`Store`] says: each method that changes something, but for
//! heartbeats ([`heartbeat`]), is one MongoDB transaction, acknowledged by a majority's journals; Redis may lose
//! everything at any moment and costs only time. **Cost.** Some ten round trips to MongoDB a method. **Rejected.** Change streams for dispatch: every
//! node would see every task; one process that dispatches for all: one that can fail.
//!
//! A method loads tasks, asks the state machine of `formwork-tasks`, and writes what came out, guarded by
//! `(run_lease, events)`, inside its transaction ([`unit`]); [`database`] runs it again while it conflicts. What
//! follows from the commit is told to the index, then to subscribers, then the caller is answered.

mod clock;
mod controls;
mod counters;
mod database;
mod documents;
mod events;
mod exports;
mod forms;
mod heartbeat;
mod index;
mod operate;
mod options;
mod pace;
mod plans;
mod plugins;
mod presence;
mod retention;
mod schema;
mod submissions;
mod unit;
mod upkeep;
mod views;
mod work;

pub use options::{Durability, Options, TimeSource, Uri};

use crate::{
    Beat, Cancel, Claimed, Error, Expired, ExportRow, Failure, FormSummary, FormVersion, HeartbeatReply, NewForm,
    NewPlugin, NewSubmission, Page, Paged, PoolControl, PoolControlChange, PoolStats, PutForm, PutPlugin, Reaped,
    Record, Redriven, Result, Retention, Retry, Store, StoreEvent, StoredPlugin, SubmissionId, SubmissionSummary,
    SubmissionView, Submit, TaskEvent, TaskFilter, TaskId, TaskResult, TaskSummary, TaskView, limits,
    record::TaskRecord, sizes,
};
use async_trait::async_trait;
use database::{Database, Operation};
use documents::{parse_key, task_key};
use events::Events;
use formwork_tasks::{Disposition, Millis, Pool, RunLease};
use index::{Index, Taken, Word};
use rand::seq::SliceRandom;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, broadcast},
    task::JoinSet,
};
use unit::Consequences;

/// [`Store`] on MongoDB and Redis; any number of processes may have the same database open.
pub struct ClusterStore {
    inner: Arc<Inner>,
    upkeep: Mutex<JoinSet<()>>,
}

struct Inner {
    database: Database,
    index: Arc<Index>,
    events: Arc<Events>,
    /// A place for every operation; closed with the store.
    places: Semaphore,
    /// Where the store was opened. Connections live there: a caller's own runtime may do no I/O, or end.
    runtime: Handle,
}

impl ClusterStore {
    /// Connects, brings the schema up to date, rebuilds the index where it is not whole, and starts the upkeep.
    /// A Redis that cannot be reached is no error: work goes on without it.
    ///
    /// # Errors
    /// `Error::Unsupported` for a MongoDB without transactions, a schema or an index this program cannot work with, a
    /// Redis that evicts keys; `Error::Invalid` for an option; `Error::Unavailable` when MongoDB cannot be reached.
    pub async fn open(options: Options) -> Result<Self> {
        options.check()?;
        let database = Database::connect(&options).await?;
        schema::prepare(&database).await?;
        let index = Arc::new(Index::new(&options)?);
        let (events, unsent) = Events::new();
        let inner = Arc::new(Inner {
            database,
            index: Arc::clone(&index),
            events: Arc::new(events),
            places: Semaphore::new(limits::CLUSTER_OPERATIONS as usize),
            runtime: Handle::current(),
        });
        match index.probe().await {
            Ok(()) => upkeep::make_all_whole(&inner).await?,
            Err(error @ Error::Unavailable { .. }) => {
                tracing::warn!(%error, "redis cannot be reached, tasks are claimed from mongodb directly");
            }
            Err(error) => return Err(error),
        }
        let mut upkeep = JoinSet::new();
        upkeep.spawn(upkeep::run(Arc::clone(&inner)));
        upkeep.spawn(upkeep::stay_present(Arc::clone(&inner)));
        upkeep.spawn(events::send(Arc::clone(&index), unsent));
        upkeep.spawn(events::listen(index, Arc::clone(&inner.events)));
        tracing::info!(
            mongodb = %options.mongodb,
            database = options.database,
            redis = %options.redis,
            namespace = options.namespace,
            durability = ?options.durability,
            "store opened"
        );
        Ok(Self {
            inner,
            upkeep: Mutex::new(upkeep),
        })
    }

    /// Runs an operation to its end even if the caller's future is dropped: half of it would leave a commit that
    /// the index does not know.
    async fn run<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        let work = work(Arc::clone(&inner));
        self.run_at_once(async move {
            let _place = inner.places.acquire().await.map_err(|_| Error::Closed)?;
            work.await
        })
        .await
    }

    /// The same without waiting for a place.
    async fn run_at_once<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if self.inner.places.is_closed() {
            return Err(Error::Closed);
        }
        let task = self.inner.runtime.spawn(work);
        task.await.map_err(|error| Error::backend("run", error))?
    }

    /// Runs an operation as a transaction.
    async fn write<O>(&self, name: &'static str, now: Millis, operation: O) -> Result<O::Output>
    where
        O: Operation + Send + 'static,
    {
        self.run(move |inner| async move { inner.transact(name, now, &operation).await })
            .await
    }
}

impl Inner {
    async fn transact<O: Operation>(&self, name: &'static str, now: Millis, operation: &O) -> Result<O::Output> {
        let (output, consequences) = self.database.transact(name, now, operation).await?;
        self.after_commit(consequences).await;
        Ok(output)
    }

    /// Tells the index, then the subscribers. The index cannot fail a write that is committed: it is behind then.
    async fn after_commit(&self, consequences: Consequences) {
        let words = |pool: Pool| -> Vec<Word> {
            let of_pool = consequences.moved.iter().filter(|task| task.pool == pool);
            of_pool.filter_map(Word::about).collect()
        };
        let told = Pool::ALL.map(|pool| {
            let words = words(pool);
            async move {
                if !words.is_empty()
                    && let Err(error) = self.index.tell(pool, &words).await
                {
                    tracing::debug!(%pool, %error, "the index was not told of a change");
                }
            }
        });
        futures::future::join_all(told).await;
        self.events.tell(consequences.events);
    }

    /// Takes up to `limit` tasks: what the index hands out, or what MongoDB finds where the index is not whole.
    async fn claim(&self, pool: Pool, worker: &str, limit: u32, lease_ms: u64, now: Millis) -> Result<Vec<TaskRecord>> {
        let limit = limit.min(limits::CLAIM_TASKS);
        let mut taken: Vec<TaskRecord> = Vec::new();
        for look in 0..limits::CLAIM_LOOKS {
            let wanted = limit - u32::try_from(taken.len()).unwrap_or(limit);
            if wanted == 0 {
                return Ok(taken);
            }
            // Not for ever: a flood of due retries must not keep what waits from being handed out.
            let look_for_due = look < limits::CLAIM_LOOKS / 2;
            match self.index.take(pool, wanted, now, look_for_due).await {
                Ok(Taken::Due(keys)) => self.promote(pool, ids_of(&keys), now).await?,
                Ok(Taken::Ready(keys)) if keys.is_empty() => {
                    if self.index.is_behind(pool) {
                        break;
                    }
                    return Ok(taken);
                }
                Ok(Taken::Ready(keys)) => {
                    let handed_out = keys.len();
                    taken.extend(self.claim_handed_out(pool, keys, worker, lease_ms, now).await?);
                    if handed_out < wanted as usize && !self.index.is_behind(pool) {
                        return Ok(taken);
                    }
                }
                Ok(Taken::Unknown) | Err(_) => break,
            }
        }
        let wanted = limit - u32::try_from(taken.len()).unwrap_or(limit);
        taken.extend(self.claim_directly(pool, worker, wanted, lease_ms, now).await?);
        Ok(taken)
    }

    /// Makes tasks running that the index has handed out. What MongoDB does not allow leaves the hold as it is in
    /// truth.
    async fn claim_handed_out(
        &self,
        pool: Pool,
        keys: Vec<String>,
        worker: &str,
        lease_ms: u64,
        now: Millis,
    ) -> Result<Vec<TaskRecord>> {
        let operation = work::Claim {
            pool,
            ids: ids_of(&keys),
            worker,
            lease_ms,
        };
        let taken = match self.transact("claim", now, &operation).await {
            Ok(taken) => taken,
            Err(error) => {
                // Put back what was handed out, as far as it can be read; the end of the hold does the same.
                let _ = self.correct(pool, &operation.ids).await;
                return Err(error);
            }
        };
        let settled: Vec<Word> = taken.iter().map(|task| Word::settled(task_key(task.id))).collect();
        // If it does not arrive, the end of the hold brings the same about.
        let _ = self.index.tell(pool, &settled).await;
        let refused: Vec<_> = operation
            .ids
            .into_iter()
            .filter(|id| taken.iter().all(|task| task.id != *id))
            .collect();
        self.correct(pool, &refused).await?;
        Ok(taken)
    }

    /// Claims without the index. Several nodes may find the same tasks; who conflicts looks again, further.
    async fn claim_directly(
        &self,
        pool: Pool,
        worker: &str,
        limit: u32,
        lease_ms: u64,
        now: Millis,
    ) -> Result<Vec<TaskRecord>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let due = work::due(&self.database, pool, now).await?;
        if !due.is_empty() {
            self.promote(pool, due, now).await?;
        }
        for spread in [1, 4, 16] {
            let ids = work::waiting(&self.database, pool, limit, spread).await?;
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let operation = work::Claim {
                pool,
                ids,
                worker,
                lease_ms,
            };
            let taken = self.transact("claim", now, &operation).await?;
            if !taken.is_empty() {
                let gone: Vec<Word> = taken.iter().map(Word::correction).collect();
                // The index may know them: it forgets them, if it can.
                let _ = self.index.tell(pool, &gone).await;
                return Ok(taken);
            }
        }
        Ok(Vec::new())
    }
}

fn ids_of(keys: &[String]) -> Vec<TaskId> {
    keys.iter().filter_map(|key| parse_key(key).ok()).collect()
}

#[async_trait]
impl Store for ClusterStore {
    async fn put_form(&self, form: NewForm, now: Millis) -> Result<PutForm> {
        sizes::check_form(&form)?;
        self.write("put form", now, forms::Put { form }).await
    }

    async fn form(&self, id: &str, version: Option<u32>) -> Result<Option<FormVersion>> {
        let id = id.to_owned();
        self.run(move |inner| async move { forms::get(&inner.database, &id, version).await })
            .await
    }

    async fn forms(&self, page: Page) -> Result<Paged<FormSummary>> {
        self.run(move |inner| async move { forms::list(&inner.database, &page).await })
            .await
    }

    async fn form_versions(&self, id: &str) -> Result<Vec<FormSummary>> {
        let id = id.to_owned();
        self.run(move |inner| async move { forms::versions(&inner.database, &id).await })
            .await
    }

    async fn submit(&self, submission: NewSubmission, now: Millis) -> Result<Submit> {
        let submissions = vec![submission];
        sizes::check_submissions(&submissions)?;
        let outcomes = self.write("submit", now, submissions::Record { submissions }).await?;
        let outcome = outcomes.into_iter().next();
        outcome.ok_or_else(|| Error::backend("submit", "no outcome"))
    }

    async fn submit_many(&self, submissions: Vec<NewSubmission>, now: Millis) -> Result<Vec<Submit>> {
        sizes::check_submissions(&submissions)?;
        self.write("submit many", now, submissions::Record { submissions })
            .await
    }

    async fn submission(&self, id: SubmissionId) -> Result<Option<SubmissionView>> {
        self.run(move |inner| async move { views::submission(&inner.database, id).await })
            .await
    }

    async fn submissions(&self, form: Option<&str>, page: Page) -> Result<Paged<SubmissionSummary>> {
        let form = form.map(str::to_owned);
        self.run(move |inner| async move { views::submissions(&inner.database, form.as_deref(), &page).await })
            .await
    }

    async fn claim(&self, pool: Pool, worker: &str, limit: u32, lease_ms: u64, now: Millis) -> Result<Vec<Claimed>> {
        let worker = worker.to_owned();
        self.run(move |inner| async move {
            let now = inner.database.clock.now(now);
            let taken = inner.claim(pool, &worker, limit, lease_ms, now).await?;
            if taken.is_empty() {
                return Ok(Vec::new());
            }
            views::payloads(&inner.database, taken).await
        })
        .await
    }

    async fn heartbeat(&self, runs: &[Beat], lease_ms: u64, now: Millis) -> Result<HeartbeatReply> {
        let (inner, beats) = (Arc::clone(&self.inner), runs.to_vec());
        // It must not wait for the work it keeps alive.
        self.run_at_once(async move {
            let now = inner.database.clock.now(now);
            let prolonged = heartbeat::prolong(&inner.database, &beats, lease_ms, now).await?;
            inner.events.tell(prolonged.events);
            Ok(prolonged.reply)
        })
        .await
    }

    async fn complete(&self, task: TaskId, run_lease: RunLease, result: TaskResult, now: Millis) -> Result<Record> {
        sizes::check_result(&result)?;
        let lease = run_lease;
        self.write("complete", now, work::Complete { task, lease, result })
            .await
    }

    async fn fail(&self, task: TaskId, run_lease: RunLease, mut failure: Failure, now: Millis) -> Result<Record> {
        if let Disposition::RetryAt(at) = failure.disposition {
            failure.disposition = Disposition::RetryAt(self.inner.database.clock.of_caller(at, now));
        }
        let lease = run_lease;
        self.write("fail", now, work::Fail { task, lease, failure }).await
    }

    async fn release(&self, task: TaskId, run_lease: RunLease, now: Millis) -> Result<Record> {
        let lease = run_lease;
        self.write("release", now, work::Release { task, lease }).await
    }

    async fn reap(&self, now: Millis, max_crashes: u32) -> Result<Vec<Reaped>> {
        self.run(move |inner| async move {
            let now = inner.database.clock.now(now);
            let mut ids = work::ended(&inner.database, now).await?;
            // All nodes find the same ones at the same time: they make the same parts of them, and each begins with another.
            ids.sort_unstable();
            let mut parts: VecDeque<Vec<TaskId>> = ids.chunks(limits::TRANSACTION_TASKS).map(<[_]>::to_vec).collect();
            parts.make_contiguous().shuffle(&mut rand::rng());
            let mut all = Vec::with_capacity(ids.len());
            let mut failed = None;
            while let Some(ids) = parts.pop_front() {
                let operation = work::Reap { ids, max_crashes };
                match inner.transact("reap", now, &operation).await {
                    Ok(reaped) => all.extend(reaped),
                    // One that is locked must not hold up the others.
                    Err(_) if operation.ids.len() > 1 => parts.extend(operation.ids.into_iter().map(|id| vec![id])),
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                Some(error) if all.is_empty() => Err(error),
                // What was settled is told; the rest is found again.
                Some(error) => {
                    tracing::warn!(%error, "not all ended leases could be settled");
                    Ok(all)
                }
                None => Ok(all),
            }
        })
        .await
    }

    async fn cancel(&self, task: TaskId, now: Millis) -> Result<Cancel> {
        self.write("cancel", now, operate::CancelTask { task }).await
    }

    async fn retry(&self, task: TaskId, now: Millis) -> Result<Retry> {
        self.write("retry", now, operate::RetryTask { task }).await
    }

    async fn redrive(&self, filter: TaskFilter, limit: u32, now: Millis) -> Result<Redriven> {
        let filter = filter.of_dead()?;
        let limit = limit.min(limits::REDRIVE_TASKS);
        self.run(move |inner| async move {
            let (ids, more) = views::dead(&inner.database, &filter, limit).await?;
            if ids.is_empty() {
                return Ok(Redriven { count: 0, more });
            }
            let count = inner.transact("redrive", now, &operate::Redrive { ids }).await?;
            Ok(Redriven { count, more })
        })
        .await
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskView>> {
        self.run(move |inner| async move { views::task(&inner.database, id).await })
            .await
    }

    async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Paged<TaskSummary>> {
        self.run(move |inner| async move { views::tasks(&inner.database, &filter, &page).await })
            .await
    }

    async fn task_history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        self.run(move |inner| async move { views::history(&inner.database, id).await })
            .await
    }

    async fn pool_stats(&self, now: Millis) -> Result<Vec<PoolStats>> {
        self.run(move |inner| async move { operate::pool_stats(&inner.database, inner.database.clock.now(now)).await })
            .await
    }

    async fn pool_controls(&self) -> Result<Vec<(Pool, PoolControl)>> {
        self.run(move |inner| async move { controls::all(&inner.database).await })
            .await
    }

    async fn set_pool_control(&self, pool: Pool, change: PoolControlChange, now: Millis) -> Result<PoolControl> {
        self.write("set pool control", now, controls::Set { pool, change })
            .await
    }

    async fn put_plugin(&self, plugin: NewPlugin, now: Millis) -> Result<PutPlugin> {
        self.run(move |inner| async move {
            plugins::write_parts(&inner.database, &plugin).await?;
            inner.transact("put plugin", now, &plugins::Put { plugin }).await
        })
        .await
    }

    async fn plugins(&self) -> Result<Vec<StoredPlugin>> {
        self.run(move |inner| async move { plugins::list(&inner.database).await })
            .await
    }

    async fn plugin_component(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let digest = digest.to_owned();
        self.run(move |inner| async move { plugins::component(&inner.database, &digest).await })
            .await
    }

    async fn next_due(&self, pool: Pool) -> Result<Option<Millis>> {
        self.run(move |inner| async move {
            let due = operate::next_due(&inner.database, pool).await?;
            Ok(due.map(|due| inner.database.clock.to_wall(due)))
        })
        .await
    }

    async fn export_chunks(
        &self,
        form: &str,
        form_version: u32,
        step: &str,
        after_sequence: u64,
        limit: u32,
    ) -> Result<Vec<ExportRow>> {
        let series = exports::Series {
            form: form.to_owned(),
            form_version,
            step: step.to_owned(),
        };
        self.run(move |inner| async move { exports::chunks(&inner.database, &series, after_sequence, limit).await })
            .await
    }

    async fn expire(&self, retention: Retention, after: Option<SubmissionId>, now: Millis) -> Result<Expired> {
        self.write("expire", now, retention::Expire { retention, after }).await
    }

    async fn expire_exports(&self, older_than_ms: u64, now: Millis) -> Result<u32> {
        self.write("expire exports", now, retention::ExpireExports { older_than_ms })
            .await
    }

    fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.inner.events.subscribe()
    }

    async fn ready(&self) -> Result<()> {
        self.run(move |inner| async move { operate::probe(&inner.database, inner.database.clock.now(Millis(0))).await })
            .await
    }

    async fn close(&self) {
        let places = &self.inner.places;
        // All places: whoever has one has answered. Later ones are refused.
        let all = places.acquire_many(limits::CLUSTER_OPERATIONS).await;
        places.close();
        drop(all);
        let mut upkeep = std::mem::take(&mut *self.upkeep.lock().unwrap_or_else(PoisonError::into_inner));
        upkeep.shutdown().await;
    }
}

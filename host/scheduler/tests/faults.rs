//! A store that fails for a moment: nothing is lost, nothing is recorded twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

use async_trait::async_trait;
use formwork_scheduler::{RunContext, Scheduler};
use formwork_store::{
    Beat, Cancel, Claimed, Error, Expired, ExportRow, Failure, FormSummary, FormVersion, HeartbeatReply, NewForm,
    NewPlugin, NewSubmission, Page, Paged, PoolControl, PoolControlChange, PoolStats, PutForm, PutPlugin, Reaped,
    Record, Redriven, Result, Retention, Retry, Store, StoreEvent, StoredPlugin, SubmissionId, SubmissionSummary,
    SubmissionView, Submit, TaskEvent, TaskFilter, TaskId, TaskResult, TaskSummary, TaskView,
};
use formwork_tasks::{DeadReason, Millis, Pool, RunLease, State, SubmissionStatus};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use support::{Bench, done, options, runner, soon};
use tokio::sync::{broadcast, mpsc, watch};

/// How often the next calls of a method fail, before or after the real store has done them, and whether they hang.
#[derive(Default)]
struct Fault {
    before: AtomicU32,
    after: AtomicU32,
    hangs: AtomicBool,
    calls: watch::Sender<u32>,
}

impl Fault {
    async fn around<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fails = |count: &AtomicU32| {
            let left = count.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
            left.map_or(Ok(()), |_| Err(unavailable()))
        };
        self.calls.send_modify(|calls| *calls += 1);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        fails(&self.before)?;
        let answer = call.await;
        fails(&self.after)?;
        answer
    }
}

/// What a store says that does not know whether a write was recorded.
fn unavailable() -> Error {
    Error::Unavailable {
        operation: "test",
        source: "injected".into(),
    }
}

/// The real store behind faults.
struct Faulty {
    store: Arc<dyn Store>,
    claim: Fault,
    complete: Fault,
    heartbeat: Fault,
    reap: Fault,
    list: Fault,
}

impl Faulty {
    fn new(bench: &Bench) -> Self {
        Self {
            store: Arc::clone(&bench.store),
            claim: Fault::default(),
            complete: Fault::default(),
            heartbeat: Fault::default(),
            reap: Fault::default(),
            list: Fault::default(),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn put_form(&self, form: NewForm, now: Millis) -> Result<PutForm> {
        self.store.put_form(form, now).await
    }
    async fn form(&self, id: &str, version: Option<u32>) -> Result<Option<FormVersion>> {
        self.store.form(id, version).await
    }
    async fn forms(&self, page: Page) -> Result<Paged<FormSummary>> {
        self.store.forms(page).await
    }
    async fn form_versions(&self, id: &str) -> Result<Vec<FormSummary>> {
        self.store.form_versions(id).await
    }
    async fn submit(&self, submission: NewSubmission, now: Millis) -> Result<Submit> {
        self.store.submit(submission, now).await
    }
    async fn submit_many(&self, many: Vec<NewSubmission>, now: Millis) -> Result<Vec<Submit>> {
        self.store.submit_many(many, now).await
    }
    async fn submission(&self, id: SubmissionId) -> Result<Option<SubmissionView>> {
        self.store.submission(id).await
    }
    async fn submissions(&self, form: Option<&str>, page: Page) -> Result<Paged<SubmissionSummary>> {
        self.store.submissions(form, page).await
    }
    async fn claim(&self, pool: Pool, worker: &str, limit: u32, lease_ms: u64, now: Millis) -> Result<Vec<Claimed>> {
        let call = self.store.claim(pool, worker, limit, lease_ms, now);
        self.claim.around(call).await
    }
    async fn heartbeat(&self, runs: &[Beat], lease_ms: u64, now: Millis) -> Result<HeartbeatReply> {
        let call = self.store.heartbeat(runs, lease_ms, now);
        self.heartbeat.around(call).await
    }
    async fn complete(&self, task: TaskId, run_lease: RunLease, result: TaskResult, now: Millis) -> Result<Record> {
        let call = self.store.complete(task, run_lease, result, now);
        self.complete.around(call).await
    }
    async fn fail(&self, task: TaskId, run_lease: RunLease, failure: Failure, now: Millis) -> Result<Record> {
        self.store.fail(task, run_lease, failure, now).await
    }
    async fn release(&self, task: TaskId, run_lease: RunLease, now: Millis) -> Result<Record> {
        self.store.release(task, run_lease, now).await
    }
    async fn reap(&self, now: Millis, max_crashes: u32) -> Result<Vec<Reaped>> {
        self.reap.around(self.store.reap(now, max_crashes)).await
    }
    async fn cancel(&self, task: TaskId, now: Millis) -> Result<Cancel> {
        self.store.cancel(task, now).await
    }
    async fn retry(&self, task: TaskId, now: Millis) -> Result<Retry> {
        self.store.retry(task, now).await
    }
    async fn redrive(&self, filter: TaskFilter, limit: u32, now: Millis) -> Result<Redriven> {
        self.store.redrive(filter, limit, now).await
    }
    async fn task(&self, id: TaskId) -> Result<Option<TaskView>> {
        self.store.task(id).await
    }
    async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Paged<TaskSummary>> {
        self.list.around(self.store.tasks(filter, page)).await
    }
    async fn task_history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        self.store.task_history(id).await
    }
    async fn pool_stats(&self, now: Millis) -> Result<Vec<PoolStats>> {
        self.store.pool_stats(now).await
    }
    async fn next_due(&self, pool: Pool) -> Result<Option<Millis>> {
        self.store.next_due(pool).await
    }
    async fn export_chunks(
        &self,
        form: &str,
        form_version: u32,
        step: &str,
        after_sequence: u64,
        limit: u32,
    ) -> Result<Vec<ExportRow>> {
        self.store
            .export_chunks(form, form_version, step, after_sequence, limit)
            .await
    }
    async fn pool_controls(&self) -> Result<Vec<(Pool, PoolControl)>> {
        self.store.pool_controls().await
    }
    async fn set_pool_control(&self, pool: Pool, change: PoolControlChange, now: Millis) -> Result<PoolControl> {
        self.store.set_pool_control(pool, change, now).await
    }
    async fn expire(&self, retention: Retention, after: Option<SubmissionId>, now: Millis) -> Result<Expired> {
        self.store.expire(retention, after, now).await
    }
    async fn expire_exports(&self, older_than_ms: u64, now: Millis) -> Result<u32> {
        self.store.expire_exports(older_than_ms, now).await
    }
    async fn put_plugin(&self, plugin: NewPlugin, now: Millis) -> Result<PutPlugin> {
        self.store.put_plugin(plugin, now).await
    }
    async fn plugins(&self) -> Result<Vec<StoredPlugin>> {
        self.store.plugins().await
    }
    async fn plugin_component(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        self.store.plugin_component(digest).await
    }
    fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.store.subscribe()
    }
    async fn ready(&self) -> Result<()> {
        self.store.ready().await
    }
    async fn close(&self) {
        self.store.close().await;
    }
}

#[tokio::test]
async fn a_result_survives_a_store_that_fails_before_and_after_recording_it() {
    for (before, after) in [(2, 0), (0, 1), (1, 1)] {
        let bench = Bench::new().await;
        let faulty = Faulty::new(&bench);
        faulty.complete.before.store(before, Ordering::SeqCst);
        faulty.complete.after.store(after, Ordering::SeqCst);
        let runs = Arc::new(AtomicU32::new(0));
        let work = runner({
            let runs = Arc::clone(&runs);
            move |_, _| {
                runs.fetch_add(1, Ordering::SeqCst);
                async { done("1") }
            }
        });
        let scheduler = Scheduler::start(options(), Arc::new(faulty), work).unwrap();
        let id = bench.submit("default").await;
        let view = bench.settled(id).await;
        assert_eq!(view.summary.status, SubmissionStatus::Done);
        let report = soon("drain", scheduler.drain(Duration::from_secs(10))).await;
        assert_eq!((report.released, report.abandoned), (0, 0));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let moves = bench.moves(id).await;
        assert_eq!(moves.iter().filter(|why| *why == "completed").count(), 1);
    }
}

#[tokio::test]
async fn leases_are_prolonged_while_the_settling_of_others_hangs() {
    let bench = Bench::new().await;
    let faulty = Faulty::new(&bench);
    faulty.reap.hangs.store(true, Ordering::SeqCst);
    let (mut beats, mut reaps) = (faulty.heartbeat.calls.subscribe(), faulty.reap.calls.subscribe());
    let mut options = options();
    options.sole_process = false;
    options.heartbeat_ms = 50;
    let work = runner(|_, context: RunContext| async move {
        context.cancel.cancelled().await;
        done("1")
    });
    let _scheduler = Scheduler::start(options, Arc::new(faulty), work).unwrap();
    bench.submit("default").await;
    soon("settling", reaps.wait_for(|calls| *calls == 1)).await.unwrap();
    let before = *beats.borrow_and_update();
    soon("heartbeats", beats.wait_for(|calls| *calls >= before + 3))
        .await
        .unwrap();
}

#[tokio::test]
async fn claims_and_recovery_are_tried_again() {
    let bench = Bench::new().await;
    let id = bench.submit("default").await;
    let ghost = bench.store.claim(Pool::Default, "w-ghost", 9, 60_000, support::now());
    assert_eq!(ghost.await.unwrap().len(), 1);
    let faulty = Faulty::new(&bench);
    faulty.list.before.store(1, Ordering::SeqCst);
    faulty.claim.before.store(4, Ordering::SeqCst);
    let work = runner(|_, _| async { done("1") });
    let _scheduler = Scheduler::start(options(), Arc::new(faulty), work).unwrap();
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Done);
}

#[tokio::test]
async fn a_run_that_cannot_be_kept_alive_is_stopped_when_its_lease_has_ended() {
    let bench = Bench::new().await;
    let faulty = Faulty::new(&bench);
    faulty.heartbeat.before.store(u32::MAX, Ordering::SeqCst);
    let mut options = options();
    options.lease_ms = 200;
    options.heartbeat_ms = 20;
    let (told, mut heard) = mpsc::unbounded_channel();
    let work = runner(move |_, context| {
        let told = told.clone();
        async move {
            context.cancel.cancelled().await;
            told.send(()).unwrap();
            done("1")
        }
    });
    let scheduler = Scheduler::start(options, Arc::new(faulty), work).unwrap();
    let id = bench.submit("default").await;
    soon("stop", heard.recv()).await;
    soon("drain", scheduler.drain(Duration::from_secs(10))).await;
    // Nothing was recorded: by now it may be somebody else's.
    assert_ne!(bench.task(id).await.summary.state, State::Completed);
}

#[tokio::test]
async fn a_result_that_is_too_large_makes_the_task_dead_at_once() {
    let bench = Bench::new().await;
    let large = "x".repeat(formwork_store::limits::DOCUMENT_BYTES + 1);
    let work = runner(move |_, _| {
        let large = large.clone();
        async move { done(&large) }
    });
    let _scheduler = Scheduler::start(options(), Arc::clone(&bench.store), work).unwrap();
    let id = bench.submit("default").await;
    let view = bench.settled(id).await;
    assert_eq!(view.summary.status, SubmissionStatus::Failed);
    let task = &view.tasks[0].summary;
    assert_eq!((task.attempts, task.dead_reason), (1, Some(DeadReason::Failed)));
    let error = task.error.as_ref().unwrap();
    assert_eq!(error.code, "result-too-large");
    assert!(error.message.contains("15728641 bytes is too large"), "{error:?}");
}

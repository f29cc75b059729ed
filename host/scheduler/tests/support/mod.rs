//! A store in a temporary folder, a runner made of a closure, and ways to wait for what happens.
#![allow(dead_code, reason = "each test file uses a part of it")]

use async_trait::async_trait;
use formwork_scheduler::{RunContext, RunOutcome, Scheduler, SchedulerOptions, TaskRunner};
use formwork_store::{
    Claimed, NewForm, NewSubmission, PluginRef, PoolControlChange, Provenance, Store, StoreEvent, SubmissionId,
    SubmissionView, TaskId, TaskResult, TaskView,
    sqlite::{Options, SqliteStore},
};
use formwork_tasks::{Millis, Pool, RetryPolicy, Step, Verdict};
use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

/// Nothing here takes this long unless it hangs.
pub(crate) const HANGS: Duration = Duration::from_secs(30);

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs tasks with a closure.
pub(crate) struct Runner<F>(F);

#[async_trait]
impl<F> TaskRunner for Runner<F>
where
    F: Fn(Claimed, RunContext) -> BoxFuture<RunOutcome> + Send + Sync + 'static,
{
    async fn run(&self, task: Claimed, context: RunContext) -> RunOutcome {
        self.0(task, context).await
    }
}

pub(crate) fn runner<F, Fut>(work: F) -> Arc<dyn TaskRunner>
where
    F: Fn(Claimed, RunContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = RunOutcome> + Send + 'static,
{
    Arc::new(Runner(move |task, context| -> BoxFuture<RunOutcome> {
        Box::pin(work(task, context))
    }))
}

pub(crate) fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis(i64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        plugin: PluginRef {
            name: "test".into(),
            version: "1.0.0".into(),
            digest: "sha256:0".into(),
        },
        models: Vec::new(),
    }
}

pub(crate) fn done(output: &str) -> RunOutcome {
    RunOutcome::Done(TaskResult {
        output: output.into(),
        verdict: Verdict::Accepted,
        provenance: provenance(),
        cpu_ms: 1.0,
        export: None,
    })
}

pub(crate) fn failed(code: &str, retryable: bool) -> RunOutcome {
    RunOutcome::Failed {
        code: code.into(),
        message: "it did not work".into(),
        retryable,
        retry_after: None,
        provenance: None,
        cpu_ms: None,
    }
}

/// Options that make tests quick: small threads, retries at once; a poll so rare that events must do the work.
pub(crate) fn options() -> SchedulerOptions {
    let mut options = SchedulerOptions::default();
    for pool in [&mut options.high, &mut options.default, &mut options.batched] {
        pool.threads = 1;
        pool.poll_ms = 3_600_000;
        pool.retry = RetryPolicy::try_new(3, 1, 5).unwrap();
    }
    options.stop_grace_ms = 50;
    options
}

/// A store with forms, to submit to.
pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    folder: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let store = SqliteStore::open(&Options::new(path)).unwrap();
        let bench = Self {
            store: Arc::new(store),
            folder,
        };
        for pool in Pool::ALL {
            bench.form(pool.as_str(), vec![Step::new("only").in_pool(pool)]).await;
        }
        bench
    }

    pub(crate) async fn form(&self, id: &str, steps: Vec<Step>) {
        let form = NewForm {
            id: id.into(),
            definition: "{}".into(),
            digest: "sha256:1".into(),
            steps,
        };
        self.store.put_form(form, now()).await.unwrap();
    }

    /// Submits to version 1 of a form; the forms named like the pools have one step in that pool.
    pub(crate) async fn submit(&self, form: &str) -> SubmissionId {
        let id = SubmissionId::generate();
        let submission = NewSubmission {
            id,
            form: form.into(),
            form_version: 1,
            data: r#"{"message":"hello"}"#.into(),
            correlation_id: "test".into(),
            idempotency: None,
            priority: None,
        };
        self.store.submit(submission, now()).await.unwrap();
        id
    }

    /// Pauses or resumes a pool as an operator does; the scheduler has seen it.
    pub(crate) async fn set_paused(&self, scheduler: &Scheduler, pool: Pool, paused: bool) {
        let change = PoolControlChange {
            paused: Some(paused),
            ..PoolControlChange::default()
        };
        self.store.set_pool_control(pool, change, now()).await.unwrap();
        scheduler.refresh_controls().await.unwrap();
        assert_eq!(scheduler.status()[pool as usize].paused, paused);
    }

    /// Starts a scheduler on this store.
    pub(crate) fn start(&self, options: SchedulerOptions, runner: Arc<dyn TaskRunner>) -> Scheduler {
        Scheduler::start(options, Arc::clone(&self.store), runner).unwrap()
    }

    /// Waits until the submission has a final status.
    pub(crate) async fn settled(&self, id: SubmissionId) -> SubmissionView {
        let mut events = self.store.subscribe();
        tokio::time::timeout(HANGS, async {
            loop {
                let view = self.store.submission(id).await.unwrap().unwrap();
                if view.summary.settled_at.is_some() {
                    return view;
                }
                while events.recv().await.unwrap() != (StoreEvent::SubmissionSettled { id }) {}
            }
        })
        .await
        .expect("submission settles")
    }

    pub(crate) async fn task(&self, submission: SubmissionId) -> TaskView {
        let id = TaskId::new(submission, 0);
        self.store.task(id).await.unwrap().unwrap()
    }

    /// Why each move of the first task happened.
    pub(crate) async fn moves(&self, submission: SubmissionId) -> Vec<String> {
        let id = TaskId::new(submission, 0);
        let history = self.store.task_history(id).await.unwrap();
        history.into_iter().map(|event| event.why).collect()
    }
}

/// Waits, and fails the test instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

//! What clients were told and what workers did, written down outside of the store, and compared with it at the end.

use formwork_store::{
    Claimed, ExportChunk, Page, PluginRef, Provenance, Record, Store, SubmissionId, TaskFilter, TaskId, TaskResult,
    tasks::{Millis, Pool, RunLease, State, SubmissionStatus, Verdict},
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// The form that clients submit to.
pub(crate) const FORM: &str = "contact";

/// Its pipeline: a step in each of [`POOLS`], each with an effect.
pub(crate) const STEPS: [&str; 2] = ["check", "archive"];

/// The pool of each step.
pub(crate) const POOLS: [Pool; 2] = [Pool::High, Pool::Default];

/// The ledger of one test.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<BTreeSet<SubmissionId>>,
    /// Who was given which run.
    claims: Mutex<BTreeMap<(TaskId, RunLease), String>>,
    /// Results that the store said it recorded, by task.
    recorded: Mutex<BTreeMap<TaskId, RunLease>>,
    broken: Mutex<Vec<String>>,
}

impl Ledger {
    /// A client was told that its submission is recorded.
    pub(crate) fn acknowledged(&self, id: SubmissionId) {
        self.acknowledged.lock().unwrap().insert(id);
    }

    /// How many submissions were acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// How many results were recorded.
    pub(crate) fn results(&self) -> usize {
        self.recorded.lock().unwrap().len()
    }

    /// A worker was given a task.
    pub(crate) fn claimed(&self, task: &Claimed, worker: &str) {
        let other = self
            .claims
            .lock()
            .unwrap()
            .insert((task.id, task.run_lease), worker.to_owned());
        if let Some(other) = other {
            let lease = task.run_lease;
            self.breaks(format!(
                "{} was given to {other} and to {worker} under lease {lease}",
                task.id
            ));
        }
    }

    /// A worker was told what became of its result.
    pub(crate) fn told(&self, task: &Claimed, record: Record) {
        if record == Record::Stale {
            return;
        }
        let before = self.recorded.lock().unwrap().insert(task.id, task.run_lease);
        if let Some(before) = before {
            self.breaks(format!(
                "{} was completed under lease {before} and under {}",
                task.id, task.run_lease
            ));
        }
    }

    fn breaks(&self, what: String) {
        self.broken.lock().unwrap().push(what);
    }

    /// Whether everything that was acknowledged has ended.
    pub(crate) async fn all_done(&self, store: &dyn Store) -> bool {
        let Ok(stats) = store.pool_stats(Millis(0)).await else {
            return false;
        };
        let left = stats
            .iter()
            .map(|pool| pool.available + pool.running + pool.retryable)
            .sum::<u64>();
        left == 0
    }

    /// Compares with the store; everything must have ended, see [`Ledger::all_done`].
    pub(crate) async fn check(&self, store: &dyn Store) {
        let broken = self.broken.lock().unwrap().clone();
        assert!(broken.is_empty(), "{broken:#?}");
        let acknowledged = self.acknowledged.lock().unwrap().clone();
        for id in &acknowledged {
            let view = store.submission(*id).await.unwrap();
            let view = view.unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
            assert_eq!(view.summary.status, SubmissionStatus::Done, "{id}");
            assert_eq!(view.tasks.len(), STEPS.len(), "{id}");
            for task in &view.tasks {
                let (id, lease) = (task.summary.id, task.summary.run_lease);
                // A worker that was told so, if its answer arrived, is the one that the store remembers.
                let recorded = self.recorded.lock().unwrap().get(&id).copied();
                assert!(recorded.is_none_or(|recorded| recorded == lease), "{id}");
                // What was claimed once, is completed and has left one effect has no history worth reading.
                if lease > RunLease(1) {
                    check_history(store, id, lease).await;
                }
            }
        }
        for step in STEPS {
            let exported = exported(store, step).await;
            let distinct: BTreeSet<SubmissionId> = exported.iter().copied().collect();
            assert_eq!(exported.len(), distinct.len(), "an effect of {step} was recorded twice");
            // Clients repeat until they are told: nothing is there that nobody knows of.
            assert_eq!(distinct, acknowledged, "the effects of {step}");
        }
        for pool in store.pool_stats(Millis(0)).await.unwrap() {
            let left = pool.available + pool.running + pool.retryable + pool.dead + pool.cancelled;
            assert_eq!(left, 0, "the counters of {pool:?}");
        }
        for state in State::ALL.into_iter().filter(|state| *state != State::Completed) {
            let filter = TaskFilter {
                state: Some(state),
                ..TaskFilter::default()
            };
            let left = store.tasks(filter, Page::default()).await.unwrap();
            assert!(left.items.is_empty(), "left behind: {:?}", left.items);
        }
    }
}

/// Every line of the history follows from the one before, and the last one is the only completion.
async fn check_history(store: &dyn Store, id: TaskId, lease: RunLease) {
    let history = store.task_history(id).await.unwrap();
    let mut state = None;
    for line in &history {
        assert_eq!(line.from, state, "{id}: {history:#?}");
        state = Some(line.to);
    }
    let entered = |state: State| history.iter().filter(|line| line.to == state).count() as u64;
    assert_eq!(entered(State::Completed), 1, "{id}: {history:#?}");
    assert_eq!(state, Some(State::Completed), "{id}");
    assert_eq!(entered(State::Running), lease.0, "{id}: the fence counts the claims");
}

async fn exported(store: &dyn Store, step: &str) -> Vec<SubmissionId> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let chunks = store.export_chunks(FORM, 1, step, after, 1_000).await.unwrap();
        let Some(last) = chunks.last() else { return all };
        after = last.sequence;
        all.extend(chunks.iter().map(|chunk| chunk.submission));
    }
}

/// What a worker records: one exported line, with the task's id.
pub(crate) fn result(task: &Claimed) -> TaskResult {
    TaskResult {
        output: "{}".into(),
        verdict: Verdict::Accepted,
        provenance: Provenance {
            plugin: PluginRef {
                name: "test".into(),
                version: "1.0.0".into(),
                digest: "sha256:00".into(),
            },
            models: vec![],
        },
        cpu_ms: 0.0,
        export: Some(ExportChunk {
            bytes: task.id.to_string().into_bytes(),
        }),
    }
}

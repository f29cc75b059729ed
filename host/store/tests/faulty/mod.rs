//! A store whose calls fail, come late, or arrive twice, as calls over a network do; which ones is decided by a seed.
//!
//! What a caller may do when a call failed is written at each method of [`Store`]; [`Repeat`] says the same to the
//! wrapper, and the suites behind it prove that it is true.

use async_trait::async_trait;
use formwork_store::{
    Beat, Cancel, Claimed, Error, Expired, ExportRow, Failure, FormSummary, FormVersion, HeartbeatReply, NewForm,
    NewPlugin, NewSubmission, Page, Paged, PoolControl, PoolControlChange, PoolStats, PutForm, PutPlugin, Reaped,
    Record, Redriven, Result, Retention, Retry, Store, StoreEvent, StoredPlugin, SubmissionId, SubmissionSummary,
    SubmissionView, Submit, TaskEvent, TaskFilter, TaskId, TaskResult, TaskSummary, TaskView,
    tasks::{Millis, Pool, RunLease},
};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// What a call that arrives twice does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Nothing, and it is answered the same.
    Same,
    /// Nothing, but its answer tells that it came second: `Stale`, `Unchanged`, an empty list.
    Told,
    /// More: it takes, or does, what the first one left.
    More,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The caller hears an error; nothing happened.
    ErrorBefore,
    /// The caller hears an error; it happened.
    ErrorAfter,
    /// It happens late.
    Delay,
    /// It happens twice; the caller hears the first answer.
    Duplicate,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// It hears every error. What it then does is its affair.
    Hears,
    /// It repeats a call until it hears an answer, and relies on that answer: a call whose answer would be another one
    /// the second time fails before it happens, never after.
    Repeats,
}

/// A [`Store`] with faults.
pub(crate) struct FaultyStore<S> {
    inner: S,
    caller: Caller,
    dice: Mutex<u64>,
    injected: Mutex<BTreeMap<(&'static str, Fault), u64>>,
}

/// One of so many calls meets a fault.
const SIDES: u64 = 3;

/// How often a call is repeated; no plan injects so many errors in a row.
const TRIES: u32 = 100;

/// The longest delay: long enough that others overtake.
const DELAY_MICROS: u64 = 2_000;

impl<S: Store> FaultyStore<S> {
    pub(crate) fn new(inner: S, caller: Caller, seed: u64) -> Self {
        Self {
            inner,
            caller,
            // Zero would stay zero.
            dice: Mutex::new(seed.wrapping_mul(2) + 1),
            injected: Mutex::default(),
        }
    }

    /// The store without faults.
    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }

    /// How often each fault was injected, by method.
    pub(crate) fn injected(&self) -> BTreeMap<(&'static str, Fault), u64> {
        self.injected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number below `sides`; SplitMix64, so that seeds that are close to each other differ.
    fn roll(&self, sides: u64) -> u64 {
        let mut state = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn choose(&self, method: &'static str, repeat: Repeat) -> Option<Fault> {
        if self.roll(SIDES) != 0 {
            return None;
        }
        let fault = match self.roll(4) {
            0 => Fault::ErrorBefore,
            1 if self.caller == Caller::Hears || repeat == Repeat::Same => Fault::ErrorAfter,
            1 => Fault::ErrorBefore,
            2 if repeat != Repeat::More => Fault::Duplicate,
            _ => Fault::Delay,
        };
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        *injected.entry((method, fault)).or_default() += 1;
        Some(fault)
    }

    async fn call<T, F>(&self, method: &'static str, repeat: Repeat, make: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut tries = 0;
        loop {
            let answer = match self.choose(method, repeat) {
                None => make().await,
                Some(Fault::ErrorBefore) => Err(injected(method)),
                // Another error than the injected one is one that the caller must hear.
                Some(Fault::ErrorAfter) => make().await.and_then(|_| Err(injected(method))),
                Some(Fault::Delay) => {
                    tokio::time::sleep(Duration::from_micros(self.roll(DELAY_MICROS))).await;
                    make().await
                }
                Some(Fault::Duplicate) => {
                    let first = make().await;
                    let _second = make().await;
                    first
                }
            };
            tries += 1;
            match answer {
                // As the scheduler does, which also tries again when a backend has a fault of its own.
                Err(Error::Unavailable { .. } | Error::Backend { .. })
                    if self.caller == Caller::Repeats && tries < TRIES => {}
                answer => return answer,
            }
        }
    }
}

fn injected(operation: &'static str) -> Error {
    Error::Unavailable {
        operation,
        source: "injected".into(),
    }
}

/// Every method that can fail, with what its repetition does.
macro_rules! faulty {
    ($($repeat:ident $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)+) => {
        #[async_trait]
        impl<S: Store> Store for FaultyStore<S> {
            $(async fn $name(&self $(, $argument: $type)*) -> Result<$answer> {
                let make = || self.inner.$name($(Clone::clone(&$argument)),*);
                self.call(stringify!($name), Repeat::$repeat, make).await
            })+

            fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
                self.inner.subscribe()
            }

            async fn failed(&self) -> String {
                self.inner.failed().await
            }

            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

faulty! {
    Told put_form(form: NewForm, now: Millis) -> PutForm;
    Same form(id: &str, version: Option<u32>) -> Option<FormVersion>;
    Same forms(page: Page) -> Paged<FormSummary>;
    Same form_versions(id: &str) -> Vec<FormSummary>;
    Told submit(submission: NewSubmission, now: Millis) -> Submit;
    Told submit_many(submissions: Vec<NewSubmission>, now: Millis) -> Vec<Submit>;
    Same submission(id: SubmissionId) -> Option<SubmissionView>;
    Same submissions(form: Option<&str>, page: Page) -> Paged<SubmissionSummary>;
    More claim(pool: Pool, worker: &str, limit: u32, lease_ms: u64, now: Millis) -> Vec<Claimed>;
    Same heartbeat(runs: &[Beat], lease_ms: u64, now: Millis) -> HeartbeatReply;
    Told complete(task: TaskId, run_lease: RunLease, result: TaskResult, now: Millis) -> Record;
    Told fail(task: TaskId, run_lease: RunLease, failure: Failure, now: Millis) -> Record;
    Told release(task: TaskId, run_lease: RunLease, now: Millis) -> Record;
    More reap(now: Millis, max_crashes: u32) -> Vec<Reaped>;
    Told cancel(task: TaskId, now: Millis) -> Cancel;
    Told retry(task: TaskId, now: Millis) -> Retry;
    More redrive(filter: TaskFilter, limit: u32, now: Millis) -> Redriven;
    Same task(id: TaskId) -> Option<TaskView>;
    Same tasks(filter: TaskFilter, page: Page) -> Paged<TaskSummary>;
    Same task_history(id: TaskId) -> Vec<TaskEvent>;
    Same pool_stats(now: Millis) -> Vec<PoolStats>;
    Same pool_controls() -> Vec<(Pool, PoolControl)>;
    Same set_pool_control(pool: Pool, change: PoolControlChange, now: Millis) -> PoolControl;
    Same next_due(pool: Pool) -> Option<Millis>;
    Same export_chunks(
        form: &str, form_version: u32, step: &str, after_sequence: u64, limit: u32
    ) -> Vec<ExportRow>;
    Told put_plugin(plugin: NewPlugin, now: Millis) -> PutPlugin;
    Same plugins() -> Vec<StoredPlugin>;
    Same plugin_component(digest: &str) -> Option<Vec<u8>>;
    Told expire(retention: Retention, after: Option<SubmissionId>, now: Millis) -> Expired;
    More expire_exports(older_than_ms: u64, now: Millis) -> u32;
    Same ready() -> ();
}

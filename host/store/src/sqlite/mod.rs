//! The embedded backend: one SQLite file, one process.
//!
//! **Problem.** A single machine should not need a database server to keep its promises. **Promise.**
//! Everything [`Store`] says, on one file; `kill -9` at any moment loses nothing that was acknowledged,
//! and in class [`Durability::Sync`] neither does a power cut. **Cost.** One writer: thousands of small
//! writes a second, not hundreds of thousands. **Rejected.** Faster embedded stores (redb, fjall, rocksdb):
//! none has SQLite's record under faults, nor a shell that an operator already knows.
//!
//! Writes go through one thread that groups them into commits; reads go to a few `query_only` connections
//! and never wait for it.

mod connection;
mod controls;
mod effects;
mod failure;
mod forms;
mod lock;
mod operate;
mod plans;
mod plugins;
mod progress;
#[cfg(test)]
mod query_plans;
mod readers;
mod redrive;
mod retention;
mod rows;
mod schema;
mod submissions;
mod task_list;
mod transition;
mod views;
mod work;
mod writer;

pub use connection::Durability;

use crate::{
    Beat, Cancel, Claimed, Error, Expired, ExportRow, Failure, FormSummary, FormVersion, HeartbeatReply, NewForm,
    NewPlugin, NewSubmission, Page, Paged, PoolControl, PoolControlChange, PoolStats, PutForm, PutPlugin, Reaped,
    Record, Redriven, Result, Retention, Retry, Store, StoreEvent, StoredPlugin, SubmissionId, SubmissionSummary,
    SubmissionView, Submit, TaskEvent, TaskFilter, TaskId, TaskResult, TaskSummary, TaskView, limits, sizes,
};
use async_trait::async_trait;
use formwork_tasks::{Millis, Pool, RunLease};
use lock::FileLock;
use readers::Readers;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::broadcast;
use writer::Writer;

/// How to open a [`SqliteStore`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file; made if missing, with `-wal`, `-shm` and `.lock` files beside it.
    pub path: PathBuf,
    /// When an acknowledged write is on disk.
    pub durability: Durability,
    /// Reader threads, at least 1.
    pub readers: usize,
}

impl Options {
    /// The given file with class `sync` and the default readers.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::default(),
            readers: limits::READERS,
        }
    }
}

/// [`Store`] on one SQLite file.
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    readers: Readers,
    events: broadcast::Sender<StoreEvent>,
}

impl SqliteStore {
    /// Opens (or makes) the file, brings its schema up to date and starts the threads. Blocks for some
    /// milliseconds.
    ///
    /// # Errors
    /// `Error::Locked` when another process has it; `Error::Unsupported` for a library, setting or schema this
    /// program cannot work with; `Error::Backend` or `Error::Fatal` when the file cannot be used.
    pub fn open(options: &Options) -> Result<Self> {
        connection::check_library()?;
        let lock = FileLock::take(&options.path)?;
        let mut connection = connection::open_writer(&options.path, options.durability)?;
        schema::migrate(&mut connection)?;
        sync_folder(&options.path)?;
        let readers = Readers::start(&options.path, options.readers)?;
        let (events, _) = broadcast::channel(limits::EVENT_BACKLOG);
        let writer = Writer::start(connection, lock, options.durability, events.clone())?;
        tracing::info!(
            path = %options.path.display(),
            sqlite = rusqlite::version(),
            durability = ?options.durability,
            "store opened"
        );
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                readers,
                events,
            }),
        })
    }

    async fn write<T, F>(&self, operation: &'static str, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut writer::Write<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.writer.write(operation, change).await
    }

    async fn read<T, F>(&self, operation: &'static str, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T> + Send + 'static,
    {
        self.inner.readers.ask(operation, question).await
    }
}

impl Inner {
    fn stop(&self) {
        self.readers.stop();
        self.writer.stop();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes the names of new files as durable as their content.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::backend("sync folder", error))
}

#[async_trait]
impl Store for SqliteStore {
    async fn put_form(&self, form: NewForm, now: Millis) -> Result<PutForm> {
        sizes::check_form(&form)?;
        self.write("put form", move |write| forms::put(write, &form, now)).await
    }

    async fn form(&self, id: &str, version: Option<u32>) -> Result<Option<FormVersion>> {
        let id = id.to_owned();
        self.read("read form", move |connection| forms::get(connection, &id, version))
            .await
    }

    async fn forms(&self, page: Page) -> Result<Paged<FormSummary>> {
        self.read("list forms", move |connection| forms::list(connection, &page))
            .await
    }

    async fn form_versions(&self, id: &str) -> Result<Vec<FormSummary>> {
        let id = id.to_owned();
        self.read("list form versions", move |connection| forms::versions(connection, &id))
            .await
    }

    async fn submit(&self, submission: NewSubmission, now: Millis) -> Result<Submit> {
        sizes::check_submissions(std::slice::from_ref(&submission))?;
        self.write("submit", move |write| submissions::submit(write, &submission, now))
            .await
    }

    async fn submit_many(&self, submissions: Vec<NewSubmission>, now: Millis) -> Result<Vec<Submit>> {
        sizes::check_submissions(&submissions)?;
        self.write("submit many", move |write| {
            submissions
                .iter()
                .map(|submission| submissions::submit(write, submission, now))
                .collect()
        })
        .await
    }

    async fn submission(&self, id: SubmissionId) -> Result<Option<SubmissionView>> {
        self.read("read submission", move |connection| views::submission(connection, id))
            .await
    }

    async fn submissions(&self, form: Option<&str>, page: Page) -> Result<Paged<SubmissionSummary>> {
        let form = form.map(str::to_owned);
        self.read("list submissions", move |connection| {
            views::submissions(connection, form.as_deref(), &page)
        })
        .await
    }

    async fn claim(&self, pool: Pool, worker: &str, limit: u32, lease_ms: u64, now: Millis) -> Result<Vec<Claimed>> {
        let worker = worker.to_owned();
        let taken = self
            .write("claim", move |write| {
                work::claim(write, pool, &worker, limit, lease_ms, now)
            })
            .await?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        self.read("read payloads", move |connection| views::payloads(connection, &taken))
            .await
    }

    async fn heartbeat(&self, runs: &[Beat], lease_ms: u64, now: Millis) -> Result<HeartbeatReply> {
        let runs = runs.to_vec();
        self.write("heartbeat", move |write| work::heartbeat(write, &runs, lease_ms, now))
            .await
    }

    async fn complete(&self, task: TaskId, run_lease: RunLease, result: TaskResult, now: Millis) -> Result<Record> {
        sizes::check_result(&result)?;
        self.write("complete", move |write| {
            work::complete(write, task, run_lease, &result, now)
        })
        .await
    }

    async fn fail(&self, task: TaskId, run_lease: RunLease, failure: Failure, now: Millis) -> Result<Record> {
        self.write("fail", move |write| work::fail(write, task, run_lease, &failure, now))
            .await
    }

    async fn release(&self, task: TaskId, run_lease: RunLease, now: Millis) -> Result<Record> {
        self.write("release", move |write| work::release(write, task, run_lease, now))
            .await
    }

    async fn reap(&self, now: Millis, max_crashes: u32) -> Result<Vec<Reaped>> {
        self.write("reap", move |write| work::reap(write, now, max_crashes))
            .await
    }

    async fn cancel(&self, task: TaskId, now: Millis) -> Result<Cancel> {
        self.write("cancel", move |write| operate::cancel(write, task, now))
            .await
    }

    async fn retry(&self, task: TaskId, now: Millis) -> Result<Retry> {
        self.write("retry", move |write| operate::retry(write, task, now)).await
    }

    async fn redrive(&self, filter: TaskFilter, limit: u32, now: Millis) -> Result<Redriven> {
        self.write("redrive", move |write| redrive::redrive(write, &filter, limit, now))
            .await
    }

    async fn task(&self, id: TaskId) -> Result<Option<TaskView>> {
        self.read("read task", move |connection| views::task(connection, id))
            .await
    }

    async fn tasks(&self, filter: TaskFilter, page: Page) -> Result<Paged<TaskSummary>> {
        self.read("list tasks", move |connection| {
            task_list::tasks(connection, &filter, &page)
        })
        .await
    }

    async fn task_history(&self, id: TaskId) -> Result<Vec<TaskEvent>> {
        self.read("read task history", move |connection| views::history(connection, id))
            .await
    }

    async fn pool_stats(&self, now: Millis) -> Result<Vec<PoolStats>> {
        self.read("read pool stats", move |connection| {
            operate::pool_stats(connection, now)
        })
        .await
    }

    async fn pool_controls(&self) -> Result<Vec<(Pool, PoolControl)>> {
        self.read("read pool controls", controls::all).await
    }

    async fn set_pool_control(&self, pool: Pool, change: PoolControlChange, now: Millis) -> Result<PoolControl> {
        self.write("set pool control", move |write| controls::set(write, pool, change, now))
            .await
    }

    async fn next_due(&self, pool: Pool) -> Result<Option<Millis>> {
        self.read("read next due", move |connection| operate::next_due(connection, pool))
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
        let (form, step) = (form.to_owned(), step.to_owned());
        self.read("read exports", move |connection| {
            views::export_chunks(connection, &form, form_version, &step, after_sequence, limit)
        })
        .await
    }

    async fn expire(&self, retention: Retention, after: Option<SubmissionId>, now: Millis) -> Result<Expired> {
        self.write("expire", move |write| retention::expire(write, retention, after, now))
            .await
    }

    async fn expire_exports(&self, older_than_ms: u64, now: Millis) -> Result<u32> {
        self.write("expire exports", move |write| {
            retention::expire_exports(write, older_than_ms, now)
        })
        .await
    }

    async fn put_plugin(&self, plugin: NewPlugin, now: Millis) -> Result<PutPlugin> {
        self.write("put plugin", move |write| plugins::put(write, &plugin, now))
            .await
    }

    async fn plugins(&self) -> Result<Vec<StoredPlugin>> {
        self.read("list plugins", plugins::list).await
    }

    async fn plugin_component(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let digest = digest.to_owned();
        self.read("read plugin", move |connection| plugins::component(connection, &digest))
            .await
    }

    fn subscribe(&self) -> broadcast::Receiver<StoreEvent> {
        self.inner.events.subscribe()
    }

    async fn ready(&self) -> Result<()> {
        self.write("probe", operate::probe).await
    }

    async fn failed(&self) -> String {
        self.inner.writer.failed().await
    }

    async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        if tokio::task::spawn_blocking(move || inner.stop()).await.is_err() {
            tracing::error!("closing the store panicked");
        }
    }
}

//! The only thread that writes, and the group commit.
//!
//! **Problem.** An fsync takes milliseconds, so one per submission is a few hundred submissions a second.
//! **Promise.** Writes that wait at the same time, or come while others of the group are made, share one
//! `BEGIN IMMEDIATE … COMMIT`; each is answered after it; one that fails takes none with it. **Cost.** A lone
//! write among many waits for the group, at most `limits::GROUP_WRITES` others. A group with a write that fails is made
//! twice, the second time with a savepoint for each. **Rejected.** One transaction per write on a connection pool:
//! SQLite has one writer anyhow, and every write would pay its own fsync. Savepoints from the start: they copy every page
//! before it is changed, a seventh of the CPU time of a task, for failures that are rare. Two groups that take turns, so
//! that one talks to its clients while the other is committed: a tenth more enqueued over HTTP where an fsync takes
//! 0.1 ms, for twice the fsyncs and a p95 a third longer.

use super::{connection::Durability, effects::write_counts, failure::sql, lock::FileLock, plans::Plans};
use crate::{Error, Result, StoreEvent, effects::Effects, limits, metrics};
use rusqlite::{Connection, wal::CheckpointMode};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce, broadcast, oneshot};

/// What a write may use: the open transaction, cached plans, and what to tell after the commit.
pub(super) struct Write<'group> {
    pub(super) connection: &'group Connection,
    pub(super) plans: &'group mut Plans,
    pub(super) effects: Effects,
}

/// The handle of the writer thread.
pub(super) struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    places: Arc<Semaphore>,
    fatal: Arc<SetOnce<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts the thread; it owns the connection and the file's lock until it ends.
    pub(super) fn start(
        connection: Connection,
        lock: FileLock,
        durability: Durability,
        events: broadcast::Sender<StoreEvent>,
    ) -> Result<Self> {
        // So that alerts see 0 before anything has gone wrong.
        metrics::FATAL.set(0);
        let (sender, receiver) = mpsc::channel();
        let fatal = Arc::new(SetOnce::new());
        let wal_pages = Arc::new(AtomicU64::new(0));
        let mut connection = connection;
        let pages_seen = Arc::clone(&wal_pages);
        connection
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: std::ffi::c_int| {
                pages_seen.store(u64::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(sql("watch the write-ahead log"))?;
        let page_bytes: u64 = connection
            .query_row("PRAGMA page_size", [], |row| row.get(0))
            .map_err(sql("read page size"))?;
        let state = Committer {
            jobs: receiver,
            fatal: Arc::clone(&fatal),
            wal_pages,
            page_bytes,
            interval: match durability {
                Durability::Sync => None,
                Durability::Interval { ms } => Some(Duration::from_millis(ms.max(1))),
            },
            events,
            plans: Plans::default(),
            latest_group: 1,
            latest_commit: Duration::ZERO,
            unsynced_since: None,
            connection,
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("store-write".to_owned())
            .spawn(move || state.serve())
            .map_err(|error| Error::backend("start writer thread", error))?;
        Ok(Self {
            jobs: Mutex::new(Some(sender)),
            places: Arc::new(Semaphore::new(limits::WRITE_BACKLOG)),
            fatal,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `change` in the next group and returns its value after the commit. It may be run twice; what the first run
    /// wrote is then rolled back.
    pub(super) async fn write<T, F>(&self, operation: &'static str, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&mut Write<'_>) -> Result<T> + Send + 'static,
    {
        if let Some(why) = self.fatal.get() {
            return Err(Error::Fatal(why.clone()));
        }
        let place = Arc::clone(&self.places)
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Pending {
            operation,
            change,
            result: None,
            reply,
            _place: place,
        });
        {
            let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            let sender = jobs.as_ref().ok_or(Error::Closed)?;
            sender.send(job).map_err(|_| self.gone())?;
        }
        answer.await.map_err(|_| self.gone())?
    }

    /// Ends, with the reason, when nothing is acknowledged any more.
    pub(super) async fn failed(&self) -> String {
        self.fatal.wait().await.clone()
    }

    fn gone(&self) -> Error {
        self.fatal.get().map_or(Error::Closed, |why| Error::Fatal(why.clone()))
    }

    /// Commits what was accepted, ends the thread and frees the file. Blocks until then.
    pub(super) fn stop(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the writer thread of the store panicked");
        }
    }
}

/// One write on its way through the writer.
trait Job: Send {
    /// Makes the change; says whether it may stay.
    fn make(&mut self, write: &mut Write<'_>) -> Made;
    /// Answers, after the group's commit (`None`) or its failure.
    fn answer(self: Box<Self>, failed: Option<&GroupFailure>);
}

enum Made {
    Kept,
    Refused,
    Fatal(String),
}

struct Pending<T, F> {
    operation: &'static str,
    change: F,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    _place: OwnedSemaphorePermit,
}

impl<T, F> Job for Pending<T, F>
where
    T: Send,
    F: Fn(&mut Write<'_>) -> Result<T> + Send,
{
    fn make(&mut self, write: &mut Write<'_>) -> Made {
        let result = catch_unwind(AssertUnwindSafe(|| (self.change)(write)))
            .unwrap_or_else(|_| Err(Error::backend(self.operation, "the write panicked, see the log")));
        let made = match &result {
            Ok(_) => Made::Kept,
            Err(Error::Fatal(why)) => Made::Fatal(why.clone()),
            Err(_) => Made::Refused,
        };
        self.result = Some(result);
        made
    }

    fn answer(self: Box<Self>, failed: Option<&GroupFailure>) {
        let result = match (self.result, failed) {
            // A write that was refused by itself keeps its own reason.
            (Some(Err(error)), None) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (_, Some(failure)) => Err(failure.error(self.operation)),
            (None, None) => Err(Error::Closed),
        };
        let outcome = match (&result, failed) {
            (Ok(_), _) => "ok",
            (Err(_), None) => "error",
            (Err(_), Some(_)) => "lost",
        };
        metrics::WRITES.with_label_values(&[outcome]).inc();
        // The one who asked may have gone.
        let _ = self.reply.send(result);
    }
}

/// Why a whole group was not acknowledged.
enum GroupFailure {
    /// Rolled back; nothing was recorded.
    NotRecorded { full: bool, why: String },
    /// The store has stopped.
    Fatal(String),
}

impl GroupFailure {
    fn from_error(error: &Error) -> Self {
        match error {
            Error::Fatal(why) => Self::Fatal(why.clone()),
            Error::Full { .. } => Self::NotRecorded {
                full: true,
                why: String::new(),
            },
            other => Self::NotRecorded {
                full: false,
                why: other.to_string(),
            },
        }
    }

    fn error(&self, operation: &'static str) -> Error {
        match self {
            Self::NotRecorded { full: true, .. } => Error::Full { operation },
            Self::NotRecorded { why, .. } => Error::backend(operation, why.clone()),
            Self::Fatal(why) => Error::Fatal(why.clone()),
        }
    }
}

/// The writer thread's state.
struct Committer {
    jobs: mpsc::Receiver<Box<dyn Job>>,
    fatal: Arc<SetOnce<String>>,
    wal_pages: Arc<AtomicU64>,
    page_bytes: u64,
    interval: Option<Duration>,
    events: broadcast::Sender<StoreEvent>,
    plans: Plans,
    latest_group: usize,
    latest_commit: Duration,
    unsynced_since: Option<Instant>,
    // Dropped in this order: the lock goes last.
    connection: Connection,
    _lock: FileLock,
}

impl Committer {
    fn serve(mut self) {
        while let Ok(first) = self.first() {
            if let Some(first) = first {
                self.commit(first);
            }
            self.checkpoint_if_due();
        }
        if self.fatal.get().is_none() && self.interval.is_some() {
            self.checkpoint(CheckpointMode::FULL);
        }
    }

    /// Waits for the first write of a group. Nothing when an interval checkpoint is due; an error when the store was
    /// closed.
    fn first(&self) -> std::result::Result<Option<Box<dyn Job>>, mpsc::RecvError> {
        match (self.interval, self.unsynced_since) {
            (Some(interval), Some(since)) => match self.jobs.recv_timeout(interval.saturating_sub(since.elapsed())) {
                Ok(job) => Ok(Some(job)),
                Err(RecvTimeoutError::Timeout) => Ok(None),
                Err(RecvTimeoutError::Disconnected) => Err(mpsc::RecvError),
            },
            _ => self.jobs.recv().map(Some),
        }
    }

    /// The next write of a group of `taken`: one that waits, or comes until then if the group is smaller than the one
    /// before.
    fn next(&self, taken: usize, until: Instant) -> Option<Box<dyn Job>> {
        if taken >= limits::GROUP_WRITES {
            return None;
        }
        match self.jobs.try_recv() {
            Err(mpsc::TryRecvError::Empty) if taken < self.latest_group => {
                let left = until.saturating_duration_since(Instant::now());
                self.jobs.recv_timeout(left).ok()
            }
            next => next.ok(),
        }
    }

    fn commit(&mut self, first: Box<dyn Job>) {
        let mut group = vec![first];
        let result = match self.fatal.get() {
            Some(why) => Err(Error::Fatal(why.clone())),
            None => {
                let began = Instant::now();
                let result = self.transact(&mut group);
                self.latest_commit = began.elapsed();
                metrics::COMMIT_SECONDS.observe(self.latest_commit.as_secs_f64());
                result
            }
        };
        self.latest_group = group.len();
        metrics::GROUP_WRITES.observe(group.len() as f64);
        match result {
            Ok(effects) => {
                self.unsynced_since.get_or_insert_with(Instant::now);
                // Events first: who was answered finds the events of its write already told.
                for event in effects.into_events() {
                    // Nobody may be listening.
                    let _ = self.events.send(event);
                }
                for job in group {
                    job.answer(None);
                }
            }
            Err(error) => {
                self.plans.clear();
                let failure = GroupFailure::from_error(&error);
                if let GroupFailure::Fatal(why) = &failure {
                    self.stop_for_good(why);
                }
                if !self.connection.is_autocommit()
                    && let Err(error) = self.connection.execute_batch("ROLLBACK")
                {
                    self.stop_for_good(&format!("rollback: {error}"));
                }
                for job in group {
                    job.answer(Some(&failure));
                }
            }
        }
    }

    /// Makes and commits the changes of a group, and of all that come meanwhile, which join it.
    fn transact(&mut self, group: &mut Vec<Box<dyn Job>>) -> Result<Effects> {
        self.run("BEGIN IMMEDIATE")?;
        let all = match self.make_together(group)? {
            Some(all) => all,
            None => {
                self.run("ROLLBACK")?;
                // They may be of a form that was not recorded after all.
                self.plans.clear();
                self.run("BEGIN IMMEDIATE")?;
                self.make_apart(group)?
            }
        };
        write_counts(&self.connection, &all)?;
        self.run("COMMIT")?;
        Ok(all)
    }

    /// Makes changes as they come. `None`: one was refused, so that none may stay.
    fn make_together(&mut self, group: &mut Vec<Box<dyn Job>>) -> Result<Option<Effects>> {
        let linger = (self.latest_commit / limits::GROUP_LINGER_PART).min(limits::GROUP_LINGER_LONGEST);
        let until = Instant::now() + linger;
        let mut all = Effects::default();
        let mut made = 0;
        while let Some(job) = group.get_mut(made) {
            match self.make(job)? {
                Some(effects) => all.merge(effects),
                None => return Ok(None),
            }
            made += 1;
            group.extend(self.next(made, until));
        }
        Ok(Some(all))
    }

    /// Makes changes of which one is refused: it alone is left out.
    fn make_apart(&mut self, group: &mut [Box<dyn Job>]) -> Result<Effects> {
        let mut all = Effects::default();
        for job in group {
            self.run("SAVEPOINT one_write")?;
            match self.make(job)? {
                Some(effects) => all.merge(effects),
                None => self.run("ROLLBACK TO one_write")?,
            }
            self.run("RELEASE one_write")?;
        }
        Ok(all)
    }

    /// Makes a change in the open transaction. `None`: it was refused.
    fn make(&mut self, job: &mut Box<dyn Job>) -> Result<Option<Effects>> {
        let mut write = Write {
            connection: &self.connection,
            plans: &mut self.plans,
            effects: Effects::default(),
        };
        let made = job.make(&mut write);
        let effects = write.effects;
        match made {
            Made::Kept => Ok(Some(effects)),
            Made::Fatal(why) => Err(Error::Fatal(why)),
            // SQLite rolled back everything, as it may when the disk is full.
            Made::Refused if self.connection.is_autocommit() => Err(Error::Full { operation: "write" }),
            Made::Refused => Ok(None),
        }
    }

    fn run(&self, statement: &'static str) -> Result<()> {
        self.connection
            .prepare_cached(statement)
            .and_then(|mut statement| statement.execute([]))
            .map(drop)
            .map_err(sql("commit"))
    }

    /// Copies the write-ahead log into the database file once it is long, or (class `interval`) when
    /// the loss window is used up. Runs after the answers, so that nobody waits for it but the next group.
    fn checkpoint_if_due(&mut self) {
        if self.fatal.get().is_some() {
            return;
        }
        let pages = self.wal_pages.load(Ordering::Relaxed);
        let bytes = pages.saturating_mul(self.page_bytes);
        metrics::WAL_BYTES.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let window_used = match (self.interval, self.unsynced_since) {
            (Some(interval), Some(since)) => since.elapsed() >= interval,
            _ => false,
        };
        if pages >= limits::CHECKPOINT_PAGES_HARD {
            self.checkpoint(CheckpointMode::RESTART);
        } else if pages >= limits::CHECKPOINT_PAGES || window_used {
            self.checkpoint(CheckpointMode::PASSIVE);
        }
    }

    fn checkpoint(&mut self, mode: CheckpointMode) {
        match self.connection.wal_checkpoint_v2(None::<&str>, mode) {
            Ok((log, copied)) => {
                self.unsynced_since = None;
                if log == copied {
                    self.wal_pages.store(0, Ordering::Relaxed);
                }
            }
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
                tracing::warn!("a reader keeps the write-ahead log from starting over");
            }
            Err(error) => match sql("checkpoint")(error) {
                Error::Fatal(why) => self.stop_for_good(&why),
                other => tracing::error!(error = %other, "checkpoint failed, will be tried again"),
            },
        }
    }

    fn stop_for_good(&self, why: &str) {
        if self.fatal.set(why.to_owned()).is_ok() {
            metrics::FATAL.set(1);
            tracing::error!(why, "store stopped acknowledging after an i/o error");
        }
    }
}

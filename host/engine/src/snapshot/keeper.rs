//! Which snapshots there are. One thread makes them, one after another; calls only look.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::{Image, Until};
use crate::limits::MAX_SNAPSHOT_JOBS;
use crate::sandbox::Sandbox;
use crate::setup::SetupKey;
use crate::{Error, Setup, SnapshotError, SnapshotInfo, SnapshotOptions, SnapshotStatus, metrics};

/// A plugin version whose snapshots are kept here.
pub(crate) struct Origin {
    /// Unique in this process.
    id: u64,
    /// Names its files on disk: equal code and equal setup give equal snapshots.
    pub(crate) code_key: String,
    pub(crate) sandbox: Sandbox,
    /// Where `prepare` begins.
    pub(crate) base: Image,
    /// Why it has no snapshots, if it cannot have any.
    pub(crate) unsupported: Option<Arc<str>>,
}

impl Origin {
    pub(crate) fn new(sandbox: Sandbox, base: Image, code_key: String, unsupported: Option<Arc<str>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            code_key,
            sandbox,
            base,
            unsupported,
        }
    }
}

type Key = (u64, SetupKey);
type Outcome = Result<SnapshotInfo, SnapshotError>;

enum Entry {
    Making(watch::Receiver<Option<Outcome>>),
    Ready(Arc<Ready>),
    Failed(SnapshotError),
}

struct Ready {
    image: Image,
    info: SnapshotInfo,
    last_used: AtomicU64,
}

/// What there is for a call.
pub(crate) enum Lookup {
    /// Begin here: `prepare` has run.
    Ready(ReadyImage),
    /// Take the plain path.
    Plain,
}

/// A snapshot in use: it outlives its eviction.
pub(crate) struct ReadyImage(Arc<Ready>);

impl std::ops::Deref for ReadyImage {
    type Target = Image;

    fn deref(&self) -> &Image {
        &self.0.image
    }
}

struct Job {
    origin: Arc<Origin>,
    setup: Setup,
    tell: watch::Sender<Option<Outcome>>,
}

/// The snapshots of an engine. Dropping it stops its thread and the job at hand.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    options: SnapshotOptions,
    entries: RwLock<HashMap<Key, Entry>>,
    /// Counts uses; a snapshot's last one tells how long ago it was of use.
    uses: AtomicU64,
    disk: Option<Disk>,
    /// Stops the job at hand too: what prepares may be asleep.
    stopping: CancellationToken,
}

impl Keeper {
    pub(crate) fn start(options: SnapshotOptions, disk: Option<Disk>) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            options,
            entries: RwLock::default(),
            uses: AtomicU64::new(0),
            disk,
            stopping: CancellationToken::new(),
        });
        let (queue, jobs) = sync_channel(MAX_SNAPSHOT_JOBS);
        // Guests run on it: it must not be the runtime that owns anybody's timers.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(Error::Thread)?;
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fw-snapshot".into())
            .spawn(move || worker.work(&jobs, &runtime))
            .map_err(Error::Thread)?;
        Ok(Self {
            shared,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// The snapshot for a call; asks for one when there is none.
    pub(crate) fn find(&self, origin: &Arc<Origin>, setup: &Setup) -> Lookup {
        if origin.unsupported.is_some() || !self.shared.options.enabled {
            return Lookup::Plain;
        }
        {
            let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
            match entries.get(&(origin.id, setup.key())) {
                Some(Entry::Ready(ready)) => {
                    let now = self.shared.uses.fetch_add(1, Ordering::Relaxed);
                    ready.last_used.store(now, Ordering::Relaxed);
                    return Lookup::Ready(ReadyImage(Arc::clone(ready)));
                }
                Some(Entry::Making(_) | Entry::Failed(_)) => return Lookup::Plain,
                None => {}
            }
        }
        let _asked = self.request(origin, setup);
        Lookup::Plain
    }

    /// Asks for a snapshot unless it is there or asked for.
    fn request(&self, origin: &Arc<Origin>, setup: &Setup) -> SnapshotStatus {
        let key = (origin.id, setup.key());
        let mut entries = self.shared.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&key) {
            return status(entry);
        }
        let (tell, told) = watch::channel(None);
        let job = Job {
            origin: Arc::clone(origin),
            setup: setup.clone(),
            tell,
        };
        match self.queue.as_ref().map(|queue| queue.try_send(job)) {
            Some(Ok(())) => {
                entries.insert(key, Entry::Making(told));
                SnapshotStatus::Making
            }
            // Later calls ask again.
            Some(Err(TrySendError::Full(_))) => SnapshotStatus::Absent,
            Some(Err(TrySendError::Disconnected(_))) | None => SnapshotStatus::Failed(SnapshotError::Stopped),
        }
    }

    /// How far the snapshot is.
    pub(crate) fn status(&self, origin: &Origin, setup: &Setup) -> SnapshotStatus {
        if let Some(reason) = self.refusal(origin) {
            return SnapshotStatus::Failed(reason);
        }
        let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries
            .get(&(origin.id, setup.key()))
            .map_or(SnapshotStatus::Absent, status)
    }

    fn refusal(&self, origin: &Origin) -> Option<SnapshotError> {
        if !self.shared.options.enabled {
            return Some(SnapshotError::Disabled);
        }
        origin.unsupported.clone().map(SnapshotError::Unsupported)
    }

    /// The snapshot, once it is made.
    pub(crate) async fn wait(&self, origin: &Arc<Origin>, setup: &Setup) -> Outcome {
        if let Some(reason) = self.refusal(origin) {
            return Err(reason);
        }
        match self.request(origin, setup) {
            SnapshotStatus::Ready(info) => return Ok(info),
            SnapshotStatus::Failed(error) => return Err(error),
            SnapshotStatus::Absent => return Err(SnapshotError::Busy),
            SnapshotStatus::Making => {}
        }
        let told = {
            let entries = self.shared.entries.read().unwrap_or_else(PoisonError::into_inner);
            match entries.get(&(origin.id, setup.key())) {
                Some(Entry::Making(told)) => told.clone(),
                Some(Entry::Ready(ready)) => return Ok(ready.info.clone()),
                Some(Entry::Failed(error)) => return Err(error.clone()),
                None => return Err(SnapshotError::Stopped),
            }
        };
        let mut told = told;
        match told.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(SnapshotError::Stopped)),
            Err(_) => Err(SnapshotError::Stopped),
        }
    }

    /// Drops the snapshots of a plugin that is gone.
    pub(crate) fn forget(&self, origin: &Origin) {
        let mut entries = self.shared.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|(id, _), _| *id != origin.id);
        self.shared.observe(&entries);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to add to it here.
            let _ended = thread.join();
        }
    }
}

fn status(entry: &Entry) -> SnapshotStatus {
    match entry {
        Entry::Making(_) => SnapshotStatus::Making,
        Entry::Ready(ready) => SnapshotStatus::Ready(ready.info.clone()),
        Entry::Failed(error) => SnapshotStatus::Failed(error.clone()),
    }
}

impl Shared {
    fn work(&self, jobs: &Receiver<Job>, runtime: &tokio::runtime::Runtime) {
        while let Ok(Job { origin, setup, tell }) = jobs.recv() {
            if self.stopping.is_cancelled() {
                return;
            }
            let began = Instant::now();
            let made = runtime.block_on(self.make(&origin, &setup));
            let plugin = &*origin.sandbox.name;
            match &made {
                Ok((_, info)) => {
                    metrics::snapshot_made(info.from_disk, began.elapsed());
                    tracing::debug!(
                        plugin,
                        form = setup.form().id,
                        form_version = setup.form().version,
                        bytes = info.bytes,
                        from_disk = info.from_disk,
                        elapsed_ms = began.elapsed().as_secs_f64() * 1e3,
                        "snapshot ready"
                    );
                }
                Err(error) => {
                    metrics::snapshot_failed();
                    tracing::warn!(
                        plugin,
                        form = setup.form().id,
                        form_version = setup.form().version,
                        %error,
                        "no snapshot: every call prepares anew"
                    );
                }
            }
            let outcome = self.keep((origin.id, setup.key()), made);
            // Nobody may be waiting.
            let _heard = tell.send(Some(outcome));
        }
    }

    async fn make(&self, origin: &Origin, setup: &Setup) -> Result<(Image, SnapshotInfo), SnapshotError> {
        let began = Instant::now();
        let kept = self
            .disk
            .as_ref()
            .and_then(|disk| disk.load(&origin.code_key, setup.key()));
        let from_disk = kept.is_some();
        let values = match kept {
            Some(values) => values,
            None => {
                let taken =
                    origin
                        .sandbox
                        .take(&origin.base, Until::Prepared(setup), "snapshot", self.stopping.clone());
                taken
                    .await
                    .result
                    .map_err(|error| SnapshotError::Prepare(error.to_string()))?
            }
        };
        let image = origin
            .sandbox
            .code
            .image(&values)
            .map_err(|error| SnapshotError::Unsupported(format!("{error:#}").into()))?;
        if image.bytes > self.options.memory_bytes {
            return Err(SnapshotError::TooLarge {
                bytes: image.bytes,
                limit: self.options.memory_bytes,
            });
        }
        let info = SnapshotInfo {
            bytes: image.bytes,
            from_disk,
            took: began.elapsed(),
        };
        if let (false, Some(disk)) = (from_disk, &self.disk) {
            disk.save(&origin.code_key, setup.key(), &values);
        }
        Ok((image, info))
    }

    fn keep(&self, key: Key, made: Result<(Image, SnapshotInfo), SnapshotError>) -> Outcome {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        // Asked for, and gone since: its plugin is no longer there.
        if !entries.contains_key(&key) {
            return made.map(|(_, info)| info);
        }
        match made {
            Ok((image, info)) => {
                let ready = Ready {
                    image,
                    info: info.clone(),
                    last_used: AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed)),
                };
                entries.insert(key, Entry::Ready(Arc::new(ready)));
                self.evict(&mut entries);
                self.observe(&entries);
                Ok(info)
            }
            Err(error) => {
                entries.insert(key, Entry::Failed(error.clone()));
                Err(error)
            }
        }
    }

    /// Drops the snapshots that were of no use for the longest time until the rest fits.
    fn evict(&self, entries: &mut HashMap<Key, Entry>) {
        let mut ready: Vec<_> = ready(entries)
            .map(|(key, ready)| (ready.last_used.load(Ordering::Relaxed), *key, ready.image.bytes))
            .collect();
        let mut total: usize = ready.iter().map(|(_, _, bytes)| bytes).sum();
        if total <= self.options.memory_bytes {
            return;
        }
        ready.sort_unstable_by_key(|(last_used, _, _)| *last_used);
        for (_, key, bytes) in ready {
            if total <= self.options.memory_bytes {
                break;
            }
            entries.remove(&key);
            total -= bytes;
            metrics::snapshot_evicted();
        }
    }

    fn observe(&self, entries: &HashMap<Key, Entry>) {
        let (count, bytes) = ready(entries).fold((0, 0), |(count, bytes), (_, ready)| {
            (count + 1, bytes + ready.image.bytes)
        });
        metrics::snapshots(count, bytes);
    }
}

fn ready(entries: &HashMap<Key, Entry>) -> impl Iterator<Item = (&Key, &Arc<Ready>)> {
    entries.iter().filter_map(|(key, entry)| match entry {
        Entry::Ready(ready) => Some((key, ready)),
        Entry::Making(_) | Entry::Failed(_) => None,
    })
}

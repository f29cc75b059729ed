//! What is known of each declared model.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::Lease;
use crate::error::Error;
use crate::loader::Loaded;
use crate::metrics;
use crate::model::{ModelSpec, ModelState, ModelStatus};

pub(super) struct Table {
    pub(super) entries: BTreeMap<String, Entry>,
    tickets: u64,
    /// The most bytes that were ever reckoned with.
    pub(super) peak: u64,
    pub(super) stopping: bool,
}

pub(super) struct Entry {
    pub(super) spec: ModelSpec,
    pub(super) pinned: bool,
    pub(super) phase: Phase,
    /// Bytes it is reckoned with now: 0 unless it is being loaded, loaded or being freed.
    pub(super) reckoned: u64,
    /// What it was reckoned with when it was last loaded.
    pub(super) known_bytes: Option<u64>,
    pub(super) in_use: usize,
    pub(super) last_used: Option<(Instant, SystemTime)>,
    pub(super) loaded_at: Option<Instant>,
    pub(super) waiters: Vec<oneshot::Sender<Result<Lease, Error>>>,
    /// Takes no new calls, so that it can make room.
    pub(super) draining: bool,
    /// To be freed when nobody uses it, and why.
    pub(super) unload: Option<&'static str>,
    pub(super) freed: Vec<oneshot::Sender<()>>,
    /// Loads that failed since one succeeded.
    pub(super) failures: u32,
    pub(super) file_bytes: u64,
    pub(super) measured_bytes: u64,
    pub(super) load_time: Option<Duration>,
    pub(super) loads: u64,
    pub(super) evictions: u64,
}

pub(super) enum Phase {
    /// Not in memory, and nobody waits for it.
    Evicted,
    /// To be loaded when there is memory; the lowest ticket first.
    Wanted { ticket: u64, since: Instant },
    /// Being loaded.
    Loading,
    /// In memory.
    Ready(Arc<Loaded>),
    /// Its memory is being given back.
    Freeing,
    /// The last load failed, or its worker died.
    Failed { error: Error, retry_at: Instant },
    /// The service was shut down.
    Stopped,
}

impl Table {
    pub(super) fn new(models: Vec<ModelSpec>) -> Self {
        Self {
            entries: models
                .into_iter()
                .map(|spec| (spec.name.clone(), Entry::new(spec)))
                .collect(),
            tickets: 0,
            peak: 0,
            stopping: false,
        }
    }

    pub(super) fn find_mut(&mut self, model: &str) -> Result<&mut Entry, Error> {
        if !self.entries.contains_key(model) {
            return Err(self.unknown(model));
        }
        self.entries.get_mut(model).ok_or(Error::ShuttingDown)
    }

    fn unknown(&self, model: &str) -> Error {
        Error::UnknownModel {
            name: model.to_owned(),
            known: self.entries.keys().cloned().collect(),
        }
    }

    pub(super) fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Bytes that are reckoned with.
    pub(super) fn used(&self) -> u64 {
        self.entries.values().map(|entry| entry.reckoned).sum()
    }

    /// Whether a load waits for memory.
    pub(super) fn someone_waits(&self) -> bool {
        self.entries
            .values()
            .any(|entry| entry.unload.is_some() || matches!(entry.phase, Phase::Wanted { .. }))
    }
}

impl Entry {
    fn new(spec: ModelSpec) -> Self {
        let entry = Self {
            pinned: spec.pin,
            spec,
            phase: Phase::Evicted,
            reckoned: 0,
            known_bytes: None,
            in_use: 0,
            last_used: None,
            loaded_at: None,
            waiters: Vec::new(),
            draining: false,
            unload: None,
            freed: Vec::new(),
            failures: 0,
            file_bytes: 0,
            measured_bytes: 0,
            load_time: None,
            loads: 0,
            evictions: 0,
        };
        entry.publish();
        entry
    }

    /// Forgets callers that are gone.
    pub(super) fn forget_gone(&mut self) {
        self.waiters.retain(|waiter| !waiter.is_closed());
    }

    /// When it was last of use.
    pub(super) fn last_of_use(&self) -> Option<Instant> {
        self.last_used.map(|(at, _)| at).max(self.loaded_at)
    }

    /// Tells the metrics.
    pub(super) fn publish(&self) {
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let name = [self.spec.name.as_str()];
        metrics::IN_USE.with_label_values(&name).set(number(self.in_use));
        metrics::WAITING
            .with_label_values(&name)
            .set(number(self.waiters.len()));
        metrics::RESIDENT
            .with_label_values(&name)
            .set(i64::try_from(self.reckoned).unwrap_or(i64::MAX));
        metrics::LOADED
            .with_label_values(&name)
            .set(i64::from(matches!(self.phase, Phase::Ready(_))));
    }

    pub(super) fn status(&self) -> ModelStatus {
        let (state, reason) = match &self.phase {
            Phase::Ready(loaded) if !loaded.is_alive() => (ModelState::Failed, Some("its worker died".to_owned())),
            Phase::Ready(_) => (ModelState::Ready, None),
            Phase::Wanted { .. } => (ModelState::Loading, Some("waiting for memory".to_owned())),
            Phase::Loading => (ModelState::Loading, None),
            Phase::Freeing if !self.waiters.is_empty() => (ModelState::Loading, None),
            Phase::Evicted | Phase::Freeing => (ModelState::Evicted, None),
            Phase::Failed { error, .. } => (ModelState::Failed, Some(error.to_string())),
            Phase::Stopped => (ModelState::Stopped, None),
        };
        ModelStatus {
            id: self.spec.id(),
            task: self.spec.task.kind(),
            state,
            reason,
            load: self.spec.load,
            pinned: self.pinned,
            file_bytes: self.file_bytes,
            memory_bytes: self.reckoned,
            measured_bytes: self.measured_bytes,
            load_time: self.load_time,
            last_used: self.last_used.map(|(_, at)| at),
            in_use: self.in_use,
            waiting: self.waiters.len(),
            loads: self.loads,
            evictions: self.evictions,
        }
    }
}

//! The thread that loads and frees: what it does next, and doing it.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::table::{Entry, Phase, Table};
use super::{Lease, Shared};
use crate::error::Error;
use crate::limits;
use crate::loader::Loaded;
use crate::memory;
use crate::metrics;
use crate::model::ModelSpec;

/// How often the table is looked at while a load waits for memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to do next.
enum Action {
    Load(Box<ModelSpec>),
    Free {
        name: String,
        loaded: Arc<Loaded>,
        reason: &'static str,
    },
    /// Nothing, until something changes or this time has passed.
    Wait(Option<Duration>),
    Stop,
}

/// Loads and frees until the service stops.
pub(super) fn keep(shared: &Arc<Shared>) {
    loop {
        let action = {
            let mut table = shared.lock();
            loop {
                match next(&mut table, shared, Instant::now()) {
                    Action::Wait(Some(time)) => {
                        let (locked, _) = shared
                            .wake
                            .wait_timeout(table, time)
                            .unwrap_or_else(PoisonError::into_inner);
                        table = locked;
                    }
                    Action::Wait(None) => {
                        table = shared.wake.wait(table).unwrap_or_else(PoisonError::into_inner);
                    }
                    action => break action,
                }
            }
        };
        match action {
            Action::Load(spec) => drop(load(shared, &spec)),
            Action::Free { name, loaded, reason } => free(shared, &name, loaded, reason),
            Action::Stop | Action::Wait(_) => return,
        }
    }
}

/// Loads a model before the keeper runs.
pub(super) fn load_at_start(shared: &Arc<Shared>, name: &str) -> Result<(), Error> {
    let spec = {
        let mut table = shared.lock();
        let used = table.used();
        let entry = table.find_mut(name)?;
        let needed = reckon(entry, shared);
        if used + needed > shared.budget {
            let held_by = loaded_names(&table);
            return Err(no_memory(name, needed, shared, held_by));
        }
        begin(&mut table, name, needed).ok_or(Error::ShuttingDown)?
    };
    load(shared, &spec)
}

/// Ends all workers, frees all models and tells all callers.
pub(super) fn stop(shared: &Arc<Shared>) {
    let mut freed = Vec::new();
    {
        let mut table = shared.lock();
        table.stopping = true;
        for entry in table.entries.values_mut() {
            if let Phase::Ready(loaded) = std::mem::replace(&mut entry.phase, Phase::Stopped) {
                freed.push(loaded);
            }
            entry.reckoned = 0;
            // Whose sender is dropped hears that the service stops.
            entry.waiters.clear();
            entry.freed.clear();
            entry.publish();
        }
    }
    for loaded in freed {
        loaded.stop();
    }
}

fn next(table: &mut Table, shared: &Arc<Shared>, now: Instant) -> Action {
    if table.stopping {
        return Action::Stop;
    }
    if let Some(action) = to_be_freed(table, shared.budget, now) {
        return action;
    }
    let mut wanted: Vec<(u64, String)> = table
        .entries
        .values()
        .filter_map(|entry| match entry.phase {
            Phase::Wanted { ticket, .. } => Some((ticket, entry.spec.name.clone())),
            _ => None,
        })
        .collect();
    wanted.sort_unstable();
    for (_, name) in wanted {
        if let Some(action) = make_room(table, shared, &name, now) {
            return action;
        }
    }
    if table.someone_waits() {
        return Action::Wait(Some(LOOK_EVERY));
    }
    resume(table, shared);
    let until_idle = table
        .entries
        .values()
        .filter_map(|entry| Some(idle_at(entry)?.saturating_duration_since(now)));
    Action::Wait(until_idle.min())
}

/// A model that must go whoever waits: told to, broken, idle for too long, or above the budget.
fn to_be_freed(table: &mut Table, budget: u64, now: Instant) -> Option<Action> {
    let over = table.used() > budget;
    let chosen = table.entries.values().find_map(|entry| {
        let Phase::Ready(loaded) = &entry.phase else {
            return None;
        };
        let reason = if !loaded.is_alive() {
            "broken"
        } else if entry.in_use > 0 {
            return None;
        } else if let Some(reason) = entry.unload {
            reason
        } else if entry.draining {
            "budget"
        } else if idle_at(entry).is_some_and(|at| at <= now) {
            "idle"
        } else {
            return None;
        };
        Some((entry.spec.name.clone(), reason))
    });
    let chosen = chosen.or_else(|| Some((least_recently_used(table)?, "budget")).filter(|_| over));
    let (name, reason) = chosen?;
    begin_freeing(table, &name, reason)
}

/// When a model that unloads itself has been idle for long enough.
fn idle_at(entry: &Entry) -> Option<Instant> {
    let configured = (entry.spec.idle_unload_seconds > 0 && !entry.pinned && entry.in_use == 0)
        .then(|| Duration::from_secs(entry.spec.idle_unload_seconds))?;
    matches!(entry.phase, Phase::Ready(_)).then_some(entry.last_of_use()? + configured)
}

/// Gets a wanted model nearer to memory; `None` if nothing can be done for it now.
fn make_room(table: &mut Table, shared: &Arc<Shared>, name: &str, now: Instant) -> Option<Action> {
    let entry = table.entries.get_mut(name)?;
    let Phase::Wanted { since, .. } = entry.phase else {
        return None;
    };
    entry.forget_gone();
    if entry.waiters.is_empty() {
        entry.phase = Phase::Evicted;
        entry.publish();
        return None;
    }
    let needed = reckon(entry, shared);
    let pinned: u64 = table
        .entries
        .values()
        .filter(|entry| entry.pinned)
        .map(|entry| entry.reckoned)
        .sum();
    if needed + pinned > shared.budget {
        let held_by = table
            .entries
            .values()
            .filter(|entry| entry.pinned && entry.reckoned > 0);
        let held_by = held_by.map(|entry| entry.spec.name.clone()).collect();
        refuse(table, name, &no_memory(name, needed, shared, held_by));
        return None;
    }
    let free = shared.budget.saturating_sub(table.used());
    if needed <= free {
        return begin(table, name, needed).map(|spec| Action::Load(Box::new(spec)));
    }
    let movable = |entry: &&Entry| matches!(entry.phase, Phase::Ready(_)) && !entry.pinned;
    let idle: u64 = table
        .entries
        .values()
        .filter(movable)
        .filter(|entry| entry.in_use == 0)
        .map(|entry| entry.reckoned)
        .sum();
    if needed <= free + idle {
        let victim = least_recently_used(table)?;
        return begin_freeing(table, &victim, "budget");
    }
    let waited = now.saturating_duration_since(since);
    if waited >= limits::MEMORY_WAIT {
        let held_by = loaded_names(table);
        refuse(table, name, &no_memory(name, needed, shared, held_by));
    } else if waited >= limits::MAKE_ROOM_AFTER {
        drain(table, needed.saturating_sub(free + idle), now);
    }
    None
}

/// Lets the models that were loaded longest ago take no new calls, until they hold so many bytes.
fn drain(table: &mut Table, mut missing: u64, now: Instant) {
    let mut busy: Vec<&mut Entry> = table
        .entries
        .values_mut()
        .filter(|entry| matches!(entry.phase, Phase::Ready(_)) && !entry.pinned && entry.in_use > 0)
        .collect();
    busy.sort_by_key(|entry| (!entry.draining, entry.loaded_at));
    for entry in busy {
        if missing == 0 {
            return;
        }
        let stayed = entry
            .loaded_at
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if entry.draining || stayed >= limits::MIN_STAY {
            entry.draining = true;
            missing = missing.saturating_sub(entry.reckoned);
        }
    }
}

/// Nobody waits for memory any more: models that were to make room take calls again.
fn resume(table: &mut Table, shared: &Arc<Shared>) {
    for entry in table.entries.values_mut().filter(|entry| entry.draining) {
        entry.draining = false;
        grant(entry, shared);
    }
}

/// Gives a loaded model to all who wait for it.
fn grant(entry: &mut Entry, shared: &Arc<Shared>) {
    let Phase::Ready(loaded) = &entry.phase else { return };
    for waiter in std::mem::take(&mut entry.waiters) {
        let lease = Lease {
            shared: Arc::clone(shared),
            loaded: Arc::clone(loaded),
            counted: true,
        };
        match waiter.send(Ok(lease)) {
            Ok(()) => entry.in_use += 1,
            // The table is locked: a lease that comes back must not lock it again.
            Err(Ok(mut lease)) => lease.counted = false,
            Err(Err(_)) => {}
        }
    }
    entry.publish();
}

fn least_recently_used(table: &Table) -> Option<String> {
    table
        .entries
        .values()
        .filter(|entry| matches!(entry.phase, Phase::Ready(_)) && !entry.pinned && entry.in_use == 0)
        .min_by_key(|entry| entry.last_of_use())
        .map(|entry| entry.spec.name.clone())
}

fn loaded_names(table: &Table) -> Vec<String> {
    let loaded = table.entries.values().filter(|entry| entry.reckoned > 0);
    loaded.map(|entry| entry.spec.name.clone()).collect()
}

fn no_memory(model: &str, needed: u64, shared: &Shared, held_by: Vec<String>) -> Error {
    Error::Memory {
        model: model.to_owned(),
        needed,
        budget: shared.budget,
        held_by,
    }
}

/// Bytes a model will be reckoned with.
fn reckon(entry: &Entry, shared: &Shared) -> u64 {
    entry.known_bytes.unwrap_or_else(|| shared.loader.estimate(&entry.spec))
}

fn refuse(table: &mut Table, name: &str, error: &Error) {
    let Some(entry) = table.entries.get_mut(name) else {
        return;
    };
    tracing::warn!(model = name, %error, "model not loaded");
    entry.phase = Phase::Evicted;
    for waiter in entry.waiters.drain(..) {
        // A caller that left has nobody to tell.
        let _ = waiter.send(Err(error.clone()));
    }
    entry.publish();
}

/// Reserves memory and marks the model as being loaded.
fn begin(table: &mut Table, name: &str, needed: u64) -> Option<ModelSpec> {
    let entry = table.entries.get_mut(name)?;
    entry.phase = Phase::Loading;
    entry.reckoned = needed;
    entry.publish();
    let spec = entry.spec.clone();
    table.peak = table.peak.max(table.used());
    Some(spec)
}

/// Loads, and tells who waits. The table is not locked meanwhile.
fn load(shared: &Arc<Shared>, spec: &ModelSpec) -> Result<(), Error> {
    let result = shared.loader.load(spec);
    let name = spec.name.as_str();
    let outcome = result.as_ref().err().map_or("ok", Error::code);
    metrics::LOADS.with_label_values(&[name, outcome]).inc();
    let mut table = shared.lock();
    if table.stopping {
        drop(table);
        if let Ok(loaded) = result {
            loaded.stop();
        }
        return Err(Error::ShuttingDown);
    }
    let entry = table.find_mut(name)?;
    let result = match result {
        Ok(loaded) => {
            metrics::LOAD
                .with_label_values(&[name])
                .observe(loaded.took.as_secs_f64());
            ready(entry, loaded);
            grant(entry, shared);
            Ok(())
        }
        Err(error) => {
            failed(entry, &error);
            Err(error)
        }
    };
    entry.publish();
    table.peak = table.peak.max(table.used());
    result
}

fn ready(entry: &mut Entry, loaded: Loaded) {
    entry.file_bytes = loaded.file_bytes;
    entry.measured_bytes = loaded.measured_bytes;
    entry.load_time = Some(loaded.took);
    entry.loads += 1;
    entry.failures = 0;
    entry.loaded_at = Some(Instant::now());
    if entry.spec.memory_bytes == 0 {
        let most = entry.reckoned * limits::MEASURED_TENTHS / 10;
        entry.reckoned = entry.reckoned.max(loaded.measured_bytes.min(most));
    }
    entry.known_bytes = Some(entry.reckoned);
    tracing::info!(
        model = entry.spec.name,
        version = entry.spec.version,
        task = loaded.task,
        load_ms = loaded.took.as_millis(),
        memory_bytes = entry.reckoned,
        measured_bytes = loaded.measured_bytes,
        "model ready"
    );
    entry.phase = Phase::Ready(Arc::new(loaded));
}

fn failed(entry: &mut Entry, error: &Error) {
    let pause = limits::RETRY_FIRST
        .saturating_mul(2_u32.saturating_pow(entry.failures))
        .min(limits::RETRY_MOST);
    entry.failures += 1;
    entry.reckoned = 0;
    tracing::error!(
        model = entry.spec.name,
        %error,
        retry_seconds = pause.as_secs(),
        "model not loaded"
    );
    for waiter in entry.waiters.drain(..) {
        // A caller that left has nobody to tell.
        let _ = waiter.send(Err(error.clone()));
    }
    entry.phase = Phase::Failed {
        error: error.clone(),
        retry_at: Instant::now() + pause,
    };
}

fn begin_freeing(table: &mut Table, name: &str, reason: &'static str) -> Option<Action> {
    let entry = table.entries.get_mut(name)?;
    let Phase::Ready(loaded) = std::mem::replace(&mut entry.phase, Phase::Freeing) else {
        return None;
    };
    entry.draining = false;
    entry.unload = None;
    entry.publish();
    Some(Action::Free {
        name: name.to_owned(),
        loaded,
        reason,
    })
}

/// Frees a model, and sees to those who asked for it meanwhile. The table is not locked while it is freed.
fn free(shared: &Arc<Shared>, name: &str, loaded: Arc<Loaded>, reason: &'static str) {
    let begun = Instant::now();
    loaded.stop();
    drop(loaded);
    memory::give_back();
    metrics::EVICTIONS.with_label_values(&[name, reason]).inc();
    tracing::info!(
        model = name,
        reason,
        free_ms = begun.elapsed().as_millis(),
        "model freed"
    );
    let mut table = shared.lock();
    let ticket = table.next_ticket();
    let stopping = table.stopping;
    let Ok(entry) = table.find_mut(name) else { return };
    entry.reckoned = 0;
    entry.loaded_at = None;
    entry.evictions += 1;
    for waiter in entry.freed.drain(..) {
        let _ = waiter.send(());
    }
    entry.forget_gone();
    if stopping {
        entry.phase = Phase::Stopped;
    } else if reason == "broken" {
        failed(entry, &Error::Native(format!("the worker of model {name} died")));
    } else if entry.waiters.is_empty() {
        entry.phase = Phase::Evicted;
    } else {
        let since = Instant::now();
        entry.phase = Phase::Wanted { ticket, since };
    }
    entry.publish();
}

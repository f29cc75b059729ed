//! What a call uses, and the limits that end it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use formwork_inference::ModelId;
use serde::Serialize;
use wasmtime::ResourceLimiter;

use crate::clock::CpuClock;
use crate::limits::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES};
use crate::{CallError, Limit, LimitExceeded, Limits};

/// Host memory of a table element, bytes.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// What a call used.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Guest CPU time; inference on the host's side is not in it.
    pub cpu: Duration,
    /// Time from call to answer.
    pub wall: Duration,
    /// Most bytes of all linear memories and tables together.
    pub memory_bytes: u64,
    /// Calls of host functions.
    pub host_calls: u64,
    /// Bytes given to host functions.
    pub host_call_bytes: u64,
    /// Bytes of the answer and of what was written to a sink.
    pub output_bytes: u64,
    /// Bytes of log lines, the dropped ones included.
    pub log_bytes: u64,
    /// Most completions and sinks open at once. WASI's own handles count towards the limit and not here.
    pub handles: u64,
}

/// Counts one call. Shared between the store, the call's frame and the epoch callback.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) limits: Limits,
    pub(crate) cpu: Arc<CpuClock>,
    began: Instant,
    queued: Mutex<Queued>,
    memory_bytes: AtomicU64,
    memory_peak: AtomicU64,
    host_calls: AtomicU64,
    host_call_bytes: AtomicU64,
    output_bytes: AtomicU64,
    log_bytes: AtomicU64,
    handles: AtomicU64,
    handles_peak: AtomicU64,
    exceeded: OnceLock<LimitExceeded>,
    models: Mutex<Vec<ModelId>>,
    inference_error: Mutex<Option<&'static str>>,
}

/// How long a guest has waited for its turns on a CPU.
#[derive(Debug, Default)]
struct Queued {
    before: Duration,
    /// It waits now.
    since: Option<Instant>,
}

impl Queued {
    fn until_now(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            cpu: Arc::default(),
            began: Instant::now(),
            queued: Mutex::default(),
            memory_bytes: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            host_calls: AtomicU64::new(0),
            host_call_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            handles_peak: AtomicU64::new(0),
            exceeded: OnceLock::new(),
            models: Mutex::new(Vec::new()),
            inference_error: Mutex::new(None),
        })
    }

    /// The meter of the next submission in the same memory.
    pub(crate) fn next(&self, limits: Limits) -> Arc<Self> {
        let next = Self::new(limits);
        let memory = self.memory_bytes.load(Ordering::Relaxed);
        next.memory_bytes.store(memory, Ordering::Relaxed);
        next.memory_peak.store(memory, Ordering::Relaxed);
        next
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            cpu: Duration::from_nanos(self.cpu.total_ns()),
            wall: self.began.elapsed(),
            memory_bytes: self.memory_peak.load(Ordering::Relaxed),
            host_calls: self.host_calls.load(Ordering::Relaxed),
            host_call_bytes: self.host_call_bytes.load(Ordering::Relaxed),
            output_bytes: self.output_bytes.load(Ordering::Relaxed),
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
            handles: self.handles_peak.load(Ordering::Relaxed),
        }
    }

    /// When the call will have taken its wall time, if it does not wait for its turn again.
    pub(crate) fn wall_limit(&self) -> Instant {
        self.began + Duration::from_millis(self.limits.wall_ms) + self.queued().until_now()
    }

    /// Runs `turn`, in which the guest waits for its next turn on a CPU: how long is up to its pool, not to the plugin.
    pub(crate) async fn queue(self: Arc<Self>, turn: impl Future<Output = ()>) {
        struct End(Arc<Meter>);
        impl Drop for End {
            fn drop(&mut self) {
                let mut queued = self.0.queued();
                queued.before = queued.until_now();
                queued.since = None;
            }
        }
        self.queued().since = Some(Instant::now());
        let _end = End(self);
        turn.await;
    }

    fn queued(&self) -> MutexGuard<'_, Queued> {
        // No code that can panic runs under this lock.
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit that was hit first, if one was.
    pub(crate) fn exceeded(&self) -> Option<&LimitExceeded> {
        self.exceeded.get()
    }

    /// Remembers that `limit` was hit; the first one counts.
    pub(crate) fn exceed(&self, limit: Limit, value: u64, used: u64) -> CallError {
        CallError::Limit(
            self.exceeded
                .get_or_init(|| LimitExceeded { limit, value, used })
                .clone(),
        )
    }

    /// Counts one call of a host function that was given `bytes`.
    pub(crate) fn host_call(&self, bytes: usize) -> wasmtime::Result<()> {
        let calls = self.host_calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls > self.limits.host_calls {
            return Err(self.exceed(Limit::HostCalls, self.limits.host_calls, calls).into());
        }
        let bytes = bytes as u64;
        let total = self.host_call_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > self.limits.host_call_bytes {
            return Err(self
                .exceed(Limit::HostCallBytes, self.limits.host_call_bytes, total)
                .into());
        }
        Ok(())
    }

    /// Counts bytes of output.
    pub(crate) fn output(&self, bytes: usize) -> Result<u64, CallError> {
        let bytes = bytes as u64;
        let total = self.output_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total > self.limits.output_bytes {
            return Err(self.exceed(Limit::OutputBytes, self.limits.output_bytes, total));
        }
        Ok(total)
    }

    /// Counts bytes of log lines; `false`: this line is over the limit and dropped.
    pub(crate) fn log(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.log_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limits.log_bytes
    }

    /// Counts a handle of the contract that was opened.
    pub(crate) fn handle_opened(&self) {
        let open = self.handles.fetch_add(1, Ordering::Relaxed) + 1;
        self.handles_peak.fetch_max(open, Ordering::Relaxed);
    }

    /// Counts one that was closed.
    pub(crate) fn handle_closed(&self) {
        self.handles.fetch_sub(1, Ordering::Relaxed);
    }

    /// Remembers a model that answered, once each.
    pub(crate) fn used_model(&self, model: &ModelId) {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if !models.contains(model) {
            models.push(model.clone());
        }
    }

    pub(crate) fn models(&self) -> Vec<ModelId> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers why inference refused the call something; the last one counts, since it is what the guest could not
    /// go on without.
    pub(crate) fn inference_failed(&self, code: &'static str) {
        *self.inference_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
    }

    pub(crate) fn inference_error(&self) -> Option<&'static str> {
        *self.inference_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, bytes: u64) -> bool {
        let total = self.memory_bytes.load(Ordering::Relaxed) + bytes;
        if total > self.limits.memory_bytes {
            let _first = self.exceed(Limit::MemoryBytes, self.limits.memory_bytes, total);
            return false;
        }
        self.memory_bytes.store(total, Ordering::Relaxed);
        self.memory_peak.fetch_max(total, Ordering::Relaxed);
        true
    }
}

/// Bounds all memories and tables of a store together. wasmtime's own limiter bounds each memory alone.
#[derive(Debug)]
pub(crate) struct MemoryLimiter(pub(crate) Arc<Meter>);

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.0.grow(desired.saturating_sub(current) as u64))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self
            .0
            .grow(desired.saturating_sub(current) as u64 * TABLE_ELEMENT_BYTES))
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }
}

//! Every limit of a call, in one place: name, unit, default, cap and reason.

use std::fmt;
use std::time::Duration;

use formwork_manifest::LimitRequest;
use serde::{Deserialize, Serialize};

/// Largest component file accepted, bytes. JavaScript and Python components carry their engine: 13 to 38 MB.
pub(crate) const MAX_COMPONENT_BYTES: usize = 64 << 20;

/// Most core functions in a component: bounds the time and memory of compiling it.
pub(crate) const MAX_FUNCTIONS: usize = 200_000;

/// Snapshots that may wait to be made; later ones are asked for again by the next call. 4,096: publishing a thousand
/// forms of four steps.
pub(crate) const MAX_SNAPSHOT_JOBS: usize = 4_096;

/// Largest answer of WASI's random functions, bytes: seeding a hash map takes 16.
pub(crate) const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// What a guest prints to standard output and error is kept up to here, bytes, for the message of a trap.
pub(crate) const MAX_STDIO_BYTES: usize = 8 << 10;

/// Longest log message or field, bytes; longer ones are cut.
pub(crate) const MAX_LOG_TEXT_BYTES: usize = 4 << 10;

/// Time for all self-tests of a plugin together. They run at every install, one after the other, before anything serves:
/// 64 of them with five minutes each would be a server that does not start.
pub(crate) const SELF_TESTS_TIME: Duration = Duration::from_secs(10);

/// Longest message, code or pointer of a plugin's error, bytes; longer ones are cut. They are stored with each failed task.
pub(crate) const MAX_ERROR_TEXT_BYTES: usize = 4 << 10;

/// Most problems of a plugin's error; nobody reads more.
pub(crate) const MAX_PROBLEMS: usize = 100;

/// Most JSON values the host makes of one answer: each takes it up to a hundred bytes, so this is some 50 MB.
pub(crate) const MAX_ANSWER_VALUES: usize = 500_000;

/// Most bytes of an extraction's contents that are compared with the submission: a few milliseconds.
pub(crate) const MAX_SPAN_BYTES: usize = 16 << 20;

/// Host memory of an argument's element that has no bytes of its own, such as an empty string in a list.
pub(crate) const ELEMENT_BYTES: usize = 24;

/// Most fields of a log line.
pub(crate) const MAX_LOG_FIELDS: usize = 16;

/// Core instances, memories and tables of one call. The WASI adapter makes two or three instances; composed
/// components a few more.
pub(crate) const MAX_INSTANCES: usize = 64;
/// Linear memories of one call.
pub(crate) const MAX_MEMORIES: usize = 8;
/// Tables of one call.
pub(crate) const MAX_TABLES: usize = 32;

/// Which limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// Guest CPU time.
    CpuMs,
    /// Time from call to answer.
    WallMs,
    /// All linear memories and tables together.
    MemoryBytes,
    /// The answer and what is written to a sink.
    OutputBytes,
    /// Calls of host functions.
    HostCalls,
    /// Bytes given to host functions.
    HostCallBytes,
    /// Live resource handles.
    Handles,
    /// The call stack.
    Stack,
}

impl Limit {
    /// Its name, as in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuMs => "cpu_ms",
            Self::WallMs => "wall_ms",
            Self::MemoryBytes => "memory_bytes",
            Self::OutputBytes => "output_bytes",
            Self::HostCalls => "host_calls",
            Self::HostCallBytes => "host_call_bytes",
            Self::Handles => "handles",
            Self::Stack => "stack",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit that ended a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("limit {limit} exceeded: {used} used, {value} allowed")]
pub struct LimitExceeded {
    /// Which one; its name carries the unit.
    pub limit: Limit,
    /// What was allowed.
    pub value: u64,
    /// What was used, or would have been.
    pub used: u64,
}

/// The limits of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Guest CPU time, milliseconds; host inference is not counted. 1,000: a validation takes microseconds, Python
    /// guests tens of milliseconds.
    pub cpu_ms: u64,
    /// Time from call to answer, milliseconds, host inference included, waiting for a turn on the pool's CPU not. 30,000:
    /// an answer later than that helps nobody who waits for it; the `batched` pool's plugins ask for more.
    pub wall_ms: u64,
    /// All linear memories and tables together, bytes. 64 MiB: a JSON Schema of 700 kB and its index fit ten times.
    pub memory_bytes: u64,
    /// The answer and what is written to a sink, bytes. 4 MiB: four times the largest submission.
    pub output_bytes: u64,
    /// Calls of host functions. 10,000: a long generation is a few hundred `next`.
    pub host_calls: u64,
    /// Bytes given to host functions. 16 MiB: a thousand labels with examples are 200 kB.
    pub host_call_bytes: u64,
    /// Live resource handles. 1,000: a plugin needs one for a completion and one for a sink; WASI streams add a few.
    pub handles: u64,
    /// Bytes of log lines; later lines are counted and dropped, as the contract says, and end no call. 64 KiB: a
    /// thousand lines of a debugging session.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 1_000,
            wall_ms: 30_000,
            memory_bytes: 64 << 20,
            output_bytes: 4 << 20,
            host_calls: 10_000,
            host_call_bytes: 16 << 20,
            handles: 1_000,
            log_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// The most an operator's configuration allows by default: what a manifest asks beyond is cut to this.
    /// Five minutes of wall time is the longest AI task users know; 256 MiB holds a Python or JavaScript engine.
    pub fn default_caps() -> Self {
        Self {
            cpu_ms: 30_000,
            wall_ms: 300_000,
            memory_bytes: 256 << 20,
            output_bytes: 16 << 20,
            host_calls: 100_000,
            host_call_bytes: 64 << 20,
            handles: 10_000,
            log_bytes: 1 << 20,
        }
    }

    /// [`Self::handles`] in the engine's words.
    pub(crate) fn max_handles(&self) -> usize {
        usize::try_from(self.handles).unwrap_or(usize::MAX)
    }

    /// What a call gets: what the manifest asks, else the default, never more than the cap.
    pub(crate) fn effective(asked: &LimitRequest, defaults: &Self, caps: &Self) -> Self {
        let pick = |asked: Option<u64>, unit: u64, default: u64, cap: u64| {
            asked.map_or(default, |value| value.saturating_mul(unit)).min(cap)
        };
        Self {
            cpu_ms: pick(asked.cpu_ms, 1, defaults.cpu_ms, caps.cpu_ms),
            wall_ms: pick(asked.wall_ms, 1, defaults.wall_ms, caps.wall_ms),
            memory_bytes: pick(asked.memory_mib, 1 << 20, defaults.memory_bytes, caps.memory_bytes),
            output_bytes: pick(asked.output_kib, 1 << 10, defaults.output_bytes, caps.output_bytes),
            host_calls: pick(asked.host_calls, 1, defaults.host_calls, caps.host_calls),
            host_call_bytes: pick(
                asked.host_call_kib,
                1 << 10,
                defaults.host_call_bytes,
                caps.host_call_bytes,
            ),
            handles: pick(asked.handles, 1, defaults.handles, caps.handles),
            log_bytes: pick(asked.log_kib, 1 << 10, defaults.log_bytes, caps.log_bytes),
        }
    }
}

//! What an operator may set of the engine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{CompilerCommand, Limits, SlotReset};

/// The engine's options, each with its default and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineOptions {
    /// What a call gets when its manifest asks for nothing.
    pub defaults: Limits,
    /// What a call gets at most, whatever its manifest asks.
    pub caps: Limits,
    /// Calls that can run at once. 64: more than all pools' permits and the HTTP lane together; a slot costs address
    /// space, not memory.
    pub slots: u32,
    /// Length of an epoch, milliseconds: how late a spinning guest notices a limit or a cancel. 5: well under the
    /// 50 ms promised for a cancel, and 200 wake-ups a second cost nothing measurable.
    pub epoch_ms: u64,
    /// Memory of a slot that is kept and zeroed instead of given back to the kernel, bytes. 512 KiB: what `validate`
    /// touches.
    pub keep_resident_bytes: usize,
    /// How a slot's memory is made clean: `auto`, `scan` or `decommit`. `auto` scans where that is safe.
    pub slot_reset: SlotReset,
    /// Where machine code and snapshots are kept between starts; none: they are made anew at each start. Only this
    /// process's user may be able to write there.
    pub cache_folder: Option<PathBuf>,
    /// What compiling a component may use.
    pub compile: CompileOptions,
    /// Snapshots per form version.
    pub snapshots: SnapshotOptions,
    /// The program that compiles; none: this process does, on the calling thread.
    #[serde(skip)]
    pub compiler: Option<CompilerCommand>,
    /// Off: self-tests are answered no inference, and those that ask for it are passed over. For processes that shall not
    /// load models: another process runs them.
    #[serde(skip)]
    pub self_tests_infer: bool,
}

/// What compiling one component may use. It runs in a process of its own, which dies when it needs more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompileOptions {
    /// Wall time, seconds. 180: a Python component of 18 MB takes under a minute on two busy cores.
    pub seconds: u64,
    /// Address space, bytes. 4 GiB: a Python component takes about 1 GiB.
    pub memory_bytes: u64,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            seconds: 180,
            memory_bytes: 4 << 30,
        }
    }
}

/// How many snapshots are kept, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapshotOptions {
    /// Off: every call prepares anew.
    pub enabled: bool,
    /// Snapshots ready in memory, bytes; those of no use for the longest time go first. 512 MiB: some 400 forms whose
    /// validator holds a little over 1 MB.
    pub memory_bytes: usize,
    /// Snapshots below `cache_folder`, bytes. 2 GiB: some 1,700 of these.
    pub disk_bytes: u64,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            memory_bytes: 512 << 20,
            disk_bytes: 2 << 30,
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            defaults: Limits::default(),
            caps: Limits::default_caps(),
            slots: 64,
            epoch_ms: 5,
            keep_resident_bytes: 512 << 10,
            slot_reset: SlotReset::default(),
            cache_folder: None,
            compile: CompileOptions::default(),
            snapshots: SnapshotOptions::default(),
            compiler: None,
            self_tests_infer: true,
        }
    }
}

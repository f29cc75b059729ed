//! How the memory of a slot becomes clean for the next call, and whether the fast way is safe here.
//!
//! Two ways. *Decommit* gives the pages back to the kernel and gets zeros or the image: always right, and slow, because
//! the next call faults them all in again. *Scan* asks the kernel which pages were written (`PAGEMAP_SCAN`, Linux 6.7)
//! and writes the image over just those. The scan misses a written page that is not present at that moment, because it
//! was swapped out: the next call could then read another one's data. So it is used only where nothing is swapped: no
//! swap device is configured, or all memory is locked. Swap may be added later; [`watch`] notices, locks the memory, and
//! where it may not, says so until the process is restarted.
//!
//! What remains: a page that the kernel is moving to another place (compaction, another NUMA node) at the very moment of
//! the scan. Machines with several NUMA nodes therefore do not scan by themselves; `slot_reset = "decommit"` takes away
//! the rest.

use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::mman::{MlockAllFlags, mlockall};
use serde::{Deserialize, Serialize};
use wasmtime::PoolingAllocationConfig;

use crate::{Error, metrics};

const SWAPS: &str = "/proc/swaps";
const NUMA_NODES: &str = "/sys/devices/system/node/possible";

/// What an operator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotReset {
    /// Scan where it is safe, else decommit.
    #[default]
    Auto,
    /// Scan; the engine does not start where it is not safe.
    Scan,
    /// Decommit.
    Decommit,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    Scan,
    Decommit,
}

impl Reset {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Decommit => "decommit",
        }
    }
}

/// Chooses, logs and shows the choice.
pub(crate) fn choose(wanted: SlotReset) -> Result<Reset, Error> {
    let obstacle = match wanted {
        SlotReset::Decommit => Some("it was configured so".to_owned()),
        SlotReset::Auto | SlotReset::Scan => obstacle(),
    };
    let reset = match (wanted, &obstacle) {
        (SlotReset::Scan, Some(obstacle)) => return Err(Error::SlotReset(obstacle.clone())),
        (_, None) => Reset::Scan,
        (_, Some(_)) => Reset::Decommit,
    };
    tracing::info!(mode = reset.name(), why = obstacle, "slot reset");
    metrics::slot_reset(reset.name());
    Ok(reset)
}

/// Why scanning would not be safe, if it would not.
fn obstacle() -> Option<String> {
    if !PoolingAllocationConfig::is_pagemap_scan_available() {
        return Some("the kernel has no PAGEMAP_SCAN (Linux 6.7)".into());
    }
    match std::fs::read_to_string(NUMA_NODES) {
        Ok(nodes) if nodes.trim() != "0" => {
            return Some(format!("memory may move between NUMA nodes ({})", nodes.trim()));
        }
        _ => {}
    }
    swapping()
}

/// Why pages may be swapped out, if they may.
fn swapping() -> Option<String> {
    match std::fs::read_to_string(SWAPS) {
        // A heading, then a line a device.
        Ok(swaps) if swaps.lines().count() > 1 => Some("the machine has swap".into()),
        Ok(_) => None,
        Err(error) => Some(format!("{SWAPS} cannot be read: {error}")),
    }
}

/// Whether scanning has become unsafe since the start.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    locked: AtomicBool,
    unsafe_now: AtomicBool,
}

impl Watch {
    /// Looks once; a few microseconds.
    pub(crate) fn look(&self) {
        if self.locked.load(Ordering::Relaxed) || swapping().is_none() {
            self.unsafe_now.store(false, Ordering::Relaxed);
            return;
        }
        let flags = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
        match mlockall(flags) {
            Ok(()) => {
                self.locked.store(true, Ordering::Relaxed);
                tracing::warn!("swap was added while slots are reset by scan: all memory is locked now");
            }
            Err(error) if !self.unsafe_now.swap(true, Ordering::Relaxed) => {
                tracing::error!(
                    %error,
                    "swap was added while slots are reset by scan, and memory cannot be locked: restart, or remove the swap"
                );
            }
            Err(_) => {}
        }
    }

    /// What an operator must know, if anything.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        self.unsafe_now
            .load(Ordering::Relaxed)
            .then_some("swap was added after the start while slots are reset by scan: restart, or remove the swap")
    }
}

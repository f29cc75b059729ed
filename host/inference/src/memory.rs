//! How much memory there is, how much this process has, and giving it back.
//!
//! Freed memory of the C and C++ libraries stays with the C library's allocator, in pieces between what is still used. A
//! model that was unloaded would go on counting against the machine.
#![allow(unsafe_code, reason = "the C library's malloc_trim has no safe wrapper")]

use std::fs;

use crate::limits;

/// Gives free memory of the C library's allocator back to the system. Takes some milliseconds.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes the allocator's own locks and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What models may take when nobody says, and why.
pub(crate) fn default_budget() -> (u64, &'static str) {
    let machine = field("/proc/meminfo", "MemTotal:").map(|kib| kib * 1024);
    // cgroup v2, then v1. A limit that is not set reads as a word or as a number beyond any machine.
    let cgroup = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    match (machine, cgroup) {
        (Some(machine), Some(cgroup)) if cgroup < machine => {
            (cgroup / limits::MEMORY_SHARE, "half of the cgroup's memory")
        }
        (Some(machine), _) => (machine / limits::MEMORY_SHARE, "half of the machine's memory"),
        (None, Some(cgroup)) => (cgroup / limits::MEMORY_SHARE, "half of the cgroup's memory"),
        (None, None) => (
            limits::MEMORY_FALLBACK,
            "the system does not tell how much memory there is",
        ),
    }
}

/// Resident memory of this process; 0 where the system does not tell.
pub(crate) fn resident_bytes() -> u64 {
    field("/proc/self/status", "VmRSS:").unwrap_or(0) * 1024
}

/// A number of a file of `name: number` lines.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

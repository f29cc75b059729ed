//! One process per database file.
//!
//! SQLite itself allows many writing processes; this store does not, because events, the plan cache and
//! the fence of ended leases assume one writer. The lock is the operating system's on a file beside the
//! database, so that it cannot be left behind by a killed process.

use crate::{Error, Result};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Held as long as the store is open.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock of the given database, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Self> {
        let path = lock_path(database);
        let io = |error: std::io::Error| Error::backend("open lock file", format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that cannot be read is still a holder.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "unknown".to_owned(),
                    text => text.to_owned(),
                };
                return Err(Error::Locked {
                    path: database.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        file.write_all(format!("pid {}\n", std::process::id()).as_bytes())
            .map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for FileLock {
    /// Unlocks instead of only closing: a child process that was just forked has the file open until its
    /// `exec`, and would keep the lock that long.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "lock file not unlocked, closing it frees it");
        }
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

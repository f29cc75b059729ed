//! Snapshots between starts: the values of a state, never code, so that nothing here is ever executed.
//!
//! One file a snapshot, below a folder that only the host's user can enter: `CODE/SETUP.state`, where `CODE` is the
//! sha256 of the component as it was split. A file is written beside its place and renamed; one that is damaged is
//! removed and made anew.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::state_module::{MemoryValue, Values};
use crate::private_files::{private_folder, replace};
use crate::setup::SetupKey;

/// The first bytes of a file; the number counts formats.
const MAGIC: &[u8; 8] = b"FWSTATE1";

const DIGEST_BYTES: usize = 32;

/// A folder of snapshots.
pub(crate) struct Disk {
    folder: PathBuf,
    limit_bytes: u64,
    /// Bytes of all files, as far as this process knows: another one may write here too.
    used_bytes: AtomicU64,
}

impl Disk {
    /// Makes the folder.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn open(folder: PathBuf, limit_bytes: u64) -> io::Result<Self> {
        private_folder(&folder)?;
        let disk = Self {
            folder,
            limit_bytes,
            used_bytes: AtomicU64::new(0),
        };
        disk.make_room()?;
        Ok(disk)
    }

    /// The values kept for a setup; none when there are none that can be read.
    pub(super) fn load(&self, code: &str, setup: SetupKey) -> Option<Values> {
        let path = self.path(code, setup);
        let bytes = fs::read(&path).ok()?;
        match decode(&bytes) {
            Some(values) => {
                // Its age is how long nobody wanted it.
                let touched = File::options()
                    .append(true)
                    .open(&path)
                    .and_then(|file| file.set_modified(SystemTime::now()));
                if let Err(error) = touched {
                    tracing::debug!(path = %path.display(), %error, "snapshot not touched");
                }
                Some(values)
            }
            None => {
                tracing::warn!(path = %path.display(), "damaged snapshot removed, it is made anew");
                let _gone = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps values. Failing to is no error: they are made anew after the next start.
    pub(super) fn save(&self, code: &str, setup: SetupKey, values: &Values) {
        let path = self.path(code, setup);
        let bytes = encode(values);
        let used = self.used_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        let kept = self.write(&path, &bytes).and_then(|()| match used > self.limit_bytes {
            true => self.make_room(),
            false => Ok(()),
        });
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "snapshot not kept on disk");
        }
    }

    fn path(&self, code: &str, setup: SetupKey) -> PathBuf {
        self.folder.join(code).join(format!("{setup}.state"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        private_folder(path.parent().unwrap_or(&self.folder))?;
        replace(path, bytes)
    }

    /// Removes the files that nobody wanted for the longest time until the rest fits.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for folder in fs::read_dir(&self.folder)? {
            let folder = folder?.path();
            for file in fs::read_dir(&folder).into_iter().flatten() {
                let file = file?;
                let metadata = file.metadata()?;
                files.push((metadata.modified()?, metadata.len(), file.path()));
            }
        }
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort_unstable();
        for (_, bytes, path) in files {
            if total <= self.limit_bytes {
                break;
            }
            fs::remove_file(&path)?;
            total -= bytes;
        }
        self.used_bytes.store(total, Ordering::Relaxed);
        Ok(())
    }
}

fn encode(values: &Values) -> Vec<u8> {
    let mut body = Vec::new();
    let number = |body: &mut Vec<u8>, value: u64| body.extend_from_slice(&value.to_le_bytes());
    number(&mut body, values.memories.len() as u64);
    for memory in &values.memories {
        number(&mut body, memory.pages);
        number(&mut body, memory.segments.len() as u64);
        for (at, bytes) in &memory.segments {
            number(&mut body, u64::from(*at));
            number(&mut body, bytes.len() as u64);
            body.extend_from_slice(bytes);
        }
    }
    number(&mut body, values.globals.len() as u64);
    for global in &values.globals {
        number(&mut body, *global);
    }
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&Sha256::digest(&body));
    file.extend_from_slice(&body);
    file
}

fn decode(file: &[u8]) -> Option<Values> {
    let (digest, body) = file.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    if digest != &Sha256::digest(body)[..] {
        return None;
    }
    let mut reader = Reader(body);
    let memories = (0..reader.number()?).map(|_| reader.memory()).collect::<Option<_>>()?;
    let globals = (0..reader.number()?).map(|_| reader.number()).collect::<Option<_>>()?;
    let values = Values { memories, globals };
    reader.0.is_empty().then_some(values)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn memory(&mut self) -> Option<MemoryValue> {
        let pages = self.number()?;
        let segments = (0..self.number()?)
            .map(|_| {
                let at = u32::try_from(self.number()?).ok()?;
                let length = usize::try_from(self.number()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Some((at, bytes.to_vec()))
            })
            .collect::<Option<_>>()?;
        Some(MemoryValue { pages, segments })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    fn values() -> Values {
        Values {
            memories: vec![MemoryValue {
                pages: 17,
                segments: vec![(0, vec![1, 2, 3]), (65_536, vec![9; 5000])],
            }],
            globals: vec![7, u64::MAX],
        }
    }

    #[test]
    fn what_is_kept_is_what_was_given() {
        assert_eq!(decode(&encode(&values())).unwrap(), values());
    }

    #[test]
    fn a_damaged_file_is_no_snapshot() {
        let good = encode(&values());
        for length in [0, 8, 40, good.len() - 1] {
            assert_eq!(decode(&good[..length]), None);
        }
        for at in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn the_folder_stays_within_its_limit_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let one = encode(&values()).len() as u64;
        let disk = Disk::open(folder.path().join("snapshots"), 2 * one).unwrap();
        let key = |number: u32| {
            let form = crate::FormInput {
                id: "f".into(),
                version: number,
                schema: "{}".into(),
                schemas: Vec::new(),
            };
            Setup::new(form, "{}").key()
        };
        use crate::Setup;
        for number in 0..3 {
            disk.save("code", key(number), &values());
            let path = disk.path("code", key(number));
            let age = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::from(number));
            if path.exists() {
                File::options()
                    .append(true)
                    .open(path)
                    .unwrap()
                    .set_modified(age)
                    .unwrap();
            }
        }
        assert!(disk.load("code", key(0)).is_none());
        assert_eq!(disk.load("code", key(2)).unwrap(), values());
    }
}

//! Evaluated prefixes as files.
//!
//! Problem: llama.cpp trusts a state it is given; a truncated or foreign one may do anything. Promise:
//! a state is handed over only if its file lies in a folder that is the host's alone, was written for
//! this model, shape and library, and its sha256 is right; everything else is removed and forgotten.
//! Files of all models together stay within their bound, the least recently used go first. Cost: hashing
//! (9 MB for 400 tokens: some milliseconds). A file is complete or absent (written aside, then renamed);
//! it is not synced: losing it costs an evaluation. Not covered: somebody who may write as the host's
//! own user.
//!
//! A file: magic, key (32 bytes), number of tokens (u32), tokens (i32 each), state, sha256 of all that.
//! Numbers are little-endian.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::native::Token;
use crate::limits;

const MAGIC: &[u8; 8] = b"FWPREFX1";
const EXTENSION: &str = "prefix";
/// Of a file that is being written.
const UNFINISHED: &str = "new";
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + DIGEST_BYTES + 4;

pub(crate) struct PrefixFiles {
    root: PathBuf,
    folder: PathBuf,
    key: [u8; DIGEST_BYTES],
    bytes: u64,
}

impl PrefixFiles {
    /// `root` holds the files of all models, `bytes` bounds them together.
    pub(crate) fn open(root: &Path, key: &str, bytes: u64) -> io::Result<Self> {
        let key: [u8; DIGEST_BYTES] = Sha256::digest(key.as_bytes()).into();
        let folder = root.join(hex::encode(&key[..16]));
        private_folder(root)?;
        private_folder(&folder)?;
        for (path, since, _) in files(&folder, UNFINISHED) {
            // What a killed process left; no write takes so long.
            if since.elapsed().is_ok_and(|age| age > limits::UNFINISHED_FILE_AGE) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(Self {
            root: root.to_path_buf(),
            folder,
            key,
            bytes,
        })
    }

    /// The tokens of every file, least recently used first. Files that are not what they should be are
    /// removed; states are only read and checked when they are wanted.
    pub(crate) fn list(&self) -> Vec<Vec<Token>> {
        let mut found = Vec::new();
        for (path, used, _) in files(&self.folder, EXTENSION) {
            match self.tokens_of(&path) {
                Ok(tokens) if self.path(&tokens) == path => found.push((used, tokens)),
                Ok(_) => discard(&path, "its name is not that of its tokens"),
                Err(error) => discard(&path, &error.to_string()),
            }
        }
        found.sort_by_key(|(used, _)| *used);
        let excess = found.len().saturating_sub(limits::MAX_PREFIXES);
        found.drain(..excess);
        found.into_iter().map(|(_, tokens)| tokens).collect()
    }

    /// The state of these tokens, if its file is whole.
    pub(crate) fn read(&self, tokens: &[Token]) -> Option<Vec<u8>> {
        let path = self.path(tokens);
        let outcome = self.read_checked(&path, tokens);
        match outcome {
            Ok(state) => Some(state),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                discard(&path, &error.to_string());
                None
            }
        }
    }

    fn read_checked(&self, path: &Path, tokens: &[Token]) -> io::Result<Vec<u8>> {
        let mut file = open_private(path)?;
        let size = file.metadata()?.len();
        if size > self.bytes {
            return Err(invalid("it is larger than all files may be together"));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let head = self.head(tokens);
        let body = bytes
            .len()
            .checked_sub(DIGEST_BYTES)
            .ok_or_else(|| invalid("it is cut short"))?;
        if Sha256::digest(&bytes[..body]).as_slice() != &bytes[body..] {
            return Err(invalid("its checksum is wrong"));
        }
        if !bytes[..body].starts_with(&head) {
            return Err(invalid("it is for something else"));
        }
        // Tells the bound that it was used; a failure makes it look older than it is.
        let _ = file.set_modified(SystemTime::now());
        bytes.truncate(body);
        Ok(bytes.split_off(head.len()))
    }

    /// Keeps a state; a failure is logged.
    pub(crate) fn write(&self, tokens: &[Token], state: &[u8]) {
        let path = self.path(tokens);
        // Other processes may keep the same prefix.
        let aside = path.with_extension(format!("{}.{UNFINISHED}", std::process::id()));
        let outcome = self
            .write_aside(&aside, tokens, state)
            .and_then(|()| fs::rename(&aside, &path));
        if let Err(error) = outcome {
            let _ = fs::remove_file(&aside);
            tracing::warn!(path = %path.display(), %error, "an evaluated prefix is not kept on disk");
        }
        self.bound();
    }

    fn write_aside(&self, aside: &Path, tokens: &[Token], state: &[u8]) -> io::Result<()> {
        let _ = fs::remove_file(aside);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(aside)?;
        let head = self.head(tokens);
        let digest = Sha256::new().chain_update(&head).chain_update(state).finalize();
        file.write_all(&head)?;
        file.write_all(state)?;
        file.write_all(&digest)
    }

    pub(crate) fn remove(&self, tokens: &[Token]) {
        let _ = fs::remove_file(self.path(tokens));
    }

    fn head(&self, tokens: &[Token]) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEADER_BYTES + tokens.len() * 4);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&self.key);
        head.extend_from_slice(&u32::try_from(tokens.len()).unwrap_or(u32::MAX).to_le_bytes());
        for token in tokens {
            head.extend_from_slice(&token.0.to_le_bytes());
        }
        head
    }

    fn path(&self, tokens: &[Token]) -> PathBuf {
        let name = hex::encode(&Sha256::digest(self.head(tokens))[..16]);
        self.folder.join(name).with_extension(EXTENSION)
    }

    fn tokens_of(&self, path: &Path) -> io::Result<Vec<Token>> {
        let mut file = open_private(path)?;
        let mut head = [0_u8; HEADER_BYTES];
        file.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(MAGIC.len());
        let (key, count) = rest.split_at(DIGEST_BYTES);
        if magic != MAGIC || key != self.key {
            return Err(invalid("it is for something else"));
        }
        let count = count
            .iter()
            .rev()
            .fold(0_usize, |count, byte| count << 8 | usize::from(*byte));
        if count > limits::MAX_CONTEXT_TOKENS as usize {
            return Err(invalid("it has too many tokens"));
        }
        let mut tokens = vec![0_u8; count * 4];
        file.read_exact(&mut tokens)?;
        let (tokens, _) = tokens.as_chunks::<4>();
        Ok(tokens.iter().map(|bytes| Token(i32::from_le_bytes(*bytes))).collect())
    }

    /// Removes files, least recently used first, until all models' together are within the bound.
    fn bound(&self) {
        let mut all = Vec::new();
        for folder in folders(&self.root) {
            all.extend(files(&folder, EXTENSION));
        }
        all.sort_by_key(|(_, used, _)| *used);
        let mut total: u64 = all.iter().map(|(_, _, size)| size).sum();
        for (path, _, size) in all {
            if total <= self.bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                total -= size;
            }
        }
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() || metadata.uid() != own_user()? || metadata.mode() & 0o077 != 0 {
        return Err(invalid(
            "the folder must be the host's own and closed to others (mode 0700)",
        ));
    }
    Ok(())
}

/// The user this process acts as: the owner of what it finds under its own name in /proc.
fn own_user() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Opens a file that nobody else may write; not through a link.
fn open_private(path: &Path) -> io::Result<File> {
    let before = fs::symlink_metadata(path)?;
    if !before.is_file() {
        return Err(invalid("it is not a file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let same = before.ino() == metadata.ino() && before.dev() == metadata.dev();
    if !same || metadata.uid() != own_user()? || metadata.mode() & 0o077 != 0 {
        return Err(invalid(
            "it is not a file of the host's own, closed to others (mode 0600)",
        ));
    }
    Ok(file)
}

/// Path, time of last use and size of each file with that extension.
fn files(folder: &Path, wanted: &str) -> Vec<(PathBuf, SystemTime, u64)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == wanted))
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((entry.path(), metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn discard(path: &Path, reason: &str) {
    tracing::warn!(path = %path.display(), reason, "a kept prefix is ignored and removed");
    let _ = fs::remove_file(path);
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

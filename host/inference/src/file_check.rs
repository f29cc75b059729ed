//! Nothing unverified reaches a native library.
//!
//! Problem: C++ loaders trust their input. Promise: a file is hashed in full and its header walked
//! within its bounds before the library opens it, at every load; ONNX files are loaded from the very bytes that were hashed,
//! GGUF files through the open file that was hashed. Cost: one sequential read a load (98 MB: about 0.1 s warm). Rejected:
//! remembering size and modification time of a file that was hashed once: who can write the file can set both. Not covered:
//! a GGUF file that is written to in place after it was hashed (make model files read-only), and weights that lie *inside*
//! a well-formed header, which is what the declared sha256 is for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::model::FileSpec;

const READ_BYTES: usize = 1 << 20;

/// Reads the whole file and compares its digest; answers the open file and its size in bytes.
pub(crate) fn verify(spec: &FileSpec) -> Result<(File, u64), Error> {
    let mut file = open(&spec.path)?;
    let (sha256, size) = hash(&mut file, &spec.path)?;
    compare(spec, &sha256)?;
    Ok((file, size))
}

/// The digest of a file's bytes, lowercase hex, and how many there are.
pub(crate) fn digest(path: &Path) -> Result<(String, u64), Error> {
    hash(&mut open(path)?, path)
}

fn hash(file: &mut File, path: &Path) -> Result<(String, u64), Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; READ_BYTES];
    let mut size = 0_u64;
    loop {
        let read = file.read(&mut buffer).map_err(|error| unreadable(path, &error))?;
        if read == 0 {
            return Ok((hex::encode(hasher.finalize()), size));
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
}

/// Reads a file of at most `limit` bytes into memory and compares the digest of those very bytes.
pub(crate) fn read_verified(spec: &FileSpec, limit: u64) -> Result<Vec<u8>, Error> {
    let bytes = read(&spec.path, limit)?;
    compare(spec, &hex::encode(Sha256::digest(&bytes)))?;
    Ok(bytes)
}

/// Reads a file of at most `limit` bytes into memory.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge {
            what: "bytes of a model file",
            limit,
            got: bytes.len() as u64,
        });
    }
    Ok(bytes)
}

pub(crate) fn open(path: &Path) -> Result<File, Error> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let regular = file.metadata().map_err(|error| unreadable(path, &error))?.is_file();
    if regular {
        Ok(file)
    } else {
        Err(Error::File {
            path: path.to_path_buf(),
            reason: "not a regular file".to_owned(),
        })
    }
}

fn compare(spec: &FileSpec, actual: &str) -> Result<(), Error> {
    if spec.sha256.eq_ignore_ascii_case(actual) {
        return Ok(());
    }
    Err(Error::Checksum {
        path: spec.path.clone(),
        expected: spec.sha256.clone(),
        actual: actual.to_owned(),
    })
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::File {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}

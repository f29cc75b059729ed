//! Machine code between starts. The only file with `unsafe` in this crate: wasmtime cannot check machine code, it has to
//! be told that it is its own.
//!
//! A file is named by the component's sha256 and the engine's configuration, lies in a folder that only the host's user
//! can enter, and is loaded only when the checksum beside it fits. Nothing that came from outside is ever put there.

#![allow(
    unsafe_code,
    reason = "Component::deserialize* trusts its input; the module's text says why ours can be trusted"
)]

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::private_files::{private_folder, replace};

pub(super) struct Cache {
    folder: PathBuf,
    /// Of everything in the engine's configuration that changes the code.
    configuration: u64,
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &Engine) -> io::Result<Self> {
        private_folder(folder)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self {
            folder: folder.to_owned(),
            configuration: hasher.finish(),
        })
    }

    pub(super) fn load(&self, engine: &Engine, component: &[u8]) -> Option<Component> {
        let path = self.path(component);
        let expected = fs::read_to_string(checksum_path(&path)).ok()?;
        let actual = checksum(&fs::read(&path).ok()?);
        if actual != expected {
            tracing::warn!(path = %path.display(), "damaged machine code, it is compiled anew");
            return None;
        }
        load_file(engine, &path)
    }

    /// Keeps `code` and answers it as loaded from its file, so that the kernel can share and drop its pages.
    pub(super) fn store(&self, engine: &Engine, component: &[u8], code: &[u8]) -> Option<Component> {
        let path = self.path(component);
        let kept = replace(&path, code).and_then(|()| replace(&checksum_path(&path), checksum(code).as_bytes()));
        match kept {
            Ok(()) => load_file(engine, &path),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "machine code not kept on disk");
                None
            }
        }
    }

    fn path(&self, component: &[u8]) -> PathBuf {
        let name = format!("{}-{:016x}.code", checksum(component), self.configuration);
        self.folder.join(name)
    }
}

/// Code that this process, or a child it started and waited for, has just compiled.
pub(super) fn load_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the only caller hands over what the compiler has just answered.
    unsafe { Component::deserialize(engine, code) }
}

fn load_file(engine: &Engine, path: &Path) -> Option<Component> {
    // SAFETY: only `replace` writes into this folder, only with what the compiler answered, and never into a file that is
    // there: a file that was mapped once does not change. Its checksum has been compared.
    match unsafe { Component::deserialize_file(engine, path) } {
        Ok(component) => Some(component),
        // Another version of the engine: the same name, other code.
        Err(error) => {
            tracing::info!(path = %path.display(), %error, "machine code of another engine, it is compiled anew");
            None
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn checksum_path(path: &Path) -> PathBuf {
    path.with_extension("sha256")
}

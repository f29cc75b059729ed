//! A copy of a plugin's folder beside the SDK and the world, for the tools to read.
//!
//! The tools resolve imports below one folder, and componentize-py writes byte code into the folders it reads: neither
//! should happen to the author's folder. The copy's content is also what a build depends on, so its digest tells whether
//! there is anything to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use formwork_manifest::{Digest, Manifest};
use tempfile::TempDir;

use crate::{Error, world};

/// Folders that hold what a build makes, never what it reads.
const SKIPPED_FOLDERS: [&str; 2] = ["__pycache__", "target"];

/// Files that are no source.
const SKIPPED_EXTENSIONS: [&str; 3] = ["wasm", "pyc", "md"];

/// How deep folders are followed: `node_modules` nests, a loop does not end.
const MAX_DEPTH: usize = 24;

/// The copy. It is removed when dropped.
pub(crate) struct Stage {
    folder: TempDir,
    /// Everything copied and written, by its place.
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Stage {
    /// Copies the plugin's folder and writes its world.
    pub(crate) fn new(plugin: &Path, manifest: &Manifest) -> Result<Self, Error> {
        let folder = tempfile::Builder::new()
            .prefix("formwork-build-")
            .tempdir()
            .map_err(Error::io("creating a folder in", &std::env::temp_dir()))?;
        let mut stage = Self {
            folder,
            files: BTreeMap::new(),
        };
        world::write(&stage.wit(), manifest)?;
        stage.copy(plugin, Path::new(""), 0)?;
        Ok(stage)
    }

    /// Where the world stands.
    pub(crate) fn wit(&self) -> PathBuf {
        self.folder.path().join("wit")
    }

    /// Where the plugin's files stand.
    pub(crate) fn sources(&self) -> PathBuf {
        self.folder.path().join("plugin")
    }

    /// A place of its own for what a tool writes or wants besides.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file among the plugin's.
    pub(crate) fn add(&mut self, place: &str, content: impl Into<Vec<u8>>) -> Result<(), Error> {
        self.put(PathBuf::from(place), content.into())
    }

    /// The digest of everything the build reads: the files, the world, the manifest and the tools (`tool`).
    pub(crate) fn digest(&self, manifest: &Manifest, tool: &str) -> Digest {
        let mut all = Vec::new();
        // Each part with its length: `ab` + `c` must not be `a` + `bc`.
        let mut part = |bytes: &[u8]| {
            all.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            all.extend_from_slice(bytes);
        };
        part(tool.as_bytes());
        part(manifest.to_json().as_bytes());
        part(world::text(manifest).as_bytes());
        for (place, content) in &self.files {
            part(place.as_os_str().as_encoded_bytes());
            part(content);
        }
        Digest::of(&all)
    }

    fn copy(&mut self, from: &Path, place: &Path, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        for entry in std::fs::read_dir(from).map_err(Error::io("reading", from))? {
            let entry = entry.map_err(Error::io("reading", from))?;
            let path = entry.path();
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            // Links are followed: what an author installs may be linked into the folder.
            let Ok(kind) = std::fs::metadata(&path) else { continue };
            let skipped_folder = SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped);
            let skipped_file = path
                .extension()
                .is_some_and(|extension| SKIPPED_EXTENSIONS.iter().any(|skipped| extension == *skipped));
            if hidden {
                continue;
            }
            if kind.is_dir() && !skipped_folder {
                self.copy(&path, &place.join(&name), depth + 1)?;
            } else if kind.is_file() && !skipped_file {
                let content = std::fs::read(&path).map_err(Error::io("reading", &path))?;
                self.put(place.join(&name), content)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, place: PathBuf, content: Vec<u8>) -> Result<(), Error> {
        let path = self.sources().join(&place);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io("creating", parent))?;
        }
        std::fs::write(&path, &content).map_err(Error::io("writing", &path))?;
        self.files.insert(place, content);
        Ok(())
    }
}

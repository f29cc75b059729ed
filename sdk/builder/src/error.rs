//! Why a plugin was not built.

use std::path::PathBuf;

use formwork_manifest::Kind;

use crate::Language;

/// Why a plugin was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `plugin.toml` is not TOML or has a wrong shape.
    #[error("{path}: {message}", path = path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Where in it and what is wrong.
        message: String,
    },
    /// The folder holds none of the files that show a language.
    #[error(
        "{path} holds no plugin: a Rust plugin has Cargo.toml, a Python one app.py, a JavaScript one package.json",
        path = path.display()
    )]
    NoLanguage {
        /// The plugin's folder.
        path: PathBuf,
    },
    /// The folder holds several of them.
    #[error("{path} holds {found}: keep each plugin in a folder of its own", path = path.display())]
    Ambiguous {
        /// The plugin's folder.
        path: PathBuf,
        /// The files that were found.
        found: String,
    },
    /// The language's tool cannot make this kind of plugin.
    #[error("no {kind} can be written in {language} yet: {why}")]
    Unsupported {
        /// The language.
        language: Language,
        /// The kind in the manifest.
        kind: Kind,
        /// What is missing, and what to do instead.
        why: &'static str,
    },
    /// The tool that makes components of a language is not installed.
    #[error(
        "{tool} is missing, which makes components of {language} plugins: run `scripts/setup.sh --guests` in Formwork's \
         source tree, or `{install}`"
    )]
    MissingTool {
        /// The language.
        language: Language,
        /// The tool.
        tool: &'static str,
        /// A command that installs it.
        install: &'static str,
    },
    /// The tool refused the plugin.
    #[error("{tool} failed for {path}:\n{message}", path = path.display())]
    Tool {
        /// The tool.
        tool: &'static str,
        /// The plugin's folder.
        path: PathBuf,
        /// The end of what it said.
        message: String,
    },
    /// Nothing on this machine compiles to WebAssembly.
    #[error(
        "no Rust compiler for WebAssembly: run `rustup target add wasm32-wasip1`, or on Debian \
         `apt-get install rustc-web rust-web-src lld-22 wasi-libc` (missing: {missing})"
    )]
    NoToolchain {
        /// What the second route lacks.
        missing: String,
    },
    /// Cargo could not be started.
    #[error("starting cargo: {0}")]
    Cargo(std::io::Error),
    /// The crate does not compile; cargo has printed why.
    #[error("cargo build failed for {path} (its messages are above)", path = path.display())]
    Compile {
        /// The plugin's folder.
        path: PathBuf,
    },
    /// The crate has no `cdylib`.
    #[error("{path}: no WebAssembly module was built; set `crate-type = [\"cdylib\"]` under `[lib]`", path = path.display())]
    NoModule {
        /// The plugin's folder.
        path: PathBuf,
    },
    /// The module is not a plugin.
    #[error("making a component: {0}")]
    Componentize(String),
    /// The manifest cannot travel in the component.
    #[error(transparent)]
    Section(#[from] formwork_manifest::Error),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

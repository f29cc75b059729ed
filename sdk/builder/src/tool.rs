//! The tools that make components of Python and JavaScript: where they are, and how they are run.
//!
//! `scripts/setup.sh --guests` installs the pinned versions into Formwork's cache folder. Elsewhere the author installs
//! them, and they are found through `PATH`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Error, Language};

/// Names the cache folder, as for the rest of Formwork.
const CACHE_VARIABLE: &str = "FORMWORK_CACHE";

/// What of a tool's messages an error repeats, bytes from the end: the cause stands last.
const MESSAGE_BYTES: usize = 8 << 10;

/// What componentizes the plugins of a language.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) language: Language,
    /// Its program's name where the author installed it.
    pub(crate) program: &'static str,
    /// How to install it by hand.
    pub(crate) install: &'static str,
    /// The pinned versions with their checksums: part of what a build depends on.
    pub(crate) pin: &'static str,
    /// The file below the cache's `guest-tools` that shows the tool is there, and the command that runs it.
    cached: &'static str,
    run_cached: fn(&Path) -> Command,
}

/// componentize-py, a Python package with the compiled tool inside.
pub(crate) const PYTHON: Tool = Tool {
    language: Language::Python,
    program: "componentize-py",
    install: "pip install componentize-py==0.25.1",
    pin: include_str!("../tools/python/requirements.txt"),
    cached: "python/componentize_py/__init__.py",
    run_cached: |folder| {
        let mut command = Command::new("python3");
        // The script pip writes names the interpreter of the day it was installed.
        command
            .args(["-c", "import sys, componentize_py; sys.exit(componentize_py.script())"])
            .env("PYTHONPATH", folder.join("python"));
        command
    },
};

/// componentize-qjs, a Node module with the compiled tool inside. `jco --backend quickjs` runs the same one, from 340 MB
/// of further packages.
pub(crate) const JAVASCRIPT: Tool = Tool {
    language: Language::JavaScript,
    program: "componentize-qjs",
    install: "npm install --global componentize-qjs@0.4.5",
    pin: include_str!("../tools/javascript/package-lock.json"),
    cached: "javascript/node_modules/componentize-qjs/cli.mjs",
    run_cached: |folder| {
        let mut command = Command::new("node");
        // Node 18 does not take the package's own program: it has no extension that says it is a module.
        command.arg(folder.join("javascript/node_modules/componentize-qjs/cli.mjs"));
        command
    },
};

impl Tool {
    /// Runs the tool with `arguments`; what it prints is kept for the error.
    pub(crate) fn run(&self, plugin: &Path, arguments: impl FnOnce(&mut Command)) -> Result<(), Error> {
        let mut command = self.command();
        arguments(&mut command);
        // Its own stack trace would push the author's out of the message.
        command.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::MissingTool {
                language: self.language,
                tool: self.program,
                install: self.install,
            },
            _ => Error::Tool {
                tool: self.program,
                path: plugin.to_owned(),
                message: error.to_string(),
            },
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let from = said.len().saturating_sub(MESSAGE_BYTES);
        Err(Error::Tool {
            tool: self.program,
            path: plugin.to_owned(),
            message: String::from_utf8_lossy(&said[from..]).trim().to_owned(),
        })
    }

    fn command(&self) -> Command {
        let folder = cache().join("guest-tools");
        if folder.join(self.cached).is_file() {
            (self.run_cached)(&folder)
        } else {
            Command::new(self.program)
        }
    }
}

fn cache() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set(CACHE_VARIABLE)
        .or_else(|| set("HOME").map(|home| home.join(".cache/formwork")))
        .unwrap_or_default()
}

//! From a crate to a component: cargo makes a core module, and that becomes a component.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Error, Toolchain, componentize};

/// Compiles the crate in `folder` and makes a component of it.
///
/// Cargo's own messages go to standard error. What has not changed is not compiled again.
pub(crate) fn build(folder: &Path) -> Result<Vec<u8>, Error> {
    let module = compile(folder)?;
    let module = std::fs::read(&module).map_err(Error::io("reading", &module))?;
    componentize(&module)
}

/// Compiles the crate in `folder` to a core module by the [`Toolchain`]'s route, and answers the module's file. The first
/// half of a build, for guests of other hosts.
///
/// # Errors
/// [`Error::NoToolchain`], [`Error::Cargo`], [`Error::Compile`], [`Error::NoModule`].
pub fn compile(folder: &Path) -> Result<PathBuf, Error> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "build",
        "--release",
        "--lib",
        "--message-format=json-render-diagnostics",
    ]);
    Toolchain::detect()?.configure(&mut cargo);
    if let Some(target) = std::env::var_os("CARGO_TARGET_DIR") {
        // Guests and host use different compilers: a shared folder would make each evict the other's work.
        cargo.env("CARGO_TARGET_DIR", Path::new(&target).join("guests"));
    }
    let mut child = cargo
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::Cargo)?;
    let mut module = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.map_err(Error::Cargo)?;
            module = built_module(&line, folder).or(module);
        }
    }
    if !child.wait().map_err(Error::Cargo)?.success() {
        return Err(Error::Compile {
            path: folder.to_owned(),
        });
    }
    module.ok_or_else(|| Error::NoModule {
        path: folder.to_owned(),
    })
}

/// The module in one of cargo's messages, when it is of the crate in `folder`.
fn built_module(message: &str, folder: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let manifest_path = Path::new(message.get("manifest_path")?.as_str()?)
        .parent()?
        .canonicalize()
        .ok()?;
    if message.get("reason")? != "compiler-artifact" || manifest_path != folder.canonicalize().ok()? {
        return None;
    }
    let files = message.get("filenames")?.as_array()?;
    files
        .iter()
        .filter_map(Value::as_str)
        .find(|name| name.ends_with(".wasm"))
        .map(PathBuf::from)
}

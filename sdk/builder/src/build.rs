//! One plugin folder in, one component file out.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use formwork_manifest::{Digest, Manifest, embed};
use serde_json::Value;

use crate::{Error, Toolchain, componentize, load_manifest};

/// A built plugin.
#[derive(Debug)]
pub struct Built {
    /// The component file, named `NAME-VERSION.wasm`.
    pub file: PathBuf,
    /// Its address.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: usize,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// Compiles the crate in `folder`, makes a component of it, puts the manifest inside and writes it to `out`.
///
/// Cargo's own messages go to standard error. What has not changed is not compiled again, and a file that would come
/// out equal is left alone.
///
/// # Errors
/// See [`Error`].
pub fn build(folder: &Path, out: &Path) -> Result<Built, Error> {
    let manifest = load_manifest(folder)?;
    let module = compile(folder)?;
    let module = std::fs::read(&module).map_err(Error::io("reading", &module))?;
    let component = embed(&componentize(&module)?, &manifest)?;
    let file = out.join(format!("{}-{}.wasm", manifest.name, manifest.version));
    std::fs::create_dir_all(out).map_err(Error::io("creating", out))?;
    if std::fs::read(&file).ok().as_deref() != Some(component.as_slice()) {
        let draft = file.with_extension("wasm.new");
        std::fs::write(&draft, &component).map_err(Error::io("writing", &draft))?;
        std::fs::rename(&draft, &file).map_err(Error::io("writing", &file))?;
    }
    Ok(Built {
        file,
        digest: Digest::of(&component),
        bytes: component.len(),
        manifest,
    })
}

/// Compiles the crate in `folder` to a core module by the [`Toolchain`]'s route, and answers the module's file. The first
/// half of [`build`], for guests of other hosts.
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

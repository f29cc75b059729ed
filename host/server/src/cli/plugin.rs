//! `formwork plugin …`: what a plugin author and an operator do with component files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use formwork_engine::{Engine, Plugin};
use formwork_inference::Inference;
use formwork_manifest::{Digest, Grant, Manifest};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Global;
use super::client::Client;
use super::exit::Failure;
use super::output::{Table, cell, print, print_json};

/// Largest component file read, in bytes. A Python guest has about 20 MB.
const MAX_COMPONENT_BYTES: u64 = 256 << 20;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Compile a plugin's folder into one component file.
    Build {
        /// The folder with `plugin.toml` and, by language, `Cargo.toml`, `app.py` or `package.json`.
        folder: PathBuf,
        /// Where to put NAME-VERSION.wasm.
        #[arg(long, default_value = "plugins-built")]
        out: PathBuf,
    },
    /// Check a component file as an install does (imports, limits, self-tests), or the manifest in a plugin's folder.
    Check {
        /// A component file or a folder.
        path: PathBuf,
        /// The configuration file: models and limits that the self-tests run with.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// List the plugins of a running server.
    List,
    /// Install a component file on every node of a running server.
    Push {
        /// The component file.
        file: PathBuf,
    },
    /// Show what a component file says of itself.
    Inspect {
        /// A component file.
        file: PathBuf,
    },
}

pub(crate) fn run(command: Command, global: &Global) -> Result<(), Failure> {
    match command {
        Command::Build { folder, out } => build(&folder, &out, global),
        Command::Check { path, config } => check(&path, config.as_deref(), global),
        Command::Inspect { file } => inspect(&file, global),
        Command::List => super::block_on(list(global)),
        Command::Push { file } => super::block_on(push(&file, global)),
    }
}

fn build(folder: &Path, out: &Path, global: &Global) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Err(Failure::NotFound(format!("no such folder: {}", folder.display())));
    }
    let built = formwork_builder::build(folder, out).map_err(Failure::failed)?;
    if global.json {
        let Manifest {
            name, version, kind, ..
        } = &built.manifest;
        print_json(
            &json!({ "file": built.file, "digest": built.digest, "bytes": built.bytes,
            "name": name, "version": version, "kind": kind }),
        )?;
    } else {
        print(&format!(
            "{}  {} bytes  {}",
            built.file.display(),
            built.bytes,
            built.digest
        ))?;
    }
    Ok(())
}

fn check(path: &Path, config: Option<&Path>, global: &Global) -> Result<(), Failure> {
    if path.is_dir() {
        let manifest = formwork_builder::load_manifest(path).map_err(Failure::failed)?;
        return checked(&manifest, "its manifest is well formed", None, global);
    }
    let component = read(path)?;
    let manifest = formwork_manifest::read(&component).with_context(|| path.display().to_string())?;
    let plugin = install(component, &manifest, config).with_context(|| path.display().to_string())?;
    let done = "can be installed, its self-tests pass";
    checked(&manifest, done, plugin.unsupported_snapshots(), global)
}

fn checked(manifest: &Manifest, done: &str, no_snapshots: Option<&str>, global: &Global) -> Result<(), Failure> {
    let self_tests = manifest.self_tests.len();
    if global.json {
        print_json(
            &json!({ "ok": true, "name": manifest.name, "version": manifest.version, "self_tests": self_tests,
            "no_snapshots": no_snapshots }),
        )?;
        return Ok(());
    }
    print(&format!(
        "{} {}: {done} ({self_tests} self-tests)",
        manifest.name, manifest.version
    ))?;
    if let Some(reason) = no_snapshots {
        print(&format!(
            "every call runs `prepare`: it cannot be snapshotted, {reason}"
        ))?;
    }
    Ok(())
}

/// Installs a component with everything it asks for; models are loaded only when it asks for some.
fn install(component: Vec<u8>, manifest: &Manifest, config: Option<&Path>) -> anyhow::Result<Arc<Plugin>> {
    let loaded = super::load_config(config)?;
    crate::logging::start_for_tools(&loaded.config.log);
    let grants: BTreeSet<Grant> = manifest.grants.keys().copied().collect();
    let infers = [Grant::Embeddings, Grant::Generation, Grant::Tensors]
        .iter()
        .any(|grant| grants.contains(grant));
    let models = if infers { loaded.config.models } else { Vec::new() };
    let inference = Inference::start(loaded.config.inference, models)?;
    let engine = Engine::new(loaded.config.engine, inference)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    Ok(runtime.block_on(engine.install(component, &grants))?)
}

fn inspect(file: &Path, global: &Global) -> Result<(), Failure> {
    let component = read(file)?;
    let manifest = formwork_manifest::read(&component).with_context(|| file.display().to_string())?;
    let digest = Digest::of(&component);
    if global.json {
        print_json(&json!({ "digest": digest, "bytes": component.len(), "manifest": manifest }))?;
        return Ok(());
    }
    print(&describe(&manifest, &digest, component.len()))?;
    Ok(())
}

async fn push(file: &Path, global: &Global) -> Result<(), Failure> {
    let component = read(file)?;
    // What cannot be a plugin is told without sending it.
    formwork_manifest::read(&component).with_context(|| file.display().to_string())?;
    let client = Client::new(global)?;
    let request = client
        .request(Method::POST, &["plugins"], &[])
        .header("content-type", "application/wasm")
        .body(component);
    let (status, answer) = client.send(request).await?;
    if global.json {
        print_json(&answer)?;
        return Ok(());
    }
    let [name, version, digest] = ["name", "version", "digest"].map(|name| cell(answer.get(name)));
    let done = if status == StatusCode::CREATED {
        "installed"
    } else {
        "was installed already"
    };
    print(&format!("{name} {version}: {done}, {digest}"))?;
    Ok(())
}

async fn list(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.get(&["plugins"], &[]).await?;
    if global.json {
        print_json(&answer)?;
        return Ok(());
    }
    let mut table = Table::new(&["plugin", "version", "kind", "aliases", "grants", "digest"]);
    for plugin in answer["items"].as_array().into_iter().flatten() {
        let names = |value: &Value| match value {
            Value::Array(items) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(", "),
            Value::Object(members) => members.keys().cloned().collect::<Vec<_>>().join(", "),
            other => cell(Some(other)),
        };
        let [name, version, kind, digest] = ["name", "version", "kind", "digest"].map(|name| cell(plugin.get(name)));
        table.row([
            name,
            version,
            kind,
            names(&plugin["aliases"]),
            names(&plugin["grants"]),
            digest,
        ]);
    }
    print(&table.render())?;
    Ok(())
}

/// A component file's bytes.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("no such file: {}", file.display())),
        _ => Failure::Failed(anyhow::Error::new(error).context(format!("reading {}", file.display()))),
    };
    let size = std::fs::metadata(file).map_err(missing)?.len();
    if size > MAX_COMPONENT_BYTES {
        return Err(Failure::Usage(format!(
            "{} has {size} bytes, more than the limit of {MAX_COMPONENT_BYTES}",
            file.display()
        )));
    }
    std::fs::read(file).map_err(missing)
}

fn describe(manifest: &Manifest, digest: &Digest, bytes: usize) -> String {
    let mut text = format!(
        "{} {} ({})\n  {}\n  licence   {}\n  contract  formwork:plugin@{}\n  digest    {digest}\n  size      {bytes} bytes\n",
        manifest.name, manifest.version, manifest.kind, manifest.description, manifest.licence, manifest.contract
    );
    if manifest.grants.is_empty() {
        text.push_str("  grants    none\n");
    }
    for (grant, reason) in &manifest.grants {
        text.push_str(&format!("  asks for  {grant}: {reason}\n"));
    }
    if let Value::Object(limits) = json!(manifest.limits) {
        for (name, value) in limits {
            text.push_str(&format!("  limit     {name} = {value}\n"));
        }
    }
    text.push_str(&format!("  self-tests {}\n", manifest.self_tests.len()));
    text
}

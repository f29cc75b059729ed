//! Builds the peers' guests by the route Formwork's own plugins are built by, and pre-initialises them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_PROXY_ADAPTER;
use wit_component::ComponentEncoder;

/// What the guests export for Wizer.
const INIT_FUNCTION: &str = "wizer-initialize";

/// The built guests. `wizened`: pre-initialised, the schema is compiled in the saved memory.
pub struct Built {
    pub serve: PathBuf,
    pub serve_wizened: PathBuf,
    pub extism: PathBuf,
    pub extism_wizened: PathBuf,
}

pub fn build(sources: &Path, wasmtime: &Path, out: &Path) -> anyhow::Result<Built> {
    std::fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    let serve = formwork_builder::compile(&sources.join("serve"))?;
    let extism = formwork_builder::compile(&sources.join("extism"))?;
    let built = Built {
        serve: out.join("serve.wasm"),
        serve_wizened: out.join("serve-wizened.wasm"),
        extism: out.join("extism.wasm"),
        extism_wizened: out.join("extism-wizened.wasm"),
    };
    // Core modules first: Wizer sees one memory and no canonical ABI.
    let serve_wizened = out.join("serve-wizened.core.wasm");
    wizen(wasmtime, &serve, &serve_wizened)?;
    componentize(&serve, &built.serve)?;
    componentize(&serve_wizened, &built.serve_wizened)?;
    std::fs::copy(&extism, &built.extism)?;
    wizen(wasmtime, &extism, &built.extism_wizened)?;
    Ok(built)
}

fn wizen(wasmtime: &Path, from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = Command::new(wasmtime)
        // The host's functions are not there; initialising must not call them, only WASI's.
        .args([
            "wizer",
            "-S",
            "cli",
            "-W",
            "unknown-imports-trap=y",
            "--init-func",
            INIT_FUNCTION,
        ])
        .arg("-o")
        .arg(to)
        .arg(from)
        .status()
        .with_context(|| format!("starting {}", wasmtime.display()))?;
    anyhow::ensure!(
        status.success(),
        "wasmtime wizer failed on {}: {status}",
        from.display()
    );
    Ok(())
}

fn componentize(from: &Path, to: &Path) -> anyhow::Result<()> {
    let module = std::fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)?
        .adapter("wasi_snapshot_preview1", WASI_SNAPSHOT_PREVIEW1_PROXY_ADAPTER)?
        .encode()
        .with_context(|| format!("making a component of {}", from.display()))?;
    std::fs::write(to, component).with_context(|| format!("writing {}", to.display()))
}

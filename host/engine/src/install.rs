//! From a file to a plugin that may serve. Everything is checked here, nothing at the first request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use formwork_inference::Inference;
use formwork_manifest::{Digest, Grant, Manifest};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wasmtime::component::Component;

use crate::compile::Compiler;
use crate::config::engine_config;
use crate::limits::{Limits, MAX_COMPONENT_BYTES, MAX_FUNCTIONS, MAX_MEMORIES, MAX_TABLES};
use crate::linker::{Need, linker, need};
use crate::sandbox::Sandbox;
use crate::slot_reset::{self, Reset};
use crate::snapshot::{Code, Disk, Image, Keeper, Origin, STATE_IMPORT, Split, split};
use crate::ticker::Ticker;
use crate::{CallError, EngineOptions, Error, InstallError, Plugin, self_test};

/// Bytes of a page of linear memory.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// Compiles and holds plugins. A cheap handle; the last one gone stops the epoch thread.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    engine: wasmtime::Engine,
    inference: Inference,
    options: EngineOptions,
    compiler: Compiler,
    snapshots: Arc<Keeper>,
    reset_watch: Arc<slot_reset::Watch>,
    _ticker: Ticker,
}

impl Engine {
    /// Starts an engine; its plugins get their models from `inference`.
    ///
    /// # Errors
    /// See [`Error`]: a configuration the machine cannot bear, an unusable cache folder.
    pub fn new(options: EngineOptions, inference: Inference) -> Result<Self, Error> {
        let reset = slot_reset::choose(options.slot_reset)?;
        let config = engine_config(&options, reset);
        let engine = wasmtime::Engine::new(&config).map_err(|error| Error::Engine(format!("{error:#}")))?;
        let reset_watch = Arc::new(slot_reset::Watch::default());
        let watch = Arc::clone(&reset_watch);
        let every_second = move || {
            if reset == Reset::Scan {
                watch.look();
            }
        };
        let ticker = Ticker::start(&engine, Duration::from_millis(options.epoch_ms.max(1)), every_second)?;
        let disk = match &options.cache_folder {
            Some(folder) if options.snapshots.enabled => {
                let opened = Disk::open(folder.join("snapshots"), options.snapshots.disk_bytes);
                Some(opened.map_err(|error| Error::CacheFolder {
                    folder: folder.clone(),
                    message: error.to_string(),
                })?)
            }
            _ => None,
        };
        Ok(Self(Arc::new(Inner {
            compiler: Compiler::new(&engine, &options)?,
            snapshots: Arc::new(Keeper::start(options.snapshots.clone(), disk)?),
            engine,
            inference,
            options,
            reset_watch,
            _ticker: ticker,
        })))
    }

    /// What an operator must know of the sandboxes' safety, if anything: swap was added while slots are reset by scan.
    pub fn warning(&self) -> Option<&'static str> {
        self.0.reset_watch.warning()
    }

    /// Installs a component: checks its validity, manifest, imports against `grants`, world and resources, compiles
    /// it, and runs its self-tests ([`EngineOptions::self_tests_infer`]). Nothing is kept of one that fails.
    ///
    /// Compiling takes seconds for a large component and blocks the calling thread.
    ///
    /// # Errors
    /// See [`InstallError`]; each names what is wrong and where.
    pub async fn install(&self, component: Vec<u8>, grants: &BTreeSet<Grant>) -> Result<Arc<Plugin>, InstallError> {
        let Inner { options, snapshots, .. } = &*self.0;
        let (manifest, needs) = check_file(&component)?;
        check_grants(&manifest, grants)?;
        let limits = Limits::effective(&manifest.limits, &options.defaults, &options.caps);
        needs.check(&limits)?;
        let origin = self.origin(&component, &manifest, limits).await?;
        let (digest, size) = (Digest::of(&component), component.len());
        let plugin = Plugin::new(manifest, digest, size, Arc::new(origin), Arc::clone(snapshots));
        self_test::run(&plugin, options.self_tests_infer).await?;
        Ok(Arc::new(plugin))
    }

    /// The plugin with its state split from its code; where that is not possible, as it is.
    async fn origin(&self, component: &[u8], manifest: &Manifest, limits: Limits) -> Result<Origin, InstallError> {
        let whole = |reason: String| async {
            tracing::warn!(
                plugin = manifest.name,
                reason,
                "it cannot be snapshotted: every call prepares anew"
            );
            let (sandbox, pristine) = self.sandbox(component, None, manifest, limits.clone())?;
            let base = sandbox
                .base(pristine)
                .await
                .map_err(|error| wrong_world(manifest, &error))?;
            Ok(Origin::new(sandbox, base, String::new(), Some(reason.into())))
        };
        let split = match split(component) {
            Ok(split) => split,
            Err(reason) => return whole(reason.to_string()).await,
        };
        let code_key = Digest::of(&split.component).to_string();
        let code_key = code_key.rsplit(':').next().unwrap_or_default().to_owned();
        let (sandbox, pristine) = self.sandbox(component, Some(split), manifest, limits.clone())?;
        match sandbox.base(pristine).await {
            Ok(base) => Ok(Origin::new(sandbox, base, code_key, None)),
            // The engine had no room: that says nothing about the plugin.
            Err(error @ CallError::Host(_)) => Err(InstallError::Busy(error.to_string())),
            Err(error) => whole(format!("its start does not end well: {error}")).await,
        }
    }

    /// The sandbox, and the image in which nothing has run yet.
    fn sandbox(
        &self,
        component: &[u8],
        split: Option<Split>,
        manifest: &Manifest,
        limits: Limits,
    ) -> Result<(Sandbox, Image), InstallError> {
        let Inner {
            engine,
            inference,
            compiler,
            ..
        } = &*self.0;
        let compiled = compiler.compile(split.as_ref().map_or(component, |split| &split.component))?;
        check_imports(engine, &compiled, split.as_ref(), manifest)?;
        let linker = linker(engine, &compiled, &manifest.grants.keys().copied().collect())
            .map_err(|error| wrong_world(manifest, &error))?;
        let code = match split {
            Some(split) => Code::split(compiled, linker, manifest.kind, split),
            None => Code::whole(compiled, linker, manifest.kind),
        };
        // Missing exports show here, before anything runs.
        let pristine = code.pristine().map_err(|error| wrong_world(manifest, &error))?;
        let sandbox = Sandbox {
            engine: engine.clone(),
            inference: inference.clone(),
            name: manifest.name.as_str().into(),
            limits,
            code,
        };
        Ok((sandbox, pristine))
    }
}

fn wrong_world(manifest: &Manifest, error: &impl std::fmt::Display) -> InstallError {
    InstallError::WrongWorld {
        kind: manifest.kind,
        message: format!("{error:#}"),
    }
}

/// Size, WebAssembly validity, number of functions, manifest: all before the compiler sees the file.
fn check_file(component: &[u8]) -> Result<(Manifest, Needs), InstallError> {
    if component.len() > MAX_COMPONENT_BYTES {
        return Err(InstallError::TooLarge {
            got: component.len(),
            limit: MAX_COMPONENT_BYTES,
        });
    }
    let manifest = formwork_manifest::read(component)?;
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(component)
        .map_err(|error| InstallError::Invalid(error.to_string()))?;
    let needs = Needs::of(component).map_err(|error| InstallError::Invalid(error.to_string()))?;
    if needs.functions > MAX_FUNCTIONS {
        return Err(InstallError::TooManyFunctions {
            got: needs.functions,
            limit: MAX_FUNCTIONS,
        });
    }
    Ok((manifest, needs))
}

/// What a component needs before its first instruction, counted over all its core modules. A module that is
/// instantiated twice is counted once here; the store's limiter counts what is really made.
#[derive(Default)]
struct Needs {
    functions: usize,
    memories: usize,
    tables: usize,
    memory_bytes: u64,
}

impl Needs {
    fn of(component: &[u8]) -> wasmparser::Result<Self> {
        let mut needs = Self::default();
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::CodeSectionStart { count, .. } => {
                    needs.functions = needs.functions.saturating_add(count as usize);
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        needs.memories += 1;
                        let bytes = memory?.initial.saturating_mul(WASM_PAGE_BYTES);
                        needs.memory_bytes = needs.memory_bytes.saturating_add(bytes);
                    }
                }
                Payload::TableSection(section) => needs.tables += section.count() as usize,
                _ => {}
            }
        }
        Ok(needs)
    }

    /// They must fit the limits of a call.
    fn check(&self, limits: &Limits) -> Result<(), InstallError> {
        let refuse = |needs: String, limit: String| Err(InstallError::Resources { needs, limit });
        if self.memories > MAX_MEMORIES {
            return refuse(format!("{} memories", self.memories), format!("at most {MAX_MEMORIES}"));
        }
        if self.tables > MAX_TABLES {
            return refuse(format!("{} tables", self.tables), format!("at most {MAX_TABLES}"));
        }
        if self.memory_bytes > limits.memory_bytes {
            return refuse(
                format!("{} bytes of memory", self.memory_bytes),
                format!(
                    "memory_bytes = {} (ask for more under [limits] in plugin.toml)",
                    limits.memory_bytes
                ),
            );
        }
        Ok(())
    }
}

fn check_grants(manifest: &Manifest, allowed: &BTreeSet<Grant>) -> Result<(), InstallError> {
    match manifest.grants.iter().find(|(grant, _)| !allowed.contains(grant)) {
        None => Ok(()),
        Some((grant, reason)) => Err(InstallError::NotGranted {
            plugin: manifest.name.clone(),
            grant: *grant,
            reason: reason.clone(),
        }),
    }
}

fn check_imports(
    engine: &wasmtime::Engine,
    compiled: &Component,
    split: Option<&Split>,
    manifest: &Manifest,
) -> Result<(), InstallError> {
    let mut forbidden = Vec::new();
    for (name, _) in compiled.component_type().imports(engine) {
        match need(name) {
            _ if split.is_some() && name == STATE_IMPORT => {}
            Need::Nothing => {}
            Need::Grant(grant) if manifest.grants.contains_key(&grant) => {}
            Need::Grant(grant) => {
                return Err(InstallError::UndeclaredGrant {
                    import: name.to_owned(),
                    grant,
                });
            }
            Need::Forbidden => forbidden.push(name.to_owned()),
        }
    }
    if forbidden.is_empty() {
        Ok(())
    } else {
        Err(InstallError::ForbiddenImports { imports: forbidden })
    }
}

/// The name in a component's manifest, to look its grants up before it is installed.
///
/// # Errors
/// As [`formwork_manifest::read`].
pub fn manifest_name(component: &[u8]) -> Result<String, formwork_manifest::Error> {
    formwork_manifest::read(component).map(|manifest| manifest.name)
}

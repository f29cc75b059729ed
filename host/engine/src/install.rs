//! From a file to a plugin that may serve. Everything is checked here, nothing at the first request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use formwork_inference::Inference;
use formwork_manifest::{Digest, Grant, Manifest};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wasmtime::component::Component;

use crate::config::engine_config;
use crate::limits::{Limits, MAX_COMPONENT_BYTES, MAX_FUNCTIONS, MAX_MEMORIES, MAX_TABLES};
use crate::linker::{Need, linker, need};
use crate::plugin::World;
use crate::ticker::Ticker;
use crate::{EngineOptions, Error, InstallError, Plugin, self_test};

/// Bytes of a page of linear memory.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// Compiles and holds plugins. A cheap handle; the last one gone stops the epoch thread.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    engine: wasmtime::Engine,
    inference: Inference,
    options: EngineOptions,
    _ticker: Ticker,
}

impl Engine {
    /// Starts an engine; its plugins get their models from `inference`.
    ///
    /// # Errors
    /// See [`Error`]: a configuration the machine cannot bear, an unusable cache folder.
    pub fn new(options: EngineOptions, inference: Inference) -> Result<Self, Error> {
        let config = engine_config(&options)?;
        let engine = wasmtime::Engine::new(&config).map_err(|error| Error::Engine(format!("{error:#}")))?;
        let ticker = Ticker::start(&engine, Duration::from_millis(options.epoch_ms.max(1)))?;
        Ok(Self(Arc::new(Inner {
            engine,
            inference,
            options,
            _ticker: ticker,
        })))
    }

    /// Installs a component: checks its validity, manifest, imports against `grants`, world and resources, compiles
    /// it, and runs its self-tests. Nothing is kept of one that fails.
    ///
    /// Compiling takes seconds for a large component and blocks the calling thread.
    ///
    /// # Errors
    /// See [`InstallError`]; each names what is wrong and where.
    pub async fn install(&self, component: Vec<u8>, grants: &BTreeSet<Grant>) -> Result<Arc<Plugin>, InstallError> {
        let Inner {
            engine,
            inference,
            options,
            ..
        } = &*self.0;
        let manifest = check_file(&component)?;
        check_grants(&manifest, grants)?;
        let compiled = compile(engine, &component)?;
        check_imports(engine, &compiled, &manifest)?;
        let limits = Limits::effective(&manifest.limits, &options.defaults, &options.caps);
        check_resources(&compiled, &limits)?;
        let wrong_world = |error: wasmtime::Error| InstallError::WrongWorld {
            kind: manifest.kind,
            message: format!("{error:#}"),
        };
        let world = linker(engine, &compiled, &manifest.grants.keys().copied().collect())
            .and_then(|linker| linker.instantiate_pre(&compiled))
            .and_then(|pre| World::new(manifest.kind, pre))
            .map_err(wrong_world)?;
        let plugin = Plugin {
            engine: engine.clone(),
            inference: inference.clone(),
            name: manifest.name.as_str().into(),
            digest: Digest::of(&component),
            size: component.len(),
            limits,
            world,
            manifest,
        };
        self_test::run(&plugin).await?;
        Ok(Arc::new(plugin))
    }
}

/// Size, WebAssembly validity, number of functions, manifest: all before the compiler sees the file.
fn check_file(component: &[u8]) -> Result<Manifest, InstallError> {
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
    let mut functions = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        if let Ok(Payload::CodeSectionStart { count, .. }) = payload {
            functions = functions.saturating_add(count as usize);
        }
    }
    if functions > MAX_FUNCTIONS {
        return Err(InstallError::TooManyFunctions {
            got: functions,
            limit: MAX_FUNCTIONS,
        });
    }
    Ok(manifest)
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

/// A panic of the compiler is a refused plugin, not a dead host.
fn compile(engine: &wasmtime::Engine, component: &[u8]) -> Result<Component, InstallError> {
    let compile = std::panic::AssertUnwindSafe(|| Component::from_binary(engine, component));
    match std::panic::catch_unwind(compile) {
        Ok(Ok(compiled)) => Ok(compiled),
        Ok(Err(error)) => Err(InstallError::Invalid(format!("{error:#}"))),
        Err(_) => Err(InstallError::Invalid("the compiler failed on it".into())),
    }
}

fn check_imports(engine: &wasmtime::Engine, compiled: &Component, manifest: &Manifest) -> Result<(), InstallError> {
    let mut forbidden = Vec::new();
    for (name, _) in compiled.component_type().imports(engine) {
        match need(name) {
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

/// What the component needs before its first instruction must fit the limits of a call.
fn check_resources(compiled: &Component, limits: &Limits) -> Result<(), InstallError> {
    let Some(required) = compiled.resources_required() else {
        return Err(InstallError::Resources {
            needs: "resources that cannot be told before it runs".into(),
            limit: "it must not import components or modules".into(),
        });
    };
    let refuse = |needs: String, limit: String| Err(InstallError::Resources { needs, limit });
    if required.num_memories as usize > MAX_MEMORIES {
        return refuse(
            format!("{} memories", required.num_memories),
            format!("at most {MAX_MEMORIES}"),
        );
    }
    if required.num_tables as usize > MAX_TABLES {
        return refuse(
            format!("{} tables", required.num_tables),
            format!("at most {MAX_TABLES}"),
        );
    }
    let initial = required
        .max_initial_memory_size
        .unwrap_or(0)
        .saturating_mul(WASM_PAGE_BYTES);
    if initial > limits.memory_bytes {
        return refuse(
            format!("a memory of {initial} bytes"),
            format!(
                "memory_bytes = {} (ask for more under [limits] in plugin.toml)",
                limits.memory_bytes
            ),
        );
    }
    Ok(())
}

/// The name in a component's manifest, to look its grants up before it is installed.
///
/// # Errors
/// As [`formwork_manifest::read`].
pub fn manifest_name(component: &[u8]) -> Result<String, formwork_manifest::Error> {
    formwork_manifest::read(component).map(|manifest| manifest.name)
}

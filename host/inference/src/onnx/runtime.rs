//! Loads the ONNX Runtime library, once per process and only when a model needs it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use super::operators;
use crate::error::Error;

static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Optimisations that make graphs slower: on CPUs the fused kernel takes nine times as long for a normalisation as the
/// addition and the normalisation it stands for (a tenth of all time of all-MiniLM-L6-v2).
const SLOWER_FUSIONS: &str = "SkipLayerNormFusion";

/// The environment, loading the library on first use. All sessions share one pool of `threads` threads, the calling one
/// included, that do not spin; who asks first decides how many.
pub(crate) fn environment(library: &Path, threads: usize) -> Result<Environment, Error> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((path, environment)) = loaded.as_ref() {
        if path == library {
            return Ok(environment.clone());
        }
        return Err(failed(
            library,
            &format!("{} is already loaded in this process", path.display()),
        ));
    }
    let wrong = |error: ort::Error| failed(library, &error.to_string());
    let runtime = ort::init_from(library).map_err(|error| failed(library, &error.to_string()))?;
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(threads)
        .and_then(|pool| pool.with_inter_threads(1))
        .and_then(|pool| pool.with_spin_control(false))
        .map_err(wrong)?;
    let environment = runtime
        .with_global_thread_pool(pool)
        .with_name("formwork")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(wrong)?;
    environment.set_log_level(LogLevel::Warning);
    *loaded = Some((library.to_path_buf(), environment.clone()));
    Ok(environment)
}

/// A session over verified bytes on the shared threads, with every optimisation, without an arena (it grows to the largest
/// batch ever seen and never shrinks).
pub(crate) fn session(environment: &Environment, bytes: &[u8]) -> Result<Session, String> {
    let text = |error: ort::Error<ort::session::builder::SessionBuilder>| error.to_string();
    Session::builder(environment)
        .map_err(|error| error.to_string())?
        .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])
        .map_err(text)?
        .with_memory_pattern(false)
        .map_err(text)?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(text)?
        .with_disabled_optimizers(SLOWER_FUSIONS)
        .map_err(text)?
        .with_operators(operators::domain().map_err(|error| error.to_string())?)
        .map_err(text)?
        .with_log_level(LogLevel::Warning)
        .map_err(text)?
        .commit_from_memory(bytes)
        .map_err(|error| error.to_string())
}

fn failed(library: &Path, reason: &str) -> Error {
    Error::Library {
        path: library.to_path_buf(),
        reason: reason.to_owned(),
    }
}

fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => {}
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => {
            tracing::error!(target: "onnxruntime", location, "{message}");
        }
    }
}

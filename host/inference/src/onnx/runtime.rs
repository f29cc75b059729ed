//! Loads the ONNX Runtime library, once per process and only when a model needs it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::Session;

use crate::error::Error;

static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The environment, loading the library on first use.
pub(crate) fn environment(library: &Path) -> Result<Environment, Error> {
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
    let environment = ort::init_from(library)
        .map_err(|error| failed(library, &error.to_string()))?
        .with_name("formwork")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| failed(library, &error.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    *loaded = Some((library.to_path_buf(), environment.clone()));
    Ok(environment)
}

/// A session over verified bytes: `threads` threads without spinning, no arena (it grows to the
/// largest batch ever seen and never shrinks).
pub(crate) fn session(environment: &Environment, bytes: &[u8], threads: usize) -> Result<Session, String> {
    let text = |error: ort::Error<ort::session::builder::SessionBuilder>| error.to_string();
    Session::builder(environment)
        .map_err(|error| error.to_string())?
        .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])
        .map_err(text)?
        .with_memory_pattern(false)
        .map_err(text)?
        .with_intra_threads(threads)
        .map_err(text)?
        .with_inter_threads(1)
        .map_err(text)?
        .with_intra_op_spinning(false)
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

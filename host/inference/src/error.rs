//! Everything that can go wrong, as values.
//!
//! Problem: a caller three crates away must tell "your text is too long" from "the machine is busy".
//! Promise: each failure is one variant with a stable [`Error::code`]; nothing in this crate aborts
//! the process on input. Cost: callers match. Rejected: one opaque error with a message, because
//! retry policy and HTTP status are decided by kind.

use std::path::PathBuf;

/// What a call or a start answers instead of a result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No model of that name is declared. The caller's fault, or the configuration's.
    #[error("unknown model: {name} (declared: {})", list(.known))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names declared.
        known: Vec<String>,
    },
    /// The model exists but does something else.
    #[error("model {model} is a {actual}, it cannot {wanted}")]
    WrongTask {
        /// The model's name.
        model: String,
        /// What the model is: `encoder`, `generator` or `graph`.
        actual: &'static str,
        /// What was asked of it: `embed`, `generate` or `run`.
        wanted: &'static str,
    },
    /// An argument is malformed; the text says which and why. Retrying is useless.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// An argument is well formed but over a limit. Retrying is useless.
    #[error("too large: {what} is limited to {limit}, got {got}")]
    TooLarge {
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit, in that unit.
        limit: u64,
        /// What was given, in that unit.
        got: u64,
    },
    /// A file's sha256 is not the declared one.
    #[error("wrong sha256 of {}: expected {expected}, found {actual}", .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The declared digest, lowercase hex.
        expected: String,
        /// The digest of the file's bytes, lowercase hex.
        actual: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {reason} (missing files are fetched by: make setup)", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// A file is what was declared, but not a model this crate can load.
    #[error("not a usable model file: {}: {reason}", .path.display())]
    BadModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where known at which byte.
        reason: String,
    },
    /// The ONNX Runtime library cannot be loaded.
    #[error("cannot load onnx runtime from {}: {reason}", .path.display())]
    Library {
        /// The library's file.
        path: PathBuf,
        /// The loader's reason.
        reason: String,
    },
    /// The model's queue is full. Retry later.
    #[error("busy: the queue of model {model} is full ({limit} waiting)")]
    Busy {
        /// The model's name.
        model: String,
        /// How many calls may wait.
        limit: usize,
    },
    /// The model is not loaded and finds no memory: what is loaded is in use or pinned, or the model is larger than all that
    /// models may take. Retry later, or change what the text names.
    #[error("{}", no_memory(.model, *.needed, *.budget, .held_by))]
    Memory {
        /// The model's name.
        model: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that all models may take.
        budget: u64,
        /// The loaded models that could not make room.
        held_by: Vec<String>,
    },
    /// The model could not be loaded a short while ago, and it is too early to try again.
    #[error("model {model} could not be loaded, to be tried again in {retry_seconds} s: {reason}")]
    LoadFailed {
        /// The model's name.
        model: String,
        /// Why, as the first call heard it.
        reason: String,
        /// When a call will try again, in seconds from now.
        retry_seconds: u64,
    },
    /// The model cannot be unloaded: calls are using it.
    #[error("model {model} is in use by {calls} calls: try again when they are done")]
    InUse {
        /// The model's name.
        model: String,
        /// How many.
        calls: usize,
    },
    /// The call's deadline passed; the work was given up.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// The call was cancelled; the work was given up.
    #[error("cancelled")]
    Cancelled,
    /// The service is stopping, or has stopped.
    #[error("inference is shutting down")]
    ShuttingDown,
    /// The native library failed. Not the caller's fault; retrying may help.
    #[error("native inference failed: {0}")]
    Native(String),
}

impl Error {
    /// A stable name for logs, metrics and wire formats.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } => "unknown-model",
            Self::WrongTask { .. } => "wrong-task",
            Self::InvalidArgument(_) => "invalid-argument",
            Self::TooLarge { .. } => "too-large",
            Self::Checksum { .. } => "checksum",
            Self::File { .. } => "file",
            Self::BadModelFile { .. } => "bad-model-file",
            Self::Library { .. } => "library",
            Self::Busy { .. } => "busy",
            Self::Memory { .. } => "memory",
            Self::LoadFailed { .. } => "load-failed",
            Self::InUse { .. } => "in-use",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Cancelled => "cancelled",
            Self::ShuttingDown => "shutting-down",
            Self::Native(_) => "native",
        }
    }
}

fn no_memory(model: &str, needed: u64, budget: u64, held_by: &[String]) -> String {
    let (needed, budget) = (needed >> 20, budget >> 20);
    if held_by.is_empty() {
        return format!(
            "no memory for model {model}: it needs {needed} MiB, all models may take {budget} MiB: raise inference.memory_bytes"
        );
    }
    format!(
        "no memory for model {model}: it needs {needed} of {budget} MiB, and these are in use or pinned: {}; try again, \
         unpin or unload one, or raise inference.memory_bytes",
        held_by.join(", ")
    )
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

//! What can go wrong in a store, as far as a caller can act on it.

use crate::{SubmissionId, TaskId};
use std::path::PathBuf;

/// A store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store did not do what was asked. Outcomes that callers expect (stale, already finished, replayed)
/// are values of the methods, not errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The form, or that version of it, does not exist. The caller's mistake.
    #[error("unknown form: {id}{}", version.map(|v| format!(" version {v}")).unwrap_or_default())]
    UnknownForm {
        /// The form.
        id: String,
        /// The version, if one was named.
        version: Option<u32>,
    },
    /// The task does not exist. The caller's mistake.
    #[error("unknown task: {0}")]
    UnknownTask(TaskId),
    /// Another submission has this id. The caller must make a new one.
    #[error("submission id is already used: {0}")]
    DuplicateSubmission(SubmissionId),
    /// The form's steps are no pipeline. The caller's mistake; the message has the place.
    #[error(transparent)]
    Pipeline(#[from] formwork_tasks::PlanError),
    /// An argument that cannot be right, such as a cursor that no page returned.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Something is larger than a store keeps in one piece. Never repeat it: it will not become smaller.
    #[error("{what} of {bytes} bytes is too large, a store keeps at most {most} bytes of it")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// What it may have.
        most: usize,
    },
    /// Another process has this store open.
    #[error("{path} is in use by another process ({holder}), stop it or use another file")]
    Locked {
        /// The database file.
        path: PathBuf,
        /// What the lock file says about the holder.
        holder: String,
    },
    /// The library or the file is of a version this program cannot work with.
    #[error("unsupported {what}: found {found}, need {need}")]
    Unsupported {
        /// The library, setting or schema.
        what: &'static str,
        /// What there is.
        found: String,
        /// What is needed.
        need: String,
    },
    /// The disk is full. Nothing was recorded; the store goes on once there is room again.
    #[error("disk full at {operation}, nothing was recorded, free some space")]
    Full {
        /// What was being done.
        operation: &'static str,
    },
    /// The store met an I/O error while writing and acknowledges nothing any more. Whether this write is on
    /// disk is unknown. Restart the process once the disk is sound.
    #[error("store stopped after an i/o error, check the disk and restart: {0}")]
    Fatal(String),
    /// The database cannot be reached now, or others were always faster. Whether a write was recorded is unknown:
    /// repeat it, with the same idempotency key or run lease.
    #[error("database not available ({operation}), try again: {source}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// What the backend said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
    /// Anything else the backend reports; nothing was recorded.
    #[error("store failed at {operation}: {source}")]
    Backend {
        /// What was being done.
        operation: &'static str,
        /// What the backend said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn backend(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Backend {
            operation,
            source: source.into(),
        }
    }
}

//! Which SQLite errors a store survives.
//!
//! After a failed write or fsync the kernel may have dropped the dirty pages and will not say so again; a
//! retry that "succeeds" proves nothing. So an I/O error while writing stops the store for good.

use crate::Error;
use rusqlite::{ErrorCode, ffi};

/// Turns an error of rusqlite into the store's, at the named operation.
pub(super) fn sql(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |error| convert(operation, error)
}

fn convert(operation: &'static str, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full { operation },
        Some(
            ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ReadOnly,
        ) => Error::Fatal(format!("{operation}: {error}")),
        _ => Error::backend(operation, error),
    }
}

/// Whether an insert met a row with the same key.
pub(super) fn is_duplicate(error: &rusqlite::Error) -> bool {
    error
        .sqlite_extended_error_code()
        .is_some_and(|code| code == ffi::SQLITE_CONSTRAINT_PRIMARYKEY || code == ffi::SQLITE_CONSTRAINT_UNIQUE)
}

//! What a store refuses because of its size, before it writes anything; the same over every backend.
//!
//! Without this a backend would find out in the middle of a transaction, and say so anew at every attempt.

use crate::{Error, NewForm, NewSubmission, Result, TaskResult, limits::DOCUMENT_BYTES};

/// Refuses a form whose definition is too large.
pub(crate) fn check_form(form: &NewForm) -> Result<()> {
    // The steps, which are kept beside it, are a small part of it.
    check("form definition", form.definition.len())
}

/// Refuses submissions whose data, together, is too large.
pub(crate) fn check_submissions(submissions: &[NewSubmission]) -> Result<()> {
    check(
        "submission",
        submissions.iter().map(|submission| submission.data.len()).sum(),
    )
}

/// Refuses a result whose output and export chunk, together, are too large.
pub(crate) fn check_result(result: &TaskResult) -> Result<()> {
    let chunk = result.export.as_ref().map_or(0, |chunk| chunk.bytes.len());
    check("result", result.output.len() + chunk)
}

fn check(what: &'static str, bytes: usize) -> Result<()> {
    if bytes <= DOCUMENT_BYTES {
        return Ok(());
    }
    Err(Error::TooLarge {
        what,
        bytes,
        most: DOCUMENT_BYTES,
    })
}

//! What every peer does: validate a submission against the form of `host/server/bench`.
//!
//! The schema stands in the guest, as it would for somebody who writes one component for one form; it is compiled on
//! first use and kept for as long as the instance lives. So a fresh instance compiles it for each call, a warm one once,
//! and one that was pre-initialised ([`initialise`] before its memory was saved) never.

use std::sync::OnceLock;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};

const FORM: &str = include_str!("../../../../../host/server/bench/form.json");
const SUBMISSION: &str = include_str!("../../../../../host/server/bench/submission.json");

/// Bounds of patterns, as `plugins/validate` sets them: they change which engine the patterns run in.
const BACKTRACK_STEPS: usize = 100_000;
const PATTERN_BYTES: usize = 1 << 20;

static VALIDATOR: OnceLock<Result<Validator, String>> = OnceLock::new();

/// The findings on a submission, as JSON text.
pub fn answer(submission: &[u8]) -> String {
    let validator = match VALIDATOR.get_or_init(compile) {
        Ok(validator) => validator,
        Err(error) => return json!({ "error": error }).to_string(),
    };
    let data: Value = match serde_json::from_slice(submission) {
        Ok(data) => data,
        Err(error) => return json!({ "error": format!("is not JSON: {error}") }).to_string(),
    };
    if validator.is_valid(&data) {
        return r#"{"valid":true,"findings":[]}"#.to_owned();
    }
    let findings: Vec<Value> = validator
        .iter_errors(&data)
        .map(|error| json!({ "pointer": error.instance_path().to_string(), "message": error.to_string() }))
        .collect();
    json!({ "valid": false, "findings": findings }).to_string()
}

/// Compiles the schema and validates once, so that all of it is in a snapshot that is taken afterwards.
pub fn initialise() {
    answer(SUBMISSION.as_bytes());
}

fn compile() -> Result<Validator, String> {
    let form: Value = serde_json::from_str(FORM).map_err(|error| error.to_string())?;
    jsonschema::options()
        .should_validate_formats(true)
        .with_pattern_options(
            PatternOptions::fancy_regex()
                .backtrack_limit(BACKTRACK_STEPS)
                .size_limit(PATTERN_BYTES),
        )
        .build(&form["schema"])
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_submission_is_valid_and_another_is_not() {
        assert_eq!(answer(SUBMISSION.as_bytes()), r#"{"valid":true,"findings":[]}"#);
        assert!(answer(b"{\"rating\":9}").starts_with("{\"valid\":false"));
        assert!(answer(b"{").starts_with("{\"error\""));
    }
}

//! Small constructors that make plugin code read well.

use crate::bindings::host::host_types::HostError;
use crate::bindings::types::{Error, Finding, Problem, Severity};

impl Finding {
    /// A finding that rejects the submission.
    pub fn error(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code.into(),
            message: message.into(),
            severity: Severity::Error,
            details: Vec::new(),
        }
    }

    /// The same finding, only a hint.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: &serde_json::Value) -> Self {
        self.details.push((name.to_owned(), value.to_string()));
        self
    }
}

impl Problem {
    /// A problem at `pointer`.
    pub fn new(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code.into(),
            message: message.into(),
        }
    }
}

impl Error {
    /// One problem in the settings.
    pub fn settings(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidSettings(vec![Problem::new(pointer, code, message)])
    }

    /// One problem in the form's schema.
    pub fn form(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidForm(vec![Problem::new(pointer, code, message)])
    }

    /// One problem in the submission.
    pub fn input(pointer: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidInput(vec![Problem::new(pointer, code, message)])
    }
}

impl From<HostError> for Error {
    /// What may pass becomes `unavailable`, so that the host tries again; a refusal for good becomes `internal`.
    fn from(error: HostError) -> Self {
        match error {
            HostError::Unavailable(why) => Self::Unavailable(why),
            HostError::DeadlineExceeded => Self::Unavailable("the deadline passed in a host call".into()),
            HostError::Cancelled => Self::Unavailable("cancelled in a host call".into()),
            HostError::Denied(grant) => Self::Internal(format!("the grant `{grant}` is missing")),
            HostError::UnknownModel(why) => Self::Unavailable(why),
            HostError::InvalidArgument(why) => Self::Internal(format!("host call refused: {why}")),
            HostError::LimitExceeded(limit) => Self::Internal(format!(
                "host call refused: {} is limited to {}, asked for {}",
                limit.name, limit.limit, limit.asked
            )),
            HostError::Internal(why) => Self::Internal(format!("host fault: {why}")),
        }
    }
}

//! What is wrong with a form definition, and where.

use serde::Serialize;

/// One thing wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// JSON Pointer into the form definition.
    pub pointer: String,
    /// A stable code.
    pub code: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(pointer: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            code: code.into(),
            message: message.into(),
        }
    }
}

/// Why a form definition is refused. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the form definition has {} problem(s): {}", problems.len(), first(problems))]
pub struct DefinitionError {
    /// Everything found, at least one.
    pub problems: Vec<Problem>,
}

impl DefinitionError {
    pub(crate) fn one(problem: Problem) -> Self {
        Self {
            problems: vec![problem],
        }
    }

    pub(crate) fn unless_empty(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self { problems })
        }
    }
}

fn first(problems: &[Problem]) -> String {
    problems
        .first()
        .map(|problem| format!("at `{}`: {}", problem.pointer, problem.message))
        .unwrap_or_default()
}

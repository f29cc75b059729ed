//! Exit codes, so that scripts can tell what went wrong without reading messages.

use std::process::ExitCode;

/// Why a command failed; decides the exit code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Exit code 1: what was asked did not work.
    #[error("{}", whole(.0))]
    Failed(anyhow::Error),
    /// Exit code 2: the command or the configuration cannot be right.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3: the thing named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Exit code 4: the server understood and refused.
    #[error("{0}")]
    Rejected(String),
    /// Exit code 5: no server answers.
    #[error("{0}")]
    Unreachable(String),
}

impl Failure {
    /// The process's exit code; documented in `formwork --help`.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Rejected(_) => 4,
            Self::Unreachable(_) => 5,
        }
    }

    /// Any error of exit code 1.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<crate::serve::StartError> for Failure {
    fn from(error: crate::serve::StartError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<&Failure> for ExitCode {
    fn from(failure: &Failure) -> Self {
        Self::from(failure.code())
    }
}

/// An error with its causes. Most of ours name their cause themselves: it is not said twice.
fn whole(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

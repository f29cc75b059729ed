//! What can be wrong with a manifest or with the file that carries it.

/// Why a manifest was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the manifest's format; `at` is the key path (`limits.cpu_ms`).
    #[error("manifest key `{at}`: {message}")]
    Syntax {
        /// Key path of the offending value, `.` for the whole document.
        at: String,
        /// What is wrong.
        message: String,
    },
    /// A value has the right type and a wrong content.
    #[error("manifest key `{key}`: {message}")]
    Invalid {
        /// Key path of the offending value.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
    /// The manifest is larger than the parser accepts.
    #[error("the manifest has {got} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Size found, in bytes.
        got: usize,
        /// Largest size accepted, in bytes.
        limit: usize,
    },
    /// The file is not a WebAssembly component.
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// The component carries no manifest.
    #[error("the component has no `formwork:manifest` section: build it with `formwork plugin build`")]
    Missing,
    /// The component carries several manifests.
    #[error("the component has more than one `formwork:manifest` section")]
    Duplicate,
}

impl Error {
    pub(crate) fn invalid(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.into(),
            message: shown(message.into()),
        }
    }
}

/// Longest text of a manifest's author inside an error, bytes: errors are logged and shown, a megabyte is neither.
const MAX_SHOWN: usize = 512;

/// The beginning of a text that may be the author's.
pub(crate) fn shown(mut text: String) -> String {
    if text.len() > MAX_SHOWN {
        text.truncate(text.floor_char_boundary(MAX_SHOWN));
        text.push('…');
    }
    text
}

//! Smaller weights for a generator, by llama.cpp's own quantiser.
//!
//! Problem: a hub offers the weights as 16-bit numbers, and a CPU reads a quarter of them four times as fast. Promise: what goes
//! in and what comes out passes the header checks of a load; an existing file is never overwritten, and a run that is broken
//! off leaves none under the wanted name. Cost: the size of both files on disk, some seconds for 135 million parameters.
//! Rejected: llama.cpp's command-line tool, which would be one more thing to build and to keep at the same version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{gguf_header, native};
use crate::error::Error;
use crate::inspect::{ModelFile, inspect};

/// How numbers are kept. Larger first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantisation {
    /// 8.5 bits a weight: nobody has been able to tell it from 16.
    Q8_0,
    /// 6.6 bits.
    Q6K,
    /// 5.7 bits.
    Q5KM,
    /// 4.8 bits: the usual choice.
    Q4KM,
    /// 5 bits, the older scheme, for models whose rows are no multiple of 256.
    Q4_1,
    /// 4.5 bits, the older scheme.
    Q4_0,
}

impl Quantisation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Q8_0, Self::Q6K, Self::Q5KM, Self::Q4KM, Self::Q4_1, Self::Q4_0];

    /// Its name, as llama.cpp and the hubs write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
            Self::Q5KM => "Q5_K_M",
            Self::Q4KM => "Q4_K_M",
            Self::Q4_1 => "Q4_1",
            Self::Q4_0 => "Q4_0",
        }
    }
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Quantisation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::as_str).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("unknown quantisation {text}, expected one of {known}"))
    }
}

/// Writes the weights of `from` to `to`, quantised. Weights that are quantised already lose more than those that are not, so
/// that takes `requantise`.
///
/// # Errors
/// [`Error::File`] and [`Error::BadModelFile`] for either file, also when `to` exists; [`Error::Native`] for what llama.cpp
/// says.
pub fn quantise(
    from: &Path,
    to: &Path,
    kind: Quantisation,
    requantise: bool,
    threads: usize,
) -> Result<ModelFile, Error> {
    gguf_header::check(from)?;
    let file = |path: &Path, reason: String| Error::File {
        path: path.to_path_buf(),
        reason,
    };
    if to.exists() {
        return Err(file(to, "it exists already, and is not overwritten".to_owned()));
    }
    let part = PathBuf::from(format!("{}.part", to.display()));
    let written = native::quantise(from, &part, kind, requantise, threads)
        .map_err(|reason| Error::Native(format!("quantising {}: {reason}", from.display())))
        .and_then(|()| gguf_header::check(&part))
        .and_then(|_| std::fs::rename(&part, to).map_err(|error| file(to, error.to_string())));
    if let Err(error) = written {
        // It may not have come into being.
        let _removed = std::fs::remove_file(&part);
        return Err(error);
    }
    inspect(to)
}

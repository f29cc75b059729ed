//! What a model file is, without loading it: for people who are about to declare one.

use std::fmt;
use std::io::Read;
use std::path::Path;

use crate::error::Error;
use crate::file_check;
use crate::limits;
use crate::llama::gguf_header;
use crate::onnx::onnx_header;

/// A file whose header passed the checks of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// sha256 of its bytes, lowercase hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// What its header says.
    pub header: Header,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Header {
    /// Weights for llama.cpp: a `generator`.
    Gguf {
        /// Such as `llama`.
        architecture: String,
        /// Tensors in the file.
        tensors: u64,
        /// Numbers in all of them.
        parameters: u64,
    },
    /// A graph for ONNX Runtime: an `encoder` or a `graph`.
    Onnx {
        /// Version of the format.
        ir_version: u64,
        /// Nodes of the outer graph.
        nodes: u64,
        /// Tensors of the outer graph.
        initialisers: u64,
    },
}

impl Header {
    /// Checks a file's header as a load does. A file that begins with `GGUF` is one, every other is read as ONNX.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::TooLarge`], [`Error::BadModelFile`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let mut magic = [0; 4];
        let read = file_check::open(path)?.read(&mut magic);
        let read = read.map_err(|error| file_check::unreadable(path, &error))?;
        if &magic[..read] == b"GGUF" {
            let summary = gguf_header::check(path)?;
            return Ok(Self::Gguf {
                architecture: summary.architecture,
                tensors: summary.tensors,
                parameters: summary.parameters,
            });
        }
        let bytes = file_check::read(path, limits::MAX_ONNX_BYTES)?;
        let summary = onnx_header::check(&bytes).map_err(|reason| Error::BadModelFile {
            path: path.to_path_buf(),
            reason,
        })?;
        Ok(Self::Onnx {
            ir_version: summary.ir_version,
            nodes: summary.nodes,
            initialisers: summary.initialisers,
        })
    }
}

/// Checks a file's header and hashes the file.
///
/// # Errors
/// Those of [`Header::read`].
pub fn inspect(path: &Path) -> Result<ModelFile, Error> {
    let header = Header::read(path)?;
    let (sha256, bytes) = file_check::digest(path)?;
    Ok(ModelFile { sha256, bytes, header })
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf {
                architecture,
                tensors,
                parameters,
            } => {
                let millions = parameters / 1_000_000;
                write!(
                    f,
                    "GGUF, architecture {architecture}, {tensors} tensors, {millions} million parameters"
                )
            }
            Self::Onnx {
                ir_version,
                nodes,
                initialisers,
            } => write!(
                f,
                "ONNX, IR version {ir_version}, {nodes} nodes, {initialisers} tensors"
            ),
        }
    }
}

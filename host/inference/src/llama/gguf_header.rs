//! Walks a GGUF header within the file's bounds before llama.cpp maps it.
//!
//! Promise: magic, version, counts, every string, array and tensor lie inside the file; a tensor of a type whose size is not
//! known here is refused, because nobody could say where it ends. Memory is bounded by the limits, not by what the file
//! announces. Cost: the header is read once (SmolLM2: 1.8 MB, milliseconds). Rejected: trusting llama.cpp's own checks,
//! which have been the subject of memory-safety advisories.

use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::Error;
use crate::file_check;
use crate::limits;

const MAGIC: [u8; 4] = *b"GGUF";
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_KEY_BYTES: u64 = 65_535;
const MAX_TENSOR_NAME_BYTES: u64 = 64;
const MAX_DIMENSIONS: u32 = 4;
const TYPE_U32: u32 = 4;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// What a sound header says.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) architecture: String,
    pub(crate) tensors: u64,
    pub(crate) parameters: u64,
}

/// What the header says, if it is sound.
pub(crate) fn check(path: &Path) -> Result<Summary, Error> {
    let file = file_check::open(path)?;
    let size = file
        .metadata()
        .map_err(|error| file_check::unreadable(path, &error))?
        .len();
    let mut header = Header {
        source: BufReader::new(file),
        at: 0,
        size,
    };
    header.walk().map_err(|reason| Error::BadModelFile {
        path: path.to_path_buf(),
        reason: format!("GGUF header: {reason} (at byte {} of {size})", header.at),
    })
}

struct Header<R> {
    source: R,
    at: u64,
    size: u64,
}

impl<R: Read> Header<R> {
    fn walk(&mut self) -> Result<Summary, String> {
        let magic = self.bytes::<4>()?;
        if magic != MAGIC {
            return Err(format!("magic is {magic:02x?}, not \"GGUF\""));
        }
        let version = self.u32()?;
        if !VERSIONS.contains(&version) {
            return Err(format!("version {version} is not supported (2 and 3 are)"));
        }
        let tensors = self.count("tensors", limits::MAX_GGUF_TENSORS)?;
        let keys = self.count("keys", limits::MAX_GGUF_KEYS)?;
        let mut alignment = DEFAULT_ALIGNMENT;
        let mut architecture = Vec::new();
        for _ in 0..keys {
            let key = self.string(MAX_KEY_BYTES)?;
            let kind = self.u32()?;
            match (key.as_slice(), kind) {
                (b"general.alignment", TYPE_U32) => alignment = u64::from(self.u32()?),
                (b"general.alignment", other) => {
                    return Err(format!("general.alignment has type {other}, not u32"));
                }
                (b"general.architecture", TYPE_STRING) => {
                    architecture = self.string(MAX_KEY_BYTES)?;
                }
                _ => self.skip_value(kind)?,
            }
        }
        if architecture.is_empty() {
            return Err("general.architecture is missing".to_owned());
        }
        if !alignment.is_power_of_two() {
            return Err(format!("alignment {alignment} is not a power of two"));
        }
        if tensors == 0 {
            return Err("no tensors".to_owned());
        }
        let mut extents = Vec::new();
        let mut parameters = 0_u64;
        for _ in 0..tensors {
            let (elements, offset, length) = self.tensor(alignment)?;
            parameters = parameters.saturating_add(elements);
            extents.push((offset, length));
        }
        let data = self.at.div_ceil(alignment).saturating_mul(alignment);
        for (offset, length) in extents {
            let end = data.checked_add(offset).and_then(|start| start.checked_add(length));
            if end.is_none_or(|end| end > self.size) {
                return Err(format!(
                    "a tensor at offset {offset} with {length} bytes ends behind the file"
                ));
            }
        }
        Ok(Summary {
            architecture: String::from_utf8_lossy(&architecture).into_owned(),
            tensors,
            parameters,
        })
    }

    /// Elements, offset and length of the next tensor.
    fn tensor(&mut self, alignment: u64) -> Result<(u64, u64, u64), String> {
        self.string(MAX_TENSOR_NAME_BYTES)?;
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "a tensor has {dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed"
            ));
        }
        let (mut elements, mut row) = (1_u64, 1_u64);
        for dimension in 0..dimensions {
            let size = self.u64()?;
            if dimension == 0 {
                row = size;
            }
            elements = elements
                .checked_mul(size)
                .filter(|product| *product > 0 && i64::try_from(*product).is_ok())
                .ok_or_else(|| "a tensor's size is zero or overflows".to_owned())?;
        }
        let kind = self.u32()?;
        let offset = self.u64()?;
        if offset % alignment != 0 {
            return Err(format!("a tensor's offset {offset} is not a multiple of {alignment}"));
        }
        let (per_block, block_bytes) =
            block(kind).ok_or_else(|| format!("a tensor has the type {kind}, whose size is not known"))?;
        if row % per_block != 0 {
            return Err(format!(
                "a tensor's rows of {row} elements are not made of blocks of {per_block}"
            ));
        }
        let length = (elements / per_block)
            .checked_mul(block_bytes)
            .ok_or_else(|| "a tensor's size overflows".to_owned())?;
        Ok((elements, offset, length))
    }

    fn skip_value(&mut self, kind: u32) -> Result<(), String> {
        match kind {
            TYPE_STRING => {
                let length = self.u64()?;
                self.skip(length)
            }
            TYPE_ARRAY => {
                let inner = self.u32()?;
                let length = self.u64()?;
                if inner == TYPE_STRING {
                    for _ in 0..length {
                        let bytes = self.u64()?;
                        self.skip(bytes)?;
                    }
                    return Ok(());
                }
                let width = scalar_bytes(inner)
                    .ok_or_else(|| format!("an array has elements of type {inner}, which is not allowed"))?;
                self.skip(length.checked_mul(width).ok_or("an array's size overflows")?)
            }
            other => {
                let width = scalar_bytes(other).ok_or_else(|| format!("unknown value type {other}"))?;
                self.skip(width)
            }
        }
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, String> {
        let count = self.u64()?;
        if count > limit {
            return Err(format!("{count} {what}, at most {limit} are allowed"));
        }
        Ok(count)
    }

    fn string(&mut self, limit: u64) -> Result<Vec<u8>, String> {
        let length = self.u64()?;
        if length > limit {
            return Err(format!("a name of {length} bytes, at most {limit} are allowed"));
        }
        self.within(length)?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        self.source.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        self.at += length;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> Result<(), String> {
        self.within(length)?;
        let skipped = std::io::copy(&mut self.source.by_ref().take(length), &mut std::io::sink())
            .map_err(|error| error.to_string())?;
        self.at += skipped;
        if skipped == length {
            Ok(())
        } else {
            Err("the file ends early".to_owned())
        }
    }

    fn within(&self, length: u64) -> Result<(), String> {
        if length > self.size.saturating_sub(self.at) {
            return Err(format!(
                "{length} bytes are announced, the file has {} left",
                self.size - self.at
            ));
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.within(N as u64)?;
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }
}

fn scalar_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Elements and bytes of one block, from ggml's type table.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        24 => (1, 1),
        27 | 28 => (1, 8),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 36),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        29 => (256, 56),
        34 => (256, 54),
        39 => (32, 17),
        40 => (64, 36),
        41 => (128, 18),
        42 => (64, 18),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::block;
    use crate::llama::native;

    #[test]
    fn sizes_are_those_of_ggml() {
        for kind in 0..native::tensor_types() + 20 {
            assert_eq!(block(kind), native::tensor_block(kind), "type {kind}");
        }
    }
}

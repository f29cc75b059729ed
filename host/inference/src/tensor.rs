//! Tensors as callers hand them in and get them back: row-major, owned, no native memory.

use crate::error::Error;
use crate::limits;

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TensorData {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// 32-bit signed integers.
    I32(Vec<i32>),
    /// Bytes.
    U8(Vec<u8>),
}

impl TensorData {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U8(v) => v.len(),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(v) => size_of_val(v.as_slice()),
            Self::I64(v) => size_of_val(v.as_slice()),
            Self::I32(v) => size_of_val(v.as_slice()),
            Self::U8(v) => v.len(),
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::I64(_) => "i64",
            Self::I32(_) => "i32",
            Self::U8(_) => "u8",
        }
    }
}

/// A tensor: the product of `shape` is the number of elements in `data`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Size of each dimension, outermost first; each at least 1.
    pub shape: Vec<u32>,
    /// The elements.
    pub data: TensorData,
}

impl Tensor {
    /// Checks rank, dimensions and element count.
    pub(crate) fn validate(&self, name: &str) -> Result<(), Error> {
        if self.shape.len() > limits::MAX_RANK {
            return Err(Error::TooLarge {
                what: "dimensions of a tensor",
                limit: limits::MAX_RANK as u64,
                got: self.shape.len() as u64,
            });
        }
        if self.shape.contains(&0) {
            return Err(Error::InvalidArgument(format!("tensor {name}: a dimension is 0")));
        }
        let elements = self
            .shape
            .iter()
            .try_fold(1_u64, |product, size| product.checked_mul(u64::from(*size)));
        if elements == Some(self.data.len() as u64) {
            Ok(())
        } else {
            Err(Error::InvalidArgument(format!(
                "tensor {name}: shape {:?} does not hold {} elements",
                self.shape,
                self.data.len()
            )))
        }
    }
}

//! Embeddings with the arithmetic a classifier needs.

use crate::bindings::host::embeddings;
use crate::bindings::types::Error;

/// A vector of length 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Cosine similarity, -1 to 1.
    pub fn similarity(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }

    /// The numbers.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }
}

/// Embeds texts with the encoder `model`, one vector a text.
///
/// # Errors
/// What the host refused, as a plugin's error.
pub fn embed(model: &str, texts: &[String]) -> Result<Vec<Embedding>, Error> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let embedded = embeddings::embed(model, texts)?;
    let width = (embedded.dimensions as usize).max(1);
    Ok(embedded
        .vectors
        .chunks_exact(width)
        .map(|row| Embedding(row.to_vec()))
        .collect())
}

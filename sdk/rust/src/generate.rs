//! A whole generation with the probability of each part of its text.

use crate::bindings::host::generation::{self, Request, Summary};
use crate::bindings::types::Error;

/// A finished generation.
#[derive(Debug)]
pub struct Generated {
    /// The whole text.
    pub text: String,
    /// (byte offset where a piece ends, its log probability, its tokens), in order.
    pieces: Vec<(usize, f32, u32)>,
    /// What it took.
    pub summary: Option<Summary>,
}

impl Generated {
    /// The geometric mean of the token probabilities of `text[start..end]`, 0 to 1.
    pub fn probability(&self, start: usize, end: usize) -> f32 {
        let mut begin = 0;
        let (mut logprob, mut tokens) = (0.0, 0_u32);
        for &(stop, piece_logprob, piece_tokens) in &self.pieces {
            if begin < end && stop > start {
                logprob += piece_logprob;
                tokens += piece_tokens;
            }
            begin = stop;
        }
        if tokens == 0 {
            0.0
        } else {
            (logprob / tokens as f32).exp().clamp(0.0, 1.0)
        }
    }
}

/// Runs a generation to its end.
///
/// # Errors
/// What the host refused, as a plugin's error.
pub fn generate(model: &str, request: &Request) -> Result<Generated, Error> {
    let completion = generation::start(model, request)?;
    let mut text = String::new();
    let mut pieces = Vec::new();
    while let Some(chunk) = completion.next()? {
        text.push_str(&chunk.text);
        pieces.push((text.len(), chunk.logprob, chunk.tokens));
    }
    Ok(Generated {
        text,
        pieces,
        summary: completion.summary(),
    })
}

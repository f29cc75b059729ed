//! Turns texts into unit vectors: tokenise, batch, run, mean-pool, normalise.
//!
//! Promise: the vector of a text is the mean of its token states under the attention mask, of length
//! one. Batches hold texts of similar length within a token budget. Cost: texts beyond the window are
//! cut, and the answer says so.

use std::borrow::Cow;

use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{Tensor as Native, ValueType};
use tokenizers::{Tokenizer, TruncationParams};

use super::embedding_cache::Embedded;
use super::graph::native;
use crate::error::Error;
use crate::limits;

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";
const STATES: &str = "last_hidden_state";

pub(crate) struct Encoder {
    tokenizer: Tokenizer,
    max_tokens: usize,
    batch_tokens: usize,
    wants_types: bool,
    output: String,
}

/// The tokens of one text.
struct Tokens {
    index: usize,
    ids: Vec<i64>,
    truncated: bool,
}

impl Encoder {
    /// `tokenizer`: the bytes of a `tokenizer.json`. Errors are reasons.
    pub(crate) fn new(
        session: &Session,
        tokenizer: &[u8],
        max_tokens: usize,
        batch_tokens: usize,
    ) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|error| format!("tokenizer: {error}"))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: max_tokens,
                ..TruncationParams::default()
            }))
            .map_err(|error| format!("tokenizer: {error}"))?;
        let names: Vec<&str> = session.inputs().iter().map(|input| input.name()).collect();
        if let Some(unknown) = names.iter().find(|name| ![IDS, MASK, TYPES].contains(name)) {
            return Err(format!(
                "the graph wants an input {unknown}, which an encoder does not have"
            ));
        }
        if !names.contains(&IDS) || !names.contains(&MASK) {
            return Err(format!("the graph lacks the inputs {IDS} and {MASK}"));
        }
        let outputs = session.outputs();
        let output = outputs
            .iter()
            .find(|output| output.name() == STATES)
            .or(outputs.first())
            .filter(|output| matches!(output.dtype(), ValueType::Tensor { shape, .. } if shape.len() == 3))
            .ok_or_else(|| format!("the graph lacks an output {STATES} of [texts, tokens, dimensions]"))?;
        Ok(Self {
            tokenizer,
            max_tokens,
            batch_tokens,
            wants_types: names.contains(&TYPES),
            output: output.name().to_owned(),
        })
    }

    /// The texts' vectors in their order, and the tokens read. `step` is called around each piece of
    /// work: it checks whether the call is still wanted and holds the permit.
    pub(crate) fn embed(
        &self,
        session: &mut Session,
        texts: &[String],
        options: &RunOptions,
        mut step: impl FnMut(&mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(Vec<Embedded>, usize), Error> {
        let mut tokens = Vec::with_capacity(texts.len());
        for (part, group) in texts.chunks(limits::MAX_BATCH_TEXTS).enumerate() {
            step(&mut || {
                for (offset, text) in group.iter().enumerate() {
                    tokens.push(self.tokenise(part * limits::MAX_BATCH_TEXTS + offset, text)?);
                }
                Ok(())
            })?;
        }
        let total = tokens.iter().map(|text| text.ids.len()).sum();
        tokens.sort_by_key(|text| text.ids.len());
        let mut embedded: Vec<Option<Embedded>> = vec![None; texts.len()];
        let mut rest = tokens.as_slice();
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(self.batch_size(rest));
            step(&mut || self.run(session, batch, options, &mut embedded))?;
            rest = others;
        }
        let vectors = embedded
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::Native("a text was not embedded".to_owned()))?;
        Ok((vectors, total))
    }

    fn tokenise(&self, index: usize, text: &str) -> Result<Tokens, Error> {
        let cut = cut(text, self.max_tokens * limits::TEXT_BYTES_PER_TOKEN);
        let encoding = self
            .tokenizer
            .encode(Cow::Borrowed(cut), true)
            .map_err(|error| Error::Native(format!("tokenizer: {error}")))?;
        Ok(Tokens {
            index,
            ids: encoding.get_ids().iter().map(|id| i64::from(*id)).collect(),
            truncated: cut.len() < text.len() || !encoding.get_overflowing().is_empty(),
        })
    }

    /// How many of the sorted texts fit into one run; at least one.
    fn batch_size(&self, sorted: &[Tokens]) -> usize {
        let fitting = sorted
            .iter()
            .enumerate()
            .take(limits::MAX_BATCH_TEXTS)
            .take_while(|(index, text)| (index + 1) * text.ids.len() <= self.batch_tokens)
            .count();
        fitting.max(1)
    }

    fn run(
        &self,
        session: &mut Session,
        batch: &[Tokens],
        options: &RunOptions,
        embedded: &mut [Option<Embedded>],
    ) -> Result<(), Error> {
        let width = batch.iter().map(|text| text.ids.len()).max().unwrap_or(0);
        let shape = [batch.len(), width];
        let mut ids = vec![0_i64; batch.len() * width];
        let mut mask = ids.clone();
        for (row, text) in batch.iter().enumerate() {
            let start = row * width;
            ids[start..start + text.ids.len()].copy_from_slice(&text.ids);
            mask[start..start + text.ids.len()].fill(1);
        }
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(3);
        if self.wants_types {
            inputs.push((
                TYPES,
                Native::from_array((shape, vec![0_i64; ids.len()]))
                    .map_err(native)?
                    .into(),
            ));
        }
        inputs.push((IDS, Native::from_array((shape, ids)).map_err(native)?.into()));
        inputs.push((MASK, Native::from_array((shape, mask)).map_err(native)?.into()));
        let outputs = session.run_with_options(inputs, options).map_err(native)?;
        let value = outputs
            .get(&self.output)
            .ok_or_else(|| Error::Native(format!("the graph gave no {}", self.output)))?;
        let (shape, states) = value.try_extract_tensor::<f32>().map_err(native)?;
        let dimensions = match shape[..] {
            [rows, columns, dimensions] if rows == batch.len() as i64 && columns == width as i64 && dimensions > 0 => {
                usize::try_from(dimensions).unwrap_or(usize::MAX)
            }
            _ => {
                return Err(Error::Native(format!("the graph gave {} as {shape:?}", self.output)));
            }
        };
        for (states, text) in states.chunks_exact(width * dimensions).zip(batch) {
            embedded[text.index] = Some(Embedded {
                vector: pool(&states[..text.ids.len() * dimensions], dimensions)?.into(),
                truncated: text.truncated,
            });
        }
        Ok(())
    }
}

/// Mean over the tokens, scaled to length one.
fn pool(states: &[f32], dimensions: usize) -> Result<Vec<f32>, Error> {
    let mut sum = vec![0_f32; dimensions];
    for state in states.chunks_exact(dimensions) {
        for (total, value) in sum.iter_mut().zip(state) {
            *total += value;
        }
    }
    let length = sum.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return Err(Error::Native("the encoder's output has no direction".to_owned()));
    }
    for value in &mut sum {
        *value = (f64::from(*value) / length) as f32;
    }
    Ok(sum)
}

/// The longest start of `text` of at most `limit` bytes that ends between characters.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

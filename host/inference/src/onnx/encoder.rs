//! Turns texts into unit vectors: tokenise, run, mean-pool, normalise.
//!
//! Promise: the vector of a text is the mean of its token states under the attention mask, of length one. Cost: texts
//! beyond the window are cut, and the answer says so. What runs together is decided in [`super::batch`].

use std::borrow::Cow;

use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{Tensor as Native, ValueType};
use serde_json::Value;
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
    window: Window,
    wants_types: bool,
    output: String,
}

/// The tokens of one text.
pub(crate) struct Tokens {
    /// The text's place in its call.
    pub(crate) index: usize,
    pub(crate) ids: Vec<i64>,
    /// Whether the text has more tokens than the model reads.
    pub(crate) truncated: bool,
}

impl Encoder {
    /// `tokenizer`: the bytes of a `tokenizer.json`. Errors are reasons.
    pub(crate) fn new(session: &Session, tokenizer: &[u8], max_tokens: usize) -> Result<Self, String> {
        let window = Window::new(tokenizer, max_tokens);
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
            window,
            wants_types: names.contains(&TYPES),
            output: output.name().to_owned(),
        })
    }

    /// Tokens of a text that are read.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    pub(crate) fn tokenise(&self, index: usize, text: &str) -> Result<Tokens, Error> {
        let encoding = self
            .tokenizer
            .encode_fast(Cow::Borrowed(self.window.cut(text)), true)
            .map_err(|error| Error::Native(format!("tokenizer: {error}")))?;
        Ok(Tokens {
            index,
            ids: encoding.get_ids().iter().map(|id| i64::from(*id)).collect(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }

    /// The vectors of a batch, in its order. Texts are padded to the longest of them.
    pub(crate) fn run<'a>(
        &self,
        session: &mut Session,
        batch: impl ExactSizeIterator<Item = &'a Tokens> + Clone,
        options: &RunOptions,
    ) -> Result<Vec<Embedded>, Error> {
        let rows = batch.len();
        let width = batch.clone().map(|text| text.ids.len()).max().unwrap_or(0);
        let shape = [rows, width];
        let mut ids = vec![0_i64; rows * width];
        let mut mask = ids.clone();
        for (row, text) in batch.clone().enumerate() {
            let start = row * width;
            ids[start..start + text.ids.len()].copy_from_slice(&text.ids);
            mask[start..start + text.ids.len()].fill(1);
        }
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(3);
        if self.wants_types {
            let types = vec![0_i64; ids.len()];
            inputs.push((TYPES, Native::from_array((shape, types)).map_err(native)?.into()));
        }
        inputs.push((IDS, Native::from_array((shape, ids)).map_err(native)?.into()));
        inputs.push((MASK, Native::from_array((shape, mask)).map_err(native)?.into()));
        let outputs = session.run_with_options(inputs, options).map_err(native)?;
        let value = outputs
            .get(&self.output)
            .ok_or_else(|| Error::Native(format!("the graph gave no {}", self.output)))?;
        let (shape, states) = value.try_extract_tensor::<f32>().map_err(native)?;
        let dimensions = match shape[..] {
            [got_rows, columns, dimensions] if got_rows == rows as i64 && columns == width as i64 && dimensions > 0 => {
                usize::try_from(dimensions).unwrap_or(usize::MAX)
            }
            _ => {
                return Err(Error::Native(format!("the graph gave {} as {shape:?}", self.output)));
            }
        };
        states
            .chunks_exact(width * dimensions)
            .zip(batch)
            .map(|(states, text)| {
                Ok(Embedded {
                    vector: pool(&states[..text.ids.len() * dimensions], dimensions)?.into(),
                    truncated: text.truncated,
                })
            })
            .collect()
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
    let scale = (1.0 / length) as f32;
    for value in &mut sum {
        *value *= scale;
    }
    Ok(sum)
}

/// How much of a text can matter.
///
/// A tokenizer spends time and memory on everything it is given, also on what the window then cuts off. Every part of a
/// text that is a token at least is counted, and the text ends where there are more of them than the window holds: the
/// tokens within the window are the same as those of the whole text. Texts without such parts (one endless word) are
/// given whole, bounded by [`limits::MAX_EMBED_BYTES`].
struct Window {
    parts: usize,
    /// The tokenizer splits at punctuation and around ideographs, as BERT's does.
    bert: bool,
}

impl Window {
    fn new(tokenizer: &[u8], max_tokens: usize) -> Self {
        let bert = serde_json::from_slice::<Value>(tokenizer).is_ok_and(|tokenizer| {
            let kind = |part: &str| tokenizer[part]["type"].as_str().map(str::to_owned);
            kind("pre_tokenizer").as_deref() == Some("BertPreTokenizer")
                && kind("normalizer").as_deref() == Some("BertNormalizer")
                && tokenizer["normalizer"]["handle_chinese_chars"].as_bool() == Some(true)
        });
        Self {
            parts: max_tokens + limits::WINDOW_MARGIN_PARTS,
            bert,
        }
    }

    fn cut<'t>(&self, text: &'t str) -> &'t str {
        // Fewer bytes than parts cannot hold too many.
        if text.len() <= self.parts {
            return text;
        }
        let mut parts = 0;
        let mut in_word = false;
        for (at, character) in text.char_indices() {
            let whole = self.bert && (character.is_ascii_punctuation() || is_ideograph(character));
            if parts >= self.parts && (character.is_whitespace() || whole) {
                return &text[..at];
            }
            if whole {
                parts += 1;
                in_word = false;
            } else if character.is_whitespace() {
                in_word = false;
            } else if character.is_ascii_alphanumeric() && !in_word {
                parts += 1;
                in_word = true;
            }
        }
        text
    }
}

/// The block of common ideographs: each is a word of its own to BERT's tokenizer.
fn is_ideograph(character: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&character)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test that cannot go on says where"
    )]

    use proptest::prelude::*;
    use tokenizers::{Tokenizer, TruncationParams};

    use super::Window;
    use crate::onnx::test_files;

    const MAX_TOKENS: usize = 16;

    fn tokens(tokenizer: &Tokenizer, text: &str) -> (Vec<u32>, bool) {
        let encoding = tokenizer.encode_fast(text, true).unwrap();
        (encoding.get_ids().to_vec(), !encoding.get_overflowing().is_empty())
    }

    /// Words, marks, accents that vanish, ideographs, controls, and long runs of the same.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9]{1,12}",
            "[!-/:-@]{1,3}",
            " {1,40}",
            "\\PC{1,6}",
            "[\u{300}-\u{320}\u{1}\u{200b}]{1,3}",
            "[\u{4e00}-\u{4e20}]{1,30}",
            "[a-z]{90,130}",
            Just("\n\t".to_owned()),
        ]
    }

    #[test]
    fn a_text_cut_before_the_tokenizer_has_the_tokens_of_the_whole() {
        let file = test_files::model("all-MiniLM-L6-v2-tokenizer.json");
        let mut tokenizer = Tokenizer::from_bytes(&file).unwrap();
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length: MAX_TOKENS,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(truncation)).unwrap();
        let window = Window::new(&file, MAX_TOKENS);
        assert!(window.bert);
        let cut = std::cell::Cell::new(0);
        proptest!(ProptestConfig::with_cases(2_000), |(pieces in prop::collection::vec(piece(), 0..120))| {
            let text = pieces.concat();
            let start = window.cut(&text);
            prop_assert_eq!(tokens(&tokenizer, start), tokens(&tokenizer, &text));
            cut.set(cut.get() + usize::from(start.len() < text.len()));
        });
        assert!(cut.get() > 500, "only {} of 2,000 texts were cut", cut.get());
        let long = "word ".repeat(100_000);
        assert!(window.cut(&long).len() < 200);
        assert!(window.cut(&"字".repeat(100_000)).len() < 200);
    }
}

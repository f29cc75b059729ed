//! Picks the next token.
//!
//! Promise: greedy at temperature 0; else seeded, so that the same request gives the same text; the
//! reported log-probability is the model's own, before grammar and temperature; a grammar's refusal
//! is a value. Cost: one pass over the vocabulary per token. The grammar is asked about the likeliest
//! tokens first and about all of them only if none fits. Rejected: llama.cpp's sampler chain, which
//! accepts inside the same call and aborts the process where `try_accept` returns an error.

use llama_cpp_2::json_schema_to_grammar;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

use crate::error::Error;
use crate::limits;

const GRAMMAR_ROOT: &str = "root";

pub(crate) struct Sampler {
    grammar: Option<LlamaSampler>,
    temperature: f32,
    random: SplitMix,
}

/// A token and its ln p.
pub(crate) struct Drawn {
    pub(crate) token: LlamaToken,
    pub(crate) logprob: f32,
}

impl Sampler {
    /// `schema` must have passed [`super::schema_guard::admit`].
    pub(crate) fn new(model: &LlamaModel, schema: Option<&str>, temperature: f32, seed: u64) -> Result<Self, Error> {
        let grammar = match schema {
            None => None,
            Some(schema) => Some(grammar(model, schema)?),
        };
        Ok(Self {
            grammar,
            temperature,
            random: SplitMix(seed),
        })
    }

    /// Draws a token from `logits`; `never` are tokens that must not appear (control tokens).
    pub(crate) fn draw(&mut self, logits: &[f32], never: &[LlamaToken]) -> Result<Drawn, Error> {
        let log_total = log_sum_exp(logits);
        if !log_total.is_finite() {
            return Err(Error::Native("the model's output is not finite".to_owned()));
        }
        let mut allowed = logits.to_vec();
        for token in never {
            if let Some(logit) = usize::try_from(token.0).ok().and_then(|index| allowed.get_mut(index)) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let mut index = self.pick(&allowed)?;
        if self.refuses(index) {
            allowed[index] = f32::NEG_INFINITY;
            index = self.pick_within_grammar(&mut allowed)?;
        }
        Ok(Drawn {
            token: token(index)?,
            logprob: logits[index] - log_total,
        })
    }

    /// Tells the grammar what was drawn. Not for end-of-generation tokens.
    pub(crate) fn accept(&mut self, token: LlamaToken) -> Result<(), Error> {
        match &mut self.grammar {
            None => Ok(()),
            Some(grammar) => grammar
                .try_accept(token)
                .map_err(|error| Error::Native(format!("the grammar refused its own token: {error}"))),
        }
    }

    fn pick(&mut self, logits: &[f32]) -> Result<usize, Error> {
        let best = best(logits).ok_or_else(|| Error::Native("no token is possible".to_owned()))?;
        if self.temperature <= 0.0 {
            return Ok(best);
        }
        let weight = |logit: f32| {
            let weight = ((logit - logits[best]) / self.temperature).exp();
            if weight < limits::MIN_P { 0.0 } else { weight }
        };
        let total: f32 = logits.iter().map(|logit| weight(*logit)).sum();
        let mut left = self.random.unit() * total;
        for (index, logit) in logits.iter().enumerate() {
            let weight = weight(*logit);
            if weight > 0.0 {
                left -= weight;
                if left <= 0.0 {
                    return Ok(index);
                }
            }
        }
        Ok(best)
    }

    fn refuses(&mut self, index: usize) -> bool {
        let Some(grammar) = &mut self.grammar else {
            return false;
        };
        let Ok(token) = token(index) else { return true };
        !verdict(grammar, vec![LlamaTokenData::new(token, 0.0, 0.0)])
            .first()
            .is_some_and(|data| data.logit().is_finite())
    }

    fn pick_within_grammar(&mut self, allowed: &mut [f32]) -> Result<usize, Error> {
        let Some(grammar) = &mut self.grammar else {
            return self.pick(allowed);
        };
        if self.temperature <= 0.0 {
            let shortlist = likeliest(allowed, limits::GRAMMAR_SHORTLIST);
            let data = shortlist
                .iter()
                .map(|index| Ok(LlamaTokenData::new(token(*index)?, allowed[*index], 0.0)))
                .collect::<Result<Vec<_>, Error>>()?;
            let fits = verdict(grammar, data).iter().position(|data| data.logit().is_finite());
            if let Some(at) = fits {
                return Ok(shortlist[at]);
            }
        }
        let data = allowed
            .iter()
            .enumerate()
            .map(|(index, logit)| Ok(LlamaTokenData::new(token(index)?, *logit, 0.0)))
            .collect::<Result<Vec<_>, Error>>()?;
        for (logit, data) in allowed.iter_mut().zip(verdict(grammar, data)) {
            *logit = data.logit();
        }
        self.pick(allowed)
    }
}

/// The candidates with refused ones at minus infinity, in the same order.
fn verdict(grammar: &mut LlamaSampler, candidates: Vec<LlamaTokenData>) -> Vec<LlamaTokenData> {
    let mut candidates = LlamaTokenDataArray::new(candidates, false);
    candidates.apply_sampler(grammar);
    candidates.data
}

fn grammar(model: &LlamaModel, schema: &str) -> Result<LlamaSampler, Error> {
    let unusable = |reason: String| Error::InvalidArgument(format!("json schema cannot constrain output: {reason}"));
    let text = json_schema_to_grammar(schema).map_err(|error| unusable(error.to_string()))?;
    LlamaSampler::grammar(model, &text, GRAMMAR_ROOT).map_err(|error| unusable(error.to_string()))
}

fn token(index: usize) -> Result<LlamaToken, Error> {
    i32::try_from(index)
        .map(LlamaToken)
        .map_err(|error| Error::Native(error.to_string()))
}

fn best(logits: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (index, logit) in logits.iter().enumerate() {
        if logit.is_finite() && best.is_none_or(|(_, known)| *logit > known) {
            best = Some((index, *logit));
        }
    }
    best.map(|(index, _)| index)
}

/// Indices of the `count` largest finite logits, largest first.
fn likeliest(logits: &[f32], count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..logits.len()).filter(|index| logits[*index].is_finite()).collect();
    let by_logit = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]);
    if indices.len() > count {
        indices.select_nth_unstable_by(count, by_logit);
        indices.truncate(count);
    }
    indices.sort_unstable_by(by_logit);
    indices
}

fn log_sum_exp(logits: &[f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + logits.iter().map(|logit| (logit - max).exp()).sum::<f32>().ln()
}

/// A small seeded generator: the same seed gives the same text on every platform.
struct SplitMix(u64);

impl SplitMix {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 24 bits are what an f32 holds exactly.
        (z >> 40) as f32 / (1_u32 << 24) as f32
    }
}

//! Picks the next token.
//!
//! Promise: greedy at temperature 0; else seeded, so that the same request gives the same text; the
//! reported log-probability is the model's own, before grammar and temperature; a grammar's refusal
//! is a value. The result is that of a grammar applied to the whole vocabulary and then min-p, but
//! the grammar is asked about the drawn token first, and about others, likeliest first, only if that
//! is refused. Cost: two passes over the logits per token, no copy of them, no allocation once the
//! buffers have grown. Rejected: llama.cpp's sampler chain, which builds a candidate per token of the
//! vocabulary each time, and aborts the process where [`Grammar::accept`] answers an error.

use super::native::{Candidate, Grammar, Token};
use crate::error::Error;
use crate::limits;

/// Numbers summed side by side: what an AVX-512 register holds, and a multiple of the others'.
const LANES: usize = 16;

pub(crate) struct Sampler<'m> {
    grammar: Option<Grammar<'m>>,
    temperature: f32,
    random: SplitMix,
    /// How often the drawn token was refused by the grammar.
    fallbacks: u32,
    candidates: Vec<Candidate>,
}

/// A token and its ln p.
pub(crate) struct Drawn {
    pub(crate) token: Token,
    pub(crate) logprob: f32,
}

impl<'m> Sampler<'m> {
    pub(crate) fn new(grammar: Option<Grammar<'m>>, temperature: f32, seed: u64) -> Self {
        Self {
            grammar,
            temperature,
            random: SplitMix(seed),
            fallbacks: 0,
            candidates: Vec::new(),
        }
    }

    /// Draws a token from `logits`; `never` are tokens that must not appear, in ascending order.
    pub(crate) fn draw(&mut self, logits: &[f32], never: &[Token]) -> Result<Drawn, Error> {
        let (likeliest, highest) = likeliest(logits).ok_or_else(impossible)?;
        let log_total = highest + sum_exp(logits, highest).ln();
        if !log_total.is_finite() {
            return Err(Error::Native("the model's output is not finite".to_owned()));
        }
        let banned = |token: Token| never.binary_search_by_key(&token.0, |token| token.0).is_ok();
        let best = if banned(token(likeliest)) {
            self.widen(logits, highest, &banned, &mut |_| {})?
        } else {
            likeliest
        };
        let free = self.pick_near(best, logits, &banned, &mut |_| {})?;
        let index = if self.refuses(free) {
            self.fallbacks = self.fallbacks.saturating_add(1);
            self.pick_within_grammar(logits, highest, &banned)?
        } else {
            free
        };
        let logit = logits.get(index).copied().ok_or_else(impossible)?;
        Ok(Drawn {
            token: token(index),
            logprob: logit - log_total,
        })
    }

    /// Tells the grammar what was drawn. Not for end-of-generation tokens.
    pub(crate) fn accept(&mut self, token: Token) -> Result<(), Error> {
        match &mut self.grammar {
            None => Ok(()),
            Some(grammar) => grammar.accept(token).map_err(Error::Native),
        }
    }

    pub(crate) fn fallbacks(&self) -> u32 {
        self.fallbacks
    }

    /// Draws among the tokens that min-p leaves next to the likeliest one and `judge` does not refuse.
    fn pick_near(
        &mut self,
        best: usize,
        logits: &[f32],
        banned: &impl Fn(Token) -> bool,
        judge: &mut dyn FnMut(&mut [Candidate]),
    ) -> Result<usize, Error> {
        if self.temperature <= 0.0 {
            return Ok(best);
        }
        let highest = logits.get(best).copied().ok_or_else(impossible)?;
        self.fill(logits, highest + self.temperature * limits::MIN_P.ln(), banned);
        judge(&mut self.candidates);
        let weight = |candidate: &Candidate| ((candidate.logit - highest) / self.temperature).exp();
        let total: f32 = self.candidates.iter().map(weight).sum();
        let mut left = self.random.unit() * total;
        for candidate in &self.candidates {
            let weight = weight(candidate);
            left -= weight;
            if weight > 0.0 && left <= 0.0 {
                return usize::try_from(candidate.id).map_err(|_| impossible());
            }
        }
        Ok(best)
    }

    /// Fills the candidates with all tokens of at least that logit, in the vocabulary's order.
    fn fill(&mut self, logits: &[f32], least: f32, banned: &impl Fn(Token) -> bool) {
        self.candidates.clear();
        for (index, logit) in logits.iter().enumerate() {
            if *logit >= least && *logit > f32::NEG_INFINITY && !banned(token(index)) {
                self.candidates.push(candidate(token(index), *logit));
            }
        }
    }

    fn refuses(&mut self, index: usize) -> bool {
        let Some(grammar) = &mut self.grammar else {
            return false;
        };
        let mut asked = [candidate(token(index), 0.0)];
        grammar.judge(&mut asked);
        !asked[0].logit.is_finite()
    }

    fn pick_within_grammar(
        &mut self,
        logits: &[f32],
        highest: f32,
        banned: &impl Fn(Token) -> bool,
    ) -> Result<usize, Error> {
        let Some(mut grammar) = self.grammar.take() else {
            return Err(impossible());
        };
        let mut judge = |candidates: &mut [Candidate]| grammar.judge(candidates);
        let picked = self
            .widen(logits, highest, banned, &mut judge)
            .and_then(|best| self.pick_near(best, logits, banned, &mut judge));
        self.grammar = Some(grammar);
        picked
    }

    /// The likeliest token that `judge` leaves: it is shown tokens in descending order, ever more.
    fn widen(
        &mut self,
        logits: &[f32],
        highest: f32,
        banned: &impl Fn(Token) -> bool,
        judge: &mut dyn FnMut(&mut [Candidate]),
    ) -> Result<usize, Error> {
        let mut asked = 0;
        for depth in limits::GRAMMAR_DEPTHS {
            self.fill(logits, highest - depth, banned);
            // Stable, so that equal logits keep the order of the vocabulary: what was asked before
            // is the same beginning again.
            self.candidates.sort_by(|a, b| b.logit.total_cmp(&a.logit));
            let mut part = limits::GRAMMAR_SHORTLIST;
            while asked < self.candidates.len() {
                let end = (asked + part).min(self.candidates.len());
                let shown = &mut self.candidates[asked..end];
                judge(shown);
                if let Some(fits) = shown.iter().find(|candidate| candidate.logit.is_finite()) {
                    return usize::try_from(fits.id).map_err(|_| impossible());
                }
                asked = end;
                part *= 4;
            }
        }
        Err(impossible())
    }
}

fn impossible() -> Error {
    Error::Native("no token is possible".to_owned())
}

fn token(index: usize) -> Token {
    // A vocabulary is counted in `i32`.
    Token(i32::try_from(index).unwrap_or(i32::MAX))
}

fn candidate(token: Token, logit: f32) -> Candidate {
    Candidate {
        id: token.0,
        logit,
        p: 0.0,
    }
}

/// Index and value of the largest logit, the first of equals; `None` without a finite one.
fn likeliest(logits: &[f32]) -> Option<(usize, f32)> {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let index = logits.iter().position(|logit| *logit == highest)?;
    highest.is_finite().then_some((index, highest))
}

/// Sum of `exp(logit - highest)`.
fn sum_exp(logits: &[f32], highest: f32) -> f32 {
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp(*logit - highest);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|logit| exp(logit - highest)).sum::<f32>()
}

/// `e^x` for `x` at most 0, off by less than 1e-6 of it, without a branch or call, so that a loop over
/// it becomes vector instructions (49,152 logits: 20 us instead of 200).
fn exp(x: f32) -> f32 {
    // e^x = 2^(n + f), n whole, f in [-0.5, 0.5]. Below 2^-126 it is as good as 0.
    let power = (x * std::f32::consts::LOG2_E).max(-126.0);
    // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = power + SHIFT;
    let f = (power - (shifted - SHIFT)) * std::f32::consts::LN_2;
    let polynomial =
        1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0))))));
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    polynomial * scale
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

#[cfg(test)]
mod tests {
    use super::{Sampler, Token, exp, likeliest, sum_exp};

    #[test]
    fn the_fast_exponential_is_the_exponential() {
        for step in 0..8_700_u16 {
            let x = -f32::from(step) / 100.0;
            let (fast, exact) = (f64::from(exp(x)), f64::from(x).exp());
            // The argument is rounded to an f32: half a unit of its last place is that much of the result.
            let rounding = f64::from(x.abs()) * f64::from(f32::EPSILON);
            assert!(
                (fast - exact).abs() <= exact * (2e-6 + rounding) + 1e-37,
                "{x}: {fast} {exact}"
            );
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn the_first_of_the_largest_logits_is_found_wherever_it_is() {
        let mut logits = vec![0.5_f32; 37];
        for at in [0, 15, 16, 31, 32, 36] {
            logits[at] = 2.0;
            assert_eq!(likeliest(&logits), Some((at, 2.0)));
            logits[at] = 0.5;
        }
        assert_eq!(likeliest(&logits), Some((0, 0.5)));
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 20]), None);
        assert!((sum_exp(&[0.0; 37], 0.0) - 37.0).abs() < 1e-3);
    }

    #[test]
    fn a_banned_token_is_not_drawn_however_likely() {
        let logits = [1.0, 9.0, 3.0, -60.0];
        for temperature in [0.0, 0.01] {
            let mut sampler = Sampler::new(None, temperature, 7);
            assert_eq!(sampler.draw(&logits, &[Token(1)]).unwrap().token, Token(2));
            let far = sampler.draw(&logits, &[Token(0), Token(1), Token(2)]);
            assert_eq!(far.unwrap().token, Token(3));
        }
        let none = [Token(0), Token(1), Token(2), Token(3)];
        assert!(Sampler::new(None, 0.0, 7).draw(&logits, &none).is_err());
    }

    #[test]
    fn draws_follow_their_weights() {
        let logits = [0.0_f32, 2.0_f32.ln()];
        let mut sampler = Sampler::new(None, 1.0, 1);
        let ones = (0..3_000)
            .filter(|_| sampler.draw(&logits, &[]).is_ok_and(|drawn| drawn.token == Token(1)))
            .count();
        assert!((1_900..2_100).contains(&ones), "{ones}");
    }
}

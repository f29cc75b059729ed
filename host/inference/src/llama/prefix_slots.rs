//! Remembers which prompts are already evaluated, so that a shared beginning is not evaluated again.
//!
//! Promise: the longest common token prefix with any kept prompt is reused. Measured elsewhere: a
//! 400-token system prompt costs 2 s cold and nothing warm. Cost: cache memory per slot. Rejected:
//! copying prefixes between slots (a cache copy for a case that least-recently-used covers).

use llama_cpp_2::token::LlamaToken;

use crate::limits;

#[derive(Debug)]
pub(crate) struct PrefixSlots {
    slots: Vec<Slot>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// The tokens whose state the native cache holds for this sequence.
    tokens: Vec<LlamaToken>,
    used: u64,
}

impl PrefixSlots {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            slots: (0..count.max(1)).map(|_| Slot::default()).collect(),
            clock: 0,
        }
    }

    /// The slot to use for a prompt, and how many of its tokens are already there. Always leaves at
    /// least one token to evaluate, because that one's output starts the text.
    pub(crate) fn choose(&mut self, prompt: &[LlamaToken]) -> (usize, usize) {
        self.clock += 1;
        let usable = prompt.len().saturating_sub(1);
        let shared = |slot: &Slot| {
            slot.tokens
                .iter()
                .zip(&prompt[..usable])
                .take_while(|(kept, wanted)| kept == wanted)
                .count()
        };
        let longest = (0..self.slots.len())
            .max_by_key(|index| shared(&self.slots[*index]))
            .unwrap_or(0);
        let oldest = (0..self.slots.len())
            .min_by_key(|index| self.slots[*index].used)
            .unwrap_or(0);
        let worth_it = shared(&self.slots[longest]) * limits::PREFIX_MATCH_DIVISOR >= prompt.len();
        let index = if worth_it { longest } else { oldest };
        let reused = shared(&self.slots[index]);
        self.slots[index].used = self.clock;
        (index, reused)
    }

    /// Tokens evaluated in a slot.
    pub(crate) fn len(&self, index: usize) -> usize {
        self.slots[index].tokens.len()
    }

    pub(crate) fn truncate(&mut self, index: usize, length: usize) {
        self.slots[index].tokens.truncate(length);
    }

    pub(crate) fn extend(&mut self, index: usize, tokens: &[LlamaToken]) {
        self.slots[index].tokens.extend_from_slice(tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::PrefixSlots;
    use llama_cpp_2::token::LlamaToken;

    fn tokens(ids: impl IntoIterator<Item = i32>) -> Vec<LlamaToken> {
        ids.into_iter().map(LlamaToken).collect()
    }

    #[test]
    fn two_forms_keep_a_prefix_each() {
        let mut slots = PrefixSlots::new(2);
        let first = tokens(0..20);
        let second = tokens(100..120);
        for prompt in [&first, &second] {
            let (index, reused) = slots.choose(prompt);
            assert_eq!(reused, 0);
            slots.extend(index, prompt);
        }
        let (a, reused_a) = slots.choose(&tokens((0..15).chain([500, 501])));
        let (b, reused_b) = slots.choose(&tokens((100..118).chain([600])));
        assert_ne!(a, b);
        assert_eq!((reused_a, reused_b), (15, 18));
    }

    #[test]
    fn one_token_is_always_left_to_evaluate() {
        let mut slots = PrefixSlots::new(1);
        let prompt = tokens(0..8);
        let (index, _) = slots.choose(&prompt);
        slots.extend(index, &prompt);
        assert_eq!(slots.choose(&prompt), (0, 7));
    }
}

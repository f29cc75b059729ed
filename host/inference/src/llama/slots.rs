//! Which native sequence holds which tokens.
//!
//! Promise: the longest common beginning with any free sequence is found and reused in place. Cost:
//! cache memory per sequence. What a sequence loses when another text takes it lives on in
//! [`super::prefix_cache`], if it was the prefix of a form.

use super::native::Token;

#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// The tokens whose state the native sequence holds.
    tokens: Vec<Token>,
    used: u64,
    busy: bool,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self {
            slots: (0..count.max(1)).map(|_| Slot::default()).collect(),
            clock: 0,
        }
    }

    /// The free slot that shares the longest beginning with a prompt, and how long that is.
    pub(crate) fn longest(&self, prompt: &[Token]) -> Option<(usize, usize)> {
        self.free()
            .map(|(index, slot)| (index, shared(&slot.tokens, prompt)))
            .max_by_key(|(_, shared)| *shared)
    }

    /// The free slot that was not used for longest.
    pub(crate) fn oldest(&self) -> Option<usize> {
        self.free().min_by_key(|(_, slot)| slot.used).map(|(index, _)| index)
    }

    pub(crate) fn take(&mut self, index: usize) {
        self.clock += 1;
        self.slots[index].used = self.clock;
        self.slots[index].busy = true;
    }

    pub(crate) fn give_back(&mut self, index: usize) {
        self.slots[index].busy = false;
    }

    pub(crate) fn any_free(&self) -> bool {
        self.free().next().is_some()
    }

    /// Tokens evaluated in a slot.
    pub(crate) fn tokens(&self, index: usize) -> &[Token] {
        &self.slots[index].tokens
    }

    pub(crate) fn truncate(&mut self, index: usize, length: usize) {
        self.slots[index].tokens.truncate(length);
    }

    pub(crate) fn extend(&mut self, index: usize, tokens: &[Token]) {
        self.slots[index].tokens.extend_from_slice(tokens);
    }

    fn free(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy)
    }
}

/// Tokens that both begin with; at least one of the prompt is left to evaluate, because that one's
/// output starts the text.
pub(crate) fn shared(kept: &[Token], prompt: &[Token]) -> usize {
    let usable = prompt.len().saturating_sub(1);
    kept.iter()
        .zip(&prompt[..usable])
        .take_while(|(kept, wanted)| kept == wanted)
        .count()
}

#[cfg(test)]
mod tests {
    use super::{Slots, Token};

    fn tokens(ids: impl IntoIterator<Item = i32>) -> Vec<Token> {
        ids.into_iter().map(Token).collect()
    }

    #[test]
    fn a_prompt_finds_the_slot_it_shares_most_with_unless_that_is_busy() {
        let mut slots = Slots::new(2);
        slots.extend(0, &tokens(0..20));
        slots.extend(1, &tokens(100..120));
        let prompt = tokens((100..118).chain([600]));
        assert_eq!(slots.longest(&prompt), Some((1, 18)));
        slots.take(1);
        assert_eq!(slots.longest(&prompt), Some((0, 0)));
        assert_eq!(slots.oldest(), Some(0));
        slots.give_back(1);
        assert_eq!(slots.oldest(), Some(0));
        slots.take(0);
        slots.give_back(0);
        assert_eq!(slots.oldest(), Some(1));
    }

    #[test]
    fn one_token_is_always_left_to_evaluate() {
        let mut slots = Slots::new(1);
        slots.extend(0, &tokens(0..8));
        assert_eq!(slots.longest(&tokens(0..8)), Some((0, 7)));
    }
}

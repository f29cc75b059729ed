//! One generation between its first and its last step.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::completion::{Chunk, Event};
use super::native::Token;
use super::sampling::Sampler;
use super::text_stream::TextStream;
use crate::call::CallContext;

pub(crate) struct Sequence<'m> {
    pub(crate) prompt: Vec<Token>,
    /// Tokens of the prompt up to the user's text.
    pub(crate) prefix: usize,
    /// Tokens of the prompt whose evaluation was reused.
    pub(crate) cached: usize,
    pub(crate) sampler: Sampler<'m>,
    pub(crate) stream: TextStream,
    pub(crate) max_tokens: u32,
    pub(crate) output_tokens: u32,
    /// Drawn, and to be evaluated next.
    pub(crate) next: Option<Token>,
    pub(crate) place: Place,
    /// Output tokens when it was given its slot: how long it may be set aside for others.
    pub(crate) tokens_at_turn: u32,
    /// The actor's step in which it was last looked after; texts of one flow take turns.
    pub(crate) stepped: u64,
    pub(crate) call: CallContext,
    pub(crate) events: UnboundedSender<Event>,
    pub(crate) queued: Instant,
    pub(crate) begun: Instant,
    pub(crate) first_token: Option<Instant>,
}

/// Where a generation's state is.
#[derive(Debug)]
pub(crate) enum Place {
    /// In a native sequence.
    Slot(usize),
    /// Set aside for others: the evaluated tokens and their state.
    Aside {
        tokens: Vec<Token>,
        state: Vec<u8>,
        since: Instant,
    },
}

impl Sequence<'_> {
    pub(crate) fn slot(&self) -> Option<usize> {
        match self.place {
            Place::Slot(slot) => Some(slot),
            Place::Aside { .. } => None,
        }
    }

    pub(crate) fn send(&self, text: String, tokens: u32, logprob: f32) {
        // A dropped reader also cancels the call, which the next look sees.
        let _ = self.events.send(Event::Chunk(Chunk { text, tokens, logprob }));
    }
}

//! What a caller asks of a generator and how the text comes back: a stream that can be dropped.

use tokio::sync::mpsc::UnboundedReceiver;

use crate::call::CallContext;
use crate::error::Error;
use crate::limits;
use crate::model::ModelId;
use crate::residency::Lease;

/// One generation. The model's chat template is applied to `system` and `prompt`; markers of the
/// template within them stay text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationRequest {
    /// What the model is told to be; may be empty. Equal system texts share evaluated state.
    pub system: String,
    /// What the user says.
    pub prompt: String,
    /// Most tokens to generate, at least 1. Also bounded by the room left in the context.
    pub max_tokens: u32,
    /// 0 takes the likeliest token always; up to 2.
    pub temperature: f32,
    /// Equal seeds give equal texts (on the same machine, model and version). Unused at temperature 0.
    pub seed: u64,
    /// The text ends before the first of these, which is not part of it.
    pub stop: Vec<String>,
    /// A JSON schema the text will validate against if it ends with [`FinishReason::Stop`]. A bounded
    /// subset is accepted: `type`, `properties`, `required`, `additionalProperties`, `items`, `anyOf`,
    /// `enum`, `const`, length and item counts, integer bounds, simple anchored `pattern`s, and the
    /// formats date, time, date-time, uuid. Properties that are not declared do not appear.
    pub json_schema: Option<String>,
}

impl GenerationRequest {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let bytes = self.system.len() + self.prompt.len();
        if bytes > limits::MAX_PROMPT_BYTES {
            return Err(Error::TooLarge {
                what: "bytes of system and prompt",
                limit: limits::MAX_PROMPT_BYTES as u64,
                got: bytes as u64,
            });
        }
        if self.max_tokens == 0 {
            return Err(Error::InvalidArgument("max_tokens must be at least 1".to_owned()));
        }
        if !(0.0..=limits::MAX_TEMPERATURE).contains(&self.temperature) {
            return Err(Error::InvalidArgument(format!(
                "temperature must be 0 to {}, got {}",
                limits::MAX_TEMPERATURE,
                self.temperature
            )));
        }
        if self.stop.len() > limits::MAX_STOP_STRINGS {
            return Err(Error::TooLarge {
                what: "stop strings",
                limit: limits::MAX_STOP_STRINGS as u64,
                got: self.stop.len() as u64,
            });
        }
        for stop in &self.stop {
            if stop.is_empty() {
                return Err(Error::InvalidArgument("a stop string is empty".to_owned()));
            }
            if stop.len() > limits::MAX_STOP_BYTES {
                return Err(Error::TooLarge {
                    what: "bytes of a stop string",
                    limit: limits::MAX_STOP_BYTES as u64,
                    got: stop.len() as u64,
                });
            }
        }
        Ok(())
    }
}

/// A piece of generated text, usually one token.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Whole characters; may be empty while a character or a stop string is incomplete.
    pub text: String,
    /// Tokens that this chunk took.
    pub tokens: u32,
    /// Sum of ln p of those tokens under the model's own distribution, before grammar and temperature:
    /// near 0 where the model was sure.
    pub logprob: f32,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it, or a stop string was met.
    Stop,
    /// `max_tokens` or the context was used up; JSON may be incomplete.
    Length,
}

/// What a finished generation took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Which model answered.
    pub model: ModelId,
    /// Why the text ended.
    pub reason: FinishReason,
    /// Tokens of the prompt, template included.
    pub prompt_tokens: u32,
    /// Of those, tokens whose evaluation was reused.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
}

#[derive(Debug)]
pub(crate) enum Event {
    Chunk(Chunk),
    End(Result<Summary, Error>),
}

/// A running generation. Dropping it stops the work before the next token.
#[derive(Debug)]
pub struct Completion {
    pub(crate) events: UnboundedReceiver<Event>,
    /// With a cancellation token of its own, cancelled on drop.
    pub(crate) call: CallContext,
    pub(crate) summary: Option<Summary>,
    pub(crate) failed: Option<Error>,
    /// Keeps the model loaded.
    pub(crate) lease: Lease,
}

impl Completion {
    /// The next piece of text, or `None` when it is complete. A slow reader does not hold up the
    /// model: text is buffered, bounded by `max_tokens`.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::DeadlineExceeded`], [`Error::ShuttingDown`] or
    /// [`Error::Native`]; the same again when asked again.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        if self.summary.is_some() {
            return Ok(None);
        }
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let event = tokio::select! {
            biased;
            error = self.call.given_up() => Some(Event::End(Err(error))),
            event = self.events.recv() => event,
        };
        match event {
            Some(Event::Chunk(chunk)) => Ok(Some(chunk)),
            Some(Event::End(Ok(summary))) => {
                self.summary = Some(summary);
                Ok(None)
            }
            Some(Event::End(Err(error))) => self.fail(error),
            None => self.fail(Error::Native("the generator died".to_owned())),
        }
    }

    /// Resolves when the model has left this generation, whether it ended, was cancelled or ran late;
    /// text that was not read yet is dropped. Cancelling does not wait for that; who must know that the
    /// model is free again can.
    pub async fn stopped(&mut self) {
        while let Some(event) = self.events.recv().await {
            if let Event::End(_) = event {
                return;
            }
        }
    }

    /// The rest of the text in one piece.
    ///
    /// # Errors
    /// As [`Completion::next`].
    pub async fn text(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        while let Some(chunk) = self.next().await? {
            text.push_str(&chunk.text);
        }
        Ok(text)
    }

    /// What the generation took; `None` until [`Completion::next`] answered `None`.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        self.summary.clone()
    }

    fn fail(&mut self, error: Error) -> Result<Option<Chunk>, Error> {
        self.call.cancel.cancel();
        self.failed = Some(error.clone());
        Err(error)
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.call.cancel.cancel();
    }
}

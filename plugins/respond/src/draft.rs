//! What the model writes.

use formwork_plugin::host::generation::{self, FinishReason, Request};
use formwork_plugin::host::progress;
use formwork_plugin::{Error, StepResult, texts_at};
use serde_json::Value;

use crate::limits;
use crate::settings::Settings;

/// A response before it is sent by anybody.
pub(crate) struct Draft {
    pub(crate) text: String,
    /// `stop`: it came to its end; `length`: it was cut at the end of a sentence; `fixed`: nobody wrote it.
    pub(crate) finish: &'static str,
    pub(crate) tokens: u32,
    /// Geometric mean of the probabilities of its tokens.
    pub(crate) confidence: f32,
    /// Not all of the texts was read.
    pub(crate) cut: bool,
}

impl Draft {
    pub(crate) fn fixed(text: String) -> Self {
        Self {
            text,
            finish: "fixed",
            tokens: 0,
            confidence: 1.0,
            cut: false,
        }
    }
}

/// One generation, with progress. The model stops within a token of the call's end, since its handle is dropped then.
pub(crate) fn write(model: &str, settings: &Settings, data: &Value, results: &[StepResult]) -> Result<Draft, Error> {
    let (prompt, cut) = prompt(settings, data, results);
    if prompt.is_empty() {
        let place = settings.fields.first().cloned().unwrap_or_default();
        return Err(Error::input(place, "empty", "there is no text to respond to"));
    }
    let completion = generation::start(
        model,
        &Request {
            system: settings.instruction.clone(),
            prompt,
            max_tokens: settings.max_tokens,
            temperature: settings.temperature,
            seed: settings.seed,
            stop: settings.stop.clone(),
            json_schema: None,
        },
    )?;
    let mut text = String::new();
    let (mut tokens, mut logprob) = (0, 0.0);
    while let Some(chunk) = completion.next()? {
        text.push_str(&chunk.text);
        tokens += chunk.tokens;
        logprob += chunk.logprob;
        progress::report(u64::from(tokens), u64::from(settings.max_tokens), "writing");
    }
    let ended = completion
        .summary()
        .is_some_and(|summary| summary.reason == FinishReason::Stop);
    let text = if ended { text.trim() } else { whole_sentences(&text) };
    if text.is_empty() {
        return Err(Error::Internal("the model wrote nothing".into()));
    }
    Ok(Draft {
        text: text.to_owned(),
        finish: if ended { "stop" } else { "length" },
        tokens,
        confidence: (logprob / tokens.max(1) as f32).exp().clamp(0.0, 1.0),
        cut,
    })
}

/// What the model reads: the texts, then what earlier steps found. And whether something was left out.
fn prompt(settings: &Settings, data: &Value, results: &[StepResult]) -> (String, bool) {
    let mut left = limits::MAX_CHARACTERS;
    let mut cut = false;
    let mut lines = Vec::new();
    for text in texts_at(data, &settings.fields) {
        let name = text.pointer.rsplit('/').next().unwrap_or_default().to_owned();
        let length = text.content.chars().count();
        cut |= length > left;
        if left > 0 {
            let content: String = text.content.chars().take(left).collect();
            lines.push(format!("{name}: {content}"));
        }
        left = left.saturating_sub(length);
    }
    if lines.is_empty() {
        return (String::new(), cut);
    }
    for wanted in &settings.results {
        let output = results.iter().find(|result| result.step == wanted.step);
        let output: Option<Value> = output.and_then(|result| serde_json::from_str(&result.output).ok());
        if let Some(value) = output.as_ref().and_then(|output| output.pointer(&wanted.pointer)) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let value: String = value.chars().take(limits::MAX_RESULT).collect();
            lines.push(format!("{}: {value}", wanted.step));
        }
    }
    (lines.join("\n"), cut)
}

/// Up to the last end of a sentence; everything when there is none.
fn whole_sentences(text: &str) -> &str {
    let end = text.rfind(['.', '!', '?', '\n']).map_or(text.len(), |at| at + 1);
    text[..end].trim()
}

/// As the host shows other probabilities: four decimals.
pub(crate) fn rounded(probability: f32) -> f64 {
    (f64::from(probability) * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_response_ends_with_a_sentence() {
        assert_eq!(whole_sentences("Thank you. We will rep"), "Thank you.");
        assert_eq!(whole_sentences(" Thank you "), "Thank you");
    }
}

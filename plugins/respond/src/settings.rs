//! The step's settings, checked.

use formwork_plugin::{Error, Problem, is_pointer, parse_settings};
use serde::Deserialize;

use crate::limits;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    instruction: Option<String>,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    results: Vec<EarlierResult>,
    text: Option<String>,
    #[serde(default = "default_tokens")]
    max_tokens: u32,
    #[serde(default)]
    temperature: f32,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    stop: Vec<String>,
    /// `null`: the fixed text.
    #[serde(default = "default_model")]
    model: Option<String>,
}

/// Something an earlier step found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EarlierResult {
    pub(crate) step: String,
    pub(crate) pointer: String,
}

/// Who writes.
#[derive(Debug)]
pub(crate) enum How {
    /// The generator of this name.
    Model(String),
    /// Nobody: this text, filled in.
    Fixed(String),
}

/// What the form asks for.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) how: How,
    pub(crate) instruction: String,
    pub(crate) fields: Vec<String>,
    pub(crate) results: Vec<EarlierResult>,
    pub(crate) max_tokens: u32,
    pub(crate) temperature: f32,
    pub(crate) seed: u64,
    pub(crate) stop: Vec<String>,
}

fn default_tokens() -> u32 {
    limits::TOKENS
}

fn default_model() -> Option<String> {
    Some("generator".to_owned())
}

impl Settings {
    /// Parses and checks; answers all problems at once.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        let raw: RawSettings = parse_settings(settings)?;
        let mut problems = Vec::new();
        let mut add = |pointer: String, code: &str, message: String| {
            problems.push(Problem::new(pointer, code, message));
        };
        for (name, text) in [("instruction", &raw.instruction), ("text", &raw.text)] {
            let length = text.as_ref().map_or(1, |text| text.trim().chars().count());
            if !(1..=limits::MAX_TEXT).contains(&length) {
                let message = format!("must have 1 to {} characters", limits::MAX_TEXT);
                add(format!("/{name}"), "length", message);
            }
        }
        if raw.fields.len() > limits::MAX_FIELDS {
            let message = format!("at most {} pointers", limits::MAX_FIELDS);
            add("/fields".into(), "too-many", message);
        }
        if raw.results.len() > limits::MAX_RESULTS {
            let message = format!("at most {} results", limits::MAX_RESULTS);
            add("/results".into(), "too-many", message);
        }
        let fields = raw.fields.iter().enumerate();
        let fields = fields.map(|(index, pointer)| (format!("/fields/{index}"), pointer));
        let results = raw.results.iter().enumerate();
        let results = results.map(|(index, result)| (format!("/results/{index}/pointer"), &result.pointer));
        for (place, pointer) in fields.chain(results) {
            if !is_pointer(pointer) {
                add(
                    place,
                    "pointer",
                    "must be a JSON Pointer, for example `/message`".into(),
                );
            }
        }
        if !(1..=limits::MAX_TOKENS).contains(&raw.max_tokens) {
            let message = format!("must be 1 to {}", limits::MAX_TOKENS);
            add("/max_tokens".into(), "range", message);
        }
        if !(0.0..=2.0).contains(&raw.temperature) {
            add("/temperature".into(), "range", "must be 0 to 2".into());
        }
        let long = |stop: &String| !(1..=limits::MAX_STOP).contains(&stop.chars().count());
        if raw.stop.len() > limits::MAX_STOPS || raw.stop.iter().any(long) {
            let message = format!(
                "at most {} texts of 1 to {} characters",
                limits::MAX_STOPS,
                limits::MAX_STOP
            );
            add("/stop".into(), "stop", message);
        }
        let how = match (raw.model, raw.text) {
            (Some(model), _) if model.trim().is_empty() => {
                let message = "must name a generator that the host has, or be null for the fixed `text`";
                add("/model".into(), "empty", message.into());
                None
            }
            (Some(model), _) => {
                if raw.instruction.is_none() {
                    add(
                        "/instruction".into(),
                        "required",
                        "the model must be told what to write".into(),
                    );
                }
                Some(How::Model(model))
            }
            (None, Some(text)) => Some(How::Fixed(text)),
            (None, None) => {
                add(
                    "/text".into(),
                    "required",
                    "without a model there must be a fixed text".into(),
                );
                None
            }
        };
        match how {
            Some(how) if problems.is_empty() => Ok(Self {
                how,
                instruction: raw.instruction.unwrap_or_default(),
                fields: raw.fields,
                results: raw.results,
                max_tokens: raw.max_tokens,
                temperature: raw.temperature,
                seed: raw.seed,
                stop: raw.stop,
            }),
            _ => Err(Error::InvalidSettings(problems)),
        }
    }
}

//! Between the contract's types and the host's JSON.
//!
//! What runs here runs on the host, on the guest's thread, where no epoch interrupts it: the work is bounded by what is
//! counted, never by what a guest says.

use formwork_bindings::v1::types as wit;
use serde_json::{Map, Value, json};

use crate::limits::{MAX_ANSWER_VALUES, MAX_ERROR_TEXT_BYTES, MAX_PROBLEMS};
use crate::spans::Spans;
use crate::{CallError, FormInput, PluginError, Problem, SubmissionInput};

pub(crate) fn form(input: &FormInput) -> wit::Form {
    wit::Form {
        id: input.id.clone(),
        version: input.version,
        schema: input.schema.clone(),
        schemas: input.schemas.clone(),
    }
}

pub(crate) fn submission(input: &SubmissionInput) -> wit::Submission {
    wit::Submission {
        id: input.id.clone(),
        submitted_at: input.submitted_at.clone(),
        data: input.data.clone(),
        results: input
            .results
            .iter()
            .map(|(step, output)| wit::StepResult {
                step: step.clone(),
                output: output.clone(),
            })
            .collect(),
    }
}

/// Values that the host makes of one finding, label, field and span, besides their details.
const FINDING_VALUES: usize = 5;
const LABEL_VALUES: usize = 3;
const FIELD_VALUES: usize = 8;
const SPAN_VALUES: usize = 4;

/// A plugin's error, cut to what is worth recording: it is stored with the task and shown to people.
pub(crate) fn plugin_error(error: wit::Error) -> CallError {
    let with_problems = |case, problems: Vec<wit::Problem>| PluginError {
        case,
        message: String::new(),
        problems: problems
            .into_iter()
            .take(MAX_PROBLEMS)
            .map(|problem| Problem {
                pointer: cut(problem.pointer),
                code: cut(problem.code),
                message: cut(problem.message),
            })
            .collect(),
    };
    let with_message = |case, message| PluginError {
        case,
        message: cut(message),
        problems: Vec::new(),
    };
    CallError::Plugin(match error {
        wit::Error::InvalidSettings(problems) => with_problems("invalid-settings", problems),
        wit::Error::InvalidForm(problems) => with_problems("invalid-form", problems),
        wit::Error::InvalidInput(problems) => with_problems("invalid-input", problems),
        wit::Error::Unavailable(message) => with_message("unavailable", message),
        wit::Error::Internal(message) => with_message("internal", message),
    })
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_ERROR_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_ERROR_TEXT_BYTES));
        text.push('…');
    }
    text
}

/// Counts the JSON values that an answer makes: each takes the host many times what it took the guest.
struct Values(usize);

impl Values {
    fn new() -> Self {
        Self(MAX_ANSWER_VALUES)
    }

    fn take(&mut self, values: usize) -> Result<(), CallError> {
        self.0 = self
            .0
            .checked_sub(values)
            .ok_or_else(|| bad(format!("it has more than {MAX_ANSWER_VALUES} values")))?;
        Ok(())
    }

    /// Parses a text of the guest.
    fn json(&mut self, text: &str, name: &str) -> Result<Value, CallError> {
        self.take(values_in(text))?;
        serde_json::from_str(text).map_err(|error| bad(format!("`{name}` is not JSON: {error}")))
    }
}

/// How many values a JSON text can hold at most, without parsing it.
fn values_in(text: &str) -> usize {
    let (mut values, mut in_text, mut escaped) = (1, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
}

pub(crate) fn findings(findings: Vec<wit::Finding>) -> Result<(Value, bool), CallError> {
    let rejected = findings.iter().any(|finding| finding.severity == wit::Severity::Error);
    let mut values = Values::new();
    let findings = findings
        .into_iter()
        .map(|finding| {
            values.take(FINDING_VALUES)?;
            let severity = match finding.severity {
                wit::Severity::Error => "error",
                wit::Severity::Warning => "warning",
                wit::Severity::Info => "info",
            };
            let object = object([
                ("pointer", finding.pointer.into()),
                ("code", finding.code.into()),
                ("message", finding.message.into()),
                ("severity", severity.into()),
            ]);
            with_details(object, finding.details, &mut values)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((json!({ "valid": !rejected, "findings": findings }), rejected))
}

pub(crate) fn classification(classification: wit::Classification) -> Result<Value, CallError> {
    let mut values = Values::new();
    values.take(LABEL_VALUES * (classification.labels.len() + classification.scores.len()))?;
    let best = classification
        .labels
        .first()
        .map_or("none", |label| label.name.as_str())
        .to_owned();
    let object = object([
        ("label", best.into()),
        ("labels", labels(classification.labels)?),
        ("scores", labels(classification.scores)?),
    ]);
    with_details(object, classification.details, &mut values)
}

fn labels(labels: Vec<wit::Label>) -> Result<Value, CallError> {
    labels
        .into_iter()
        .map(|label| Ok(json!({ "name": label.name, "score": probability(label.score, "score")? })))
        .collect()
}

/// The extraction as JSON. Every span is checked against the submission: what does not stand there was not extracted.
pub(crate) fn extraction(extraction: wit::Extraction, data: &str) -> Result<Value, CallError> {
    let data: Value = serde_json::from_str(data).map_err(|error| CallError::Host(error.to_string()))?;
    let mut values = Values::new();
    let mut places = Spans::new(&data);
    values.take(extraction.missing.len())?;
    let fields = extraction
        .fields
        .into_iter()
        .map(|field| {
            if field.spans.is_empty() {
                return Err(bad(format!("field `{}` has no span", field.name)));
            }
            values.take(FIELD_VALUES + SPAN_VALUES * field.spans.len())?;
            for span in &field.spans {
                places.check(span, &field)?;
            }
            let spans = field
                .spans
                .iter()
                .map(|span| json!({ "pointer": span.pointer, "offset": span.offset, "length": span.length }))
                .collect::<Vec<_>>();
            let confidence = probability(field.confidence, "confidence")?;
            let object = object([
                ("name", field.name.as_str().into()),
                ("value", values.json(&field.value, &field.name)?),
                ("content", field.content.into()),
                ("confidence", confidence),
                ("spans", spans.into()),
                ("method", field.method.into()),
            ]);
            with_details(object, field.details, &mut values)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let object = object([("fields", fields.into()), ("missing", extraction.missing.into())]);
    with_details(object, extraction.details, &mut values)
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Adds details; they cannot replace a member of the contract.
fn with_details(
    mut object: Map<String, Value>,
    details: Vec<(String, String)>,
    values: &mut Values,
) -> Result<Value, CallError> {
    for (name, text) in details {
        let value = values.json(&text, &name)?;
        object.entry(name).or_insert(value);
    }
    Ok(Value::Object(object))
}

/// Scores as people read them: four decimals.
fn probability(score: f32, what: &str) -> Result<Value, CallError> {
    if !(0.0..=1.0).contains(&score) {
        return Err(bad(format!("a {what} of {score} is no probability")));
    }
    Ok(((f64::from(score) * 10_000.0).round() / 10_000.0).into())
}

pub(crate) fn bad(message: String) -> CallError {
    CallError::BadAnswer(cut(message))
}

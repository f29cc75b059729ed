//! Between the contract's types and the host's JSON.

use formwork_bindings::v1::types as wit;
use serde_json::{Map, Value, json};

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

pub(crate) fn plugin_error(error: wit::Error) -> CallError {
    let with_problems = |case, problems: Vec<wit::Problem>| PluginError {
        case,
        message: String::new(),
        problems: problems
            .into_iter()
            .map(|problem| Problem {
                pointer: problem.pointer,
                code: problem.code,
                message: problem.message,
            })
            .collect(),
    };
    let with_message = |case, message| PluginError {
        case,
        message,
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

pub(crate) fn findings(findings: Vec<wit::Finding>) -> Result<(Value, bool), CallError> {
    let rejected = findings.iter().any(|finding| finding.severity == wit::Severity::Error);
    let findings = findings
        .into_iter()
        .map(|finding| {
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
            with_details(object, finding.details)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((json!({ "valid": !rejected, "findings": findings }), rejected))
}

pub(crate) fn classification(classification: wit::Classification) -> Result<Value, CallError> {
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
    with_details(object, classification.details)
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
    let fields = extraction
        .fields
        .into_iter()
        .map(|field| {
            if field.spans.is_empty() {
                return Err(bad(format!("field `{}` has no span", field.name)));
            }
            for span in &field.spans {
                check_span(&data, span, &field)?;
            }
            let spans = field
                .spans
                .iter()
                .map(|span| json!({ "pointer": span.pointer, "offset": span.offset, "length": span.length }))
                .collect::<Vec<_>>();
            let confidence = probability(field.confidence, "confidence")?;
            let object = object([
                ("name", field.name.as_str().into()),
                ("value", json_value(&field.value, &field.name)?),
                ("content", field.content.into()),
                ("confidence", confidence),
                ("spans", spans.into()),
                ("method", field.method.into()),
            ]);
            with_details(object, field.details)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let object = object([("fields", fields.into()), ("missing", extraction.missing.into())]);
    with_details(object, extraction.details)
}

fn check_span(data: &Value, span: &wit::Span, field: &wit::Field) -> Result<(), CallError> {
    let text = data.pointer(&span.pointer).and_then(Value::as_str).ok_or_else(|| {
        bad(format!(
            "a span of field `{}` points to `{}`, where no string stands",
            field.name, span.pointer
        ))
    })?;
    let found: String = text
        .chars()
        .skip(span.offset as usize)
        .take(span.length as usize)
        .collect();
    if found == field.content && span.length > 0 {
        return Ok(());
    }
    Err(bad(format!(
        "field `{}`: its content does not stand at offset {} of `{}`",
        field.name, span.offset, span.pointer
    )))
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Adds details; they cannot replace a member of the contract.
fn with_details(mut object: Map<String, Value>, details: Vec<(String, String)>) -> Result<Value, CallError> {
    for (name, text) in details {
        let value = json_value(&text, &name)?;
        object.entry(name).or_insert(value);
    }
    Ok(Value::Object(object))
}

fn json_value(text: &str, name: &str) -> Result<Value, CallError> {
    serde_json::from_str(text).map_err(|error| bad(format!("`{name}` is not JSON: {error}")))
}

/// Scores as people read them: four decimals.
fn probability(score: f32, what: &str) -> Result<Value, CallError> {
    if !(0.0..=1.0).contains(&score) {
        return Err(bad(format!("a {what} of {score} is no probability")));
    }
    Ok(((f64::from(score) * 10_000.0).round() / 10_000.0).into())
}

fn bad(message: String) -> CallError {
    CallError::BadAnswer(message)
}

//! A plugin's own vectors, run at every install in the sandbox they will serve from.

use std::time::Instant;

use formwork_manifest::{Expectation, SelfTest};
use serde_json::Value;

use crate::limits::SELF_TESTS_TIME;
use crate::{CallContext, CallError, FormInput, InstallError, Output, Plugin, Setup, SubmissionInput};

/// Runs all vectors; the first that fails refuses the plugin. Without `infer`, a vector that fails after it asked for
/// inference says nothing.
pub(crate) async fn run(plugin: &Plugin, infer: bool) -> Result<(), InstallError> {
    let began = Instant::now();
    let context = CallContext {
        deadline: Some(began + SELF_TESTS_TIME),
        // Over before it begins: inference then refuses a call before it looks for the model.
        soft_deadline: (!infer).then_some(began),
        owner: "self-test".into(),
        correlation_id: "self-test".into(),
        ..Default::default()
    };
    for test in &plugin.manifest().self_tests {
        let (inference_error, passed) = run_one(plugin, test, &context).await;
        match (passed, inference_error) {
            (Ok(()), _) => {}
            (Err(_), Some(_)) if !infer => {
                tracing::info!(
                    plugin = plugin.manifest().name,
                    test = test.name,
                    "self-test passed over: it needs a model, and this process loads none for it"
                );
            }
            (Err(message), _) => {
                return Err(InstallError::SelfTest {
                    name: test.name.clone(),
                    message,
                });
            }
        }
    }
    Ok(())
}

/// What inference refused, if anything, and how the vector ended.
async fn run_one(
    plugin: &Plugin,
    test: &SelfTest,
    context: &CallContext,
) -> (Option<&'static str>, Result<(), String>) {
    let form = FormInput {
        id: "self-test".into(),
        version: 1,
        schema: test.form.schema.to_string(),
        schemas: test
            .form
            .schemas
            .iter()
            .map(|(uri, schema)| (uri.clone(), schema.to_string()))
            .collect(),
    };
    let submission = SubmissionInput {
        id: "00000000000000000000000000".into(),
        submitted_at: "2026-01-01T00:00:00.000Z".into(),
        data: test.data.to_string(),
        results: Vec::new(),
    };
    let setup = Setup::new(form, test.settings.to_string());
    let report = plugin.work_plainly(&setup, &submission, context).await;
    (report.inference_error, compare(&test.expect, report.result))
}

fn compare(expected: &Expectation, result: Result<Output, CallError>) -> Result<(), String> {
    match (expected, result) {
        (Expectation::Output(expected), Ok(output)) => difference(expected, &output.json, "").map_or(Ok(()), Err),
        (Expectation::Error(expected), Err(CallError::Plugin(error))) => {
            let pointer = error.problems.first().map(|problem| problem.pointer.as_str());
            let same_place = expected.pointer.is_none() || expected.pointer.as_deref() == pointer;
            if error.case == expected.case && same_place {
                Ok(())
            } else {
                Err(format!(
                    "expected the error `{}`, got: {}",
                    expected.case,
                    CallError::Plugin(error)
                ))
            }
        }
        (Expectation::Output(_), Err(error)) => Err(error.to_string()),
        (Expectation::Error(expected), Err(error)) => {
            Err(format!("expected the error `{}`, got: {error}", expected.case))
        }
        (Expectation::Error(expected), Ok(output)) => Err(format!(
            "expected the error `{}`, got the output {}",
            expected.case, output.json
        )),
    }
}

/// Where `actual` does not contain `expected`, if anywhere.
fn difference(expected: &Value, actual: &Value, at: &str) -> Option<String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => expected.iter().find_map(|(key, value)| {
            let at = format!("{at}/{key}");
            match actual.get(key) {
                Some(found) => difference(value, found, &at),
                None => Some(format!("at `{at}`: expected {value}, found nothing")),
            }
        }),
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => expected
            .iter()
            .zip(actual)
            .enumerate()
            .find_map(|(index, (value, found))| difference(value, found, &format!("{at}/{index}"))),
        _ if expected == actual => None,
        _ => Some(format!("at `{at}`: expected {expected}, found {actual}")),
    }
}

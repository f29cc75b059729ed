//! Validating documents against a form without storing anything: one, or many in one request.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use formwork_engine::{CallContext, CallError, Kind, SubmissionInput};
use formwork_pipeline::{Catalog, Pipeline, StepReport};
use formwork_tasks::Pool;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answers::{FormRef, LineError, PluginAnswer};
use super::correlation::CorrelationId;
use super::forms::{call_context, lane};
use super::json_body;
use super::params::{FormId, InPath, InQuery, VersionQuery};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use crate::clock;

/// What the validators say of a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Validation {
    /// Whether every validator accepts it.
    valid: bool,
    /// The form version it was checked against.
    form: FormRef,
    /// The findings of all validators.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Value>,
    /// Each validator step.
    steps: Vec<ValidatedStep>,
}

/// What one validator says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidatedStep {
    /// The step's name.
    name: String,
    /// The plugin that ran.
    plugin: PluginAnswer,
    /// CPU time, milliseconds.
    cpu_ms: f64,
    /// What the plugin answered.
    #[schema(value_type = Value)]
    output: Value,
}

/// What the validators say of many documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Validations {
    /// The form version they were checked against.
    form: FormRef,
    /// How many are valid.
    valid: usize,
    /// How many are not.
    invalid: usize,
    /// How many could not be checked; each has its `error`.
    failed: usize,
    /// One a line of the request that is not empty, in their order.
    items: Vec<ValidatedItem>,
}

/// What the validators say of one of many documents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ValidatedItem {
    /// The line of the request, from 1.
    line: usize,
    /// Whether every validator accepts it; absent when it could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    valid: Option<bool>,
    /// The findings of all validators.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Value>,
    /// Why it could not be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<LineError>,
}

/// Run the form's validators on a document; nothing is stored.
#[utoipa::path(post, path = "/v1/forms/{form}/validate", tag = "forms",
    params(("form" = String, Path, description = "The form's id"), VersionQuery),
    request_body(content = Object, content_type = "application/json", description = "The answers", example = json!({ "message": "Hello" })),
    responses(
        (status = 200, description = "What the validators say", body = Validation, example = json!({
            "valid": false, "form": { "id": "contact", "version": 1 },
            "findings": [ { "pointer": "/message", "code": "required", "message": "is required", "severity": "error" } ], "steps": [] })),
        (status = 400, description = "`malformed-json`, `json-too-deep`, `duplicate-key`, `invalid-request`", body = ProblemDocument),
        (status = 404, description = "`unknown-form`, `unknown-form-version`", body = ProblemDocument),
        (status = 413, description = "`body-too-large`", body = ProblemDocument),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument),
        (status = 500, description = "`plugin-failed`", body = ProblemDocument),
        (status = 503, description = "`busy`, `unavailable`", body = ProblemDocument)))]
pub(crate) async fn one(
    State(app): State<App>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<VersionQuery>,
    correlation: CorrelationId,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Validation>, Problem> {
    let id = FormId::try_new(id)?;
    let data = json_body::read(&headers, body, app.document_limits()).await?;
    let pipeline = app.form(&id, query.version).await?;
    let submissions = vec![submission(correlation.0.clone(), data)];
    let context = call_context(&app, &correlation);
    let version = pipeline.version();
    let mut outcomes = validate_on_lane(&app, pipeline, submissions, context).await?;
    let checked = outcomes
        .pop()
        .ok_or_else(|| Problem::internal("a document without an outcome"))??;
    Ok(Json(Validation {
        valid: checked.valid,
        form: FormRef { id: id.0, version },
        findings: checked.findings(),
        steps: checked.steps,
    }))
}

/// Run the form's validators on many documents, one a line; nothing is stored. A line that is wrong does not concern the
/// others. Where the form's validators have a `batch`, that many share a sandbox.
#[utoipa::path(post, path = "/v1/forms/{form}/validate-lines", tag = "forms",
    params(("form" = String, Path, description = "The form's id"), VersionQuery),
    request_body(content = String, content_type = "application/x-ndjson", description = "One document a line",
        example = "{ \"message\": \"Hello\" }\n{ }\n"),
    responses(
        (status = 200, description = "What the validators say of each", body = Validations, example = json!({
            "form": { "id": "contact", "version": 1 }, "valid": 1, "invalid": 1, "failed": 0,
            "items": [ { "line": 1, "valid": true, "findings": [] }, { "line": 2, "valid": false, "findings": [
                { "pointer": "/message", "code": "required", "message": "is required", "severity": "error" } ] } ] })),
        (status = 404, description = "`unknown-form`, `unknown-form-version`", body = ProblemDocument),
        (status = 413, description = "`body-too-large`: more than `http.lines_limit_bytes` in all", body = ProblemDocument),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument),
        (status = 503, description = "`busy`, `unavailable`", body = ProblemDocument)))]
pub(crate) async fn lines(
    State(app): State<App>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<VersionQuery>,
    correlation: CorrelationId,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Validations>, Problem> {
    let id = FormId::try_new(id)?;
    let lines = json_body::read_lines(&headers, body, app.http.lines_limit_bytes, app.document_limits()).await?;
    let pipeline = app.form(&id, query.version).await?;
    let context = call_context(&app, &correlation);
    let mut answer = Validations {
        form: FormRef {
            id: id.0,
            version: pipeline.version(),
        },
        valid: 0,
        invalid: 0,
        failed: 0,
        items: Vec::with_capacity(lines.len()),
    };
    let mut lines = lines.into_iter().peekable();
    // A batch at a time: between two of them others get their turn on the pool's threads.
    while lines.peek().is_some() {
        let (mut numbers, mut submissions) = (Vec::new(), Vec::new());
        for (line, document) in lines.by_ref().take(pipeline.largest_batch()) {
            match document {
                Ok(data) => {
                    numbers.push(line);
                    submissions.push(submission(format!("{}-{line}", correlation.0), data));
                }
                Err(problem) => answer.add(line, Err(problem)),
            }
        }
        let outcomes = validate_on_lane(&app, Arc::clone(&pipeline), submissions, context.clone()).await?;
        for (line, outcome) in numbers.into_iter().zip(outcomes) {
            answer.add(line, outcome);
        }
    }
    answer.items.sort_by_key(|item| item.line);
    Ok(Json(answer))
}

impl Validations {
    fn add(&mut self, line: usize, outcome: Result<Checked, Problem>) {
        let item = match outcome {
            Ok(checked) => {
                *(if checked.valid {
                    &mut self.valid
                } else {
                    &mut self.invalid
                }) += 1;
                ValidatedItem {
                    line,
                    valid: Some(checked.valid),
                    findings: checked.findings(),
                    error: None,
                }
            }
            Err(problem) => {
                self.failed += 1;
                ValidatedItem {
                    line,
                    valid: None,
                    findings: Vec::new(),
                    error: Some(problem.into()),
                }
            }
        };
        self.items.push(item);
    }
}

fn submission(id: String, data: String) -> SubmissionInput {
    SubmissionInput {
        id,
        submitted_at: clock::rfc3339(clock::now()),
        data,
        results: Vec::new(),
    }
}

/// A document that every validator has answered for.
struct Checked {
    valid: bool,
    steps: Vec<ValidatedStep>,
}

impl Checked {
    fn findings(&self) -> Vec<Value> {
        let findings = self
            .steps
            .iter()
            .filter_map(|step| step.output.get("findings")?.as_array());
        findings.flatten().cloned().collect()
    }
}

/// [`validate`] on a thread of the pool for validation; this runtime runs no guests.
async fn validate_on_lane(
    app: &App,
    pipeline: Arc<Pipeline>,
    submissions: Vec<SubmissionInput>,
    context: CallContext,
) -> Result<Vec<Result<Checked, Problem>>, Problem> {
    let catalog = app.catalog.clone();
    let work = app
        .scheduler
        .lane(Pool::High)
        .spawn(move || async move { validate(&pipeline, &catalog, submissions, &context).await });
    work.await.map_err(lane)
}

/// Runs the form's validators, step after step, on each submission; the first failure of one ends its checks.
async fn validate(
    pipeline: &Pipeline,
    catalog: &Catalog,
    mut submissions: Vec<SubmissionInput>,
    context: &CallContext,
) -> Vec<Result<Checked, Problem>> {
    // Which outcome each submission that is still being checked belongs to.
    let mut places: Vec<usize> = (0..submissions.len()).collect();
    let unchecked = |_: &SubmissionInput| {
        Ok(Checked {
            valid: true,
            steps: Vec::new(),
        })
    };
    let mut outcomes: Vec<Result<Checked, Problem>> = submissions.iter().map(unchecked).collect();
    for step in &pipeline.definition().pipeline {
        if !pipeline.is_kind(catalog, step, Kind::Validator) {
            continue;
        }
        let reports = pipeline
            .run_step_on_many(catalog, &step.name, &submissions, context)
            .await;
        for ((submission, &place), report) in submissions.iter_mut().zip(&places).zip(reports) {
            let outcome = &mut outcomes[place];
            match (validated(&step.name, report), &mut *outcome) {
                (Ok((rejected, validated)), Ok(checked)) => {
                    submission
                        .results
                        .push((step.name.clone(), validated.output.to_string()));
                    checked.valid &= !rejected;
                    checked.steps.push(validated);
                }
                (Err(problem), _) => *outcome = Err(problem),
                (Ok(_), Err(_)) => {}
            }
        }
        let mut going = places.iter().map(|&place| outcomes[place].is_ok());
        submissions.retain(|_| going.next().unwrap_or_default());
        places.retain(|&place| outcomes[place].is_ok());
    }
    outcomes
}

fn validated(step: &str, done: StepReport) -> Result<(bool, ValidatedStep), Problem> {
    let cpu_ms = done.report.usage.cpu.as_secs_f64() * 1e3;
    match (done.report.result, done.plugin) {
        (Ok(output), Some(plugin)) => {
            let plugin = PluginAnswer {
                name: plugin.name,
                version: plugin.version,
                digest: plugin.digest,
            };
            let name = step.to_owned();
            let step = ValidatedStep {
                name,
                plugin,
                cpu_ms,
                output: output.json,
            };
            Ok((output.rejected, step))
        }
        (Ok(_), None) => Err(no_answer(
            step,
            None,
            &CallError::Host("a result without a plugin".into()),
        )),
        (Err(error), plugin) => Err(no_answer(step, plugin.map(|plugin| plugin.name), &error)),
    }
}

fn no_answer(step: &str, plugin: Option<String>, error: &CallError) -> Problem {
    let plugin = plugin.unwrap_or_else(|| "unknown".to_owned());
    let code = if error.retryable() {
        Code::Unavailable
    } else {
        Code::PluginFailed
    };
    tracing::warn!(step, plugin, %error, "validation failed to run");
    Problem::new(code, format!("step {step}: plugin {plugin}: {error}")).with("error", error.code())
}

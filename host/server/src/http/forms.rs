//! Publishing and reading forms.

use std::sync::Arc;
use std::time::Instant;

use super::answers::{FormAnswer, FormHead, List, Published, StepSnapshot};
use super::correlation::CorrelationId;
use super::json_body::{self, Limits};
use super::params::{FormId, InPath, InQuery, PageQuery, page};
use super::problem::{Code, Place, Problem, ProblemDocument};
use super::state::App;
use crate::clock;
use crate::runner::inference_priority;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use formwork_engine::CallContext;
use formwork_pipeline::{DefinitionError, FormDefinition, Pipeline};
use formwork_scheduler::LaneError;
use formwork_store::{NewForm, PutForm};
use formwork_tasks::Pool;

/// Who calls, in the engine's metrics.
const OWNER: &str = "http";

/// Publish a form definition; makes a new version unless it is that of the latest one.
#[utoipa::path(put, path = "/v1/forms/{form}", tag = "forms",
    params(("form" = String, Path, description = "The form's id", example = "support-request")),
    request_body(content = Object, content_type = "application/json", description = "A form definition", example = json!({
        "title": "Contact us",
        "schema": { "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["message"],
            "properties": { "message": { "type": "string", "minLength": 1 } } },
        "pipeline": [ { "name": "check", "plugin": "validate" } ] })),
    responses(
        (status = 201, description = "A new version was made; `Location` has it", body = Published),
        (status = 200, description = "The definition is that of the latest version", body = Published),
        (status = 400, description = "`malformed-json`, `json-too-deep`, `duplicate-key`, `invalid-form-id`", body = ProblemDocument),
        (status = 413, description = "`body-too-large`", body = ProblemDocument),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument),
        (status = 422, description = "`invalid-definition` with every place that is wrong", body = ProblemDocument),
        (status = 503, description = "`busy`, `unavailable`", body = ProblemDocument)))]
pub(crate) async fn put(
    State(app): State<App>,
    InPath(id): InPath<String>,
    correlation: CorrelationId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let id = FormId::try_new(id)?;
    let limits = Limits {
        bytes: app.http.definition_limit_bytes,
        depth: app.http.json_depth,
    };
    let text = json_body::read(&headers, body, limits).await?;
    let definition = Arc::new(FormDefinition::parse(text.as_bytes()).map_err(invalid)?);
    definition.check_within(app.scheduler.step_maxima()).map_err(invalid)?;
    let steps = check(&app, &id, Arc::clone(&definition), &correlation).await?;
    let digest = definition.digest();
    let title = definition.title.clone();
    let form = NewForm {
        id: id.0.clone(),
        definition: text,
        digest: digest.clone(),
        steps,
    };
    let (version, created) = match app.store.put_form(form, clock::now()).await? {
        PutForm::Created(version) => (version, true),
        PutForm::Unchanged(version) => (version, false),
    };
    app.forms.published(&id.0, version);
    // Publishing does not wait for snapshots, nor does it fail for them: calls that come first prepare by themselves.
    match app.forms.get(&id.0, Some(version)).await {
        Ok(pipeline) => pipeline
            .iter()
            .for_each(|pipeline| pipeline.request_snapshots(&app.catalog)),
        Err(error) => tracing::warn!(form = id.0, version, %error, "no snapshots asked for"),
    }
    tracing::info!(form = id.0, version, created, "form published");
    let location = format!("/v1/forms/{}/versions/{version}", id.0);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (
        status,
        Json(Published {
            id: id.0,
            version,
            title,
            created,
            digest,
        }),
    )
        .into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Runs `prepare` of every step in the sandbox: what would fail for every submission fails here, once.
async fn check(
    app: &App,
    id: &FormId,
    definition: Arc<FormDefinition>,
    correlation: &CorrelationId,
) -> Result<Vec<formwork_tasks::Step>, Problem> {
    let pipeline = Pipeline::new(&id.0, 1, definition);
    // A plugin that was pushed to another node just now.
    if pipeline.steps(&app.catalog).is_err() {
        app.library.look().await?;
    }
    let steps = pipeline.steps(&app.catalog).map_err(invalid)?;
    let context = call_context(app, correlation);
    let catalog = app.catalog.clone();
    let checked = app
        .scheduler
        .lane(Pool::High)
        .spawn(move || async move { pipeline.check(&catalog, &context).await });
    checked.await.map_err(lane)?.map_err(invalid)?;
    Ok(steps)
}

/// The context of a call in pool `high`.
pub(super) fn call_context(app: &App, correlation: &CorrelationId) -> CallContext {
    CallContext {
        deadline: Some(Instant::now() + app.http.request_timeout()),
        priority: inference_priority(Pool::High),
        owner: OWNER.into(),
        budget: Some(crate::pool_cpu::of(app.scheduler.lane(Pool::High).budget().clone())),
        correlation_id: correlation.0.clone(),
        ..CallContext::default()
    }
}

pub(crate) fn lane(error: LaneError) -> Problem {
    match error {
        LaneError::Full(_) => Problem::new(Code::Busy, "too many requests wait for a sandbox, try again"),
        LaneError::NotHere(_) => Problem::new(Code::Unavailable, error.to_string()),
        LaneError::Closed(_) => Problem::new(Code::Unavailable, "the server is stopping"),
        other => Problem::internal(other),
    }
}

fn invalid(error: DefinitionError) -> Problem {
    let detail = error.to_string();
    let places = error.problems.into_iter().map(|problem| Place {
        pointer: problem.pointer,
        code: problem.code,
        message: problem.message,
    });
    Problem::new(Code::InvalidDefinition, detail).places(places.collect())
}

/// The latest version of every form, by id.
#[utoipa::path(get, path = "/v1/forms", tag = "forms", params(PageQuery),
    responses((status = 200, description = "A page of forms", body = List<FormHead>),
        (status = 400, description = "`invalid-request`", body = ProblemDocument)))]
pub(crate) async fn list(State(app): State<App>, InQuery(query): InQuery<PageQuery>) -> Result<Response, Problem> {
    let forms = app.store.forms(page(query.limit, query.cursor)?).await?;
    let items = forms.items.into_iter().map(FormHead::from).collect();
    Ok(Json(List {
        items,
        next: forms.next,
    })
    .into_response())
}

/// The latest version of a form.
#[utoipa::path(get, path = "/v1/forms/{form}", tag = "forms",
    params(("form" = String, Path, description = "The form's id")),
    responses((status = 200, description = "The form", body = FormAnswer),
        (status = 404, description = "`unknown-form`", body = ProblemDocument)))]
pub(crate) async fn get(State(app): State<App>, InPath(id): InPath<String>) -> Result<Json<FormAnswer>, Problem> {
    version_of(&app, FormId::try_new(id)?, None).await
}

/// One version of a form.
#[utoipa::path(get, path = "/v1/forms/{form}/versions/{version}", tag = "forms",
    params(("form" = String, Path, description = "The form's id"), ("version" = u32, Path, description = "From 1")),
    responses((status = 200, description = "The form version", body = FormAnswer),
        (status = 404, description = "`unknown-form`, `unknown-form-version`", body = ProblemDocument)))]
pub(crate) async fn version(
    State(app): State<App>,
    InPath((id, version)): InPath<(String, u32)>,
) -> Result<Json<FormAnswer>, Problem> {
    version_of(&app, FormId::try_new(id)?, Some(version)).await
}

async fn version_of(app: &App, id: FormId, version: Option<u32>) -> Result<Json<FormAnswer>, Problem> {
    let Some(form) = app.store.form(&id.0, version).await? else {
        return Err(app.unknown_form(&id, version).await?);
    };
    let pipeline = app.form(&id, Some(form.version)).await?;
    let snapshots = pipeline.snapshots(&app.catalog).map(StepSnapshot::from).collect();
    Ok(Json(FormAnswer::new(form, snapshots)))
}

/// Every version of a form, oldest first.
#[utoipa::path(get, path = "/v1/forms/{form}/versions", tag = "forms",
    params(("form" = String, Path, description = "The form's id")),
    responses((status = 200, description = "The versions", body = List<FormHead>),
        (status = 404, description = "`unknown-form`", body = ProblemDocument)))]
pub(crate) async fn versions(State(app): State<App>, InPath(id): InPath<String>) -> Result<Response, Problem> {
    let id = FormId::try_new(id)?;
    let versions = app.store.form_versions(&id.0).await?;
    if versions.is_empty() {
        return Err(app.unknown_form(&id, None).await?);
    }
    let items = versions.into_iter().map(FormHead::from).collect();
    Ok(Json(List { items, next: None }).into_response())
}

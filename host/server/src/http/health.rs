//! Probes, and the way in.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use formwork_inference::{Load, ModelState, ModelStatus};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::params::InPath;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;

/// Whether the server can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether everything below that is required is.
    ready: bool,
    /// Each part.
    checks: Vec<Check>,
}

/// Whether one part can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Check {
    /// `draining`, `store`, `scheduler`, `sandbox`, `model:NAME`, `plugins`, `plugin:FILE` or `plugin:NAME@VERSION`.
    #[schema(example = "store")]
    name: String,
    /// Whether it can.
    ready: bool,
    /// Whether the server is not ready without it. A plugin that was refused is not required, nor a model that is loaded
    /// on demand: the others serve.
    required: bool,
    /// Why not.
    reason: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, reason: Option<String>) -> Self {
        Self {
            name: name.into(),
            ready: reason.is_none(),
            required: true,
            reason,
        }
    }
}

/// The process is alive; asks nothing else, so that a busy server is not killed.
#[utoipa::path(get, path = "/livez", tag = "operation",
    responses((status = 200, description = "Alive", body = Object, example = json!({ "alive": true }))))]
pub(crate) async fn livez() -> Json<Value> {
    Json(json!({ "alive": true }))
}

/// Whether requests can be served, and what stands in the way.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses((status = 200, description = "Ready", body = Readiness), (status = 503, description = "Not ready", body = Readiness)))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    let stopping = app.draining.is_cancelled().then(|| "the server is stopping".to_owned());
    let mut checks = vec![Check::new("draining", stopping)];
    let store = match app.draining.is_cancelled() {
        // A store that is closing answers nothing of use.
        true => Some("the server is stopping".to_owned()),
        false => app.store.ready().await.err().map(|error| error.to_string()),
    };
    checks.push(Check::new("store", store));
    let recovering = (!app.scheduler.is_ready()).then(|| "tasks of the process before are being taken back".to_owned());
    checks.push(Check::new("scheduler", recovering));
    checks.extend(app.inference.models().iter().map(model));
    checks.push(Check::new("sandbox", app.catalog.warning().map(str::to_owned)));
    let none = app
        .catalog
        .list()
        .is_empty()
        .then(|| "no plugin is installed, run `make build`".to_owned());
    checks.push(Check::new("plugins", none));
    for refused in app.refused.iter() {
        let check = Check::new(
            format!("plugin:{}", file_name(&refused.file)),
            Some(refused.error.to_string()),
        );
        checks.push(Check {
            required: false,
            ..check
        });
    }
    for failed in app.library.failed() {
        let check = Check::new(format!("plugin:{}", failed.plugin), Some(failed.reason));
        checks.push(Check {
            required: false,
            ..check
        });
    }
    let ready = checks.iter().all(|check| check.ready || !check.required);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, checks })).into_response()
}

/// A model that is not in memory is no fault: the next call loads it. One that cannot be loaded fails the calls for it and
/// no others, unless it was to be there from the start.
fn model(model: &ModelStatus) -> Check {
    let reason = match model.state {
        ModelState::Failed | ModelState::Stopped => {
            let reason = model.reason.as_deref().unwrap_or("the server is stopping");
            Some(format!("{}: {reason}", model.state.as_str()))
        }
        _ => None,
    };
    let check = Check::new(format!("model:{}", model.id.name), reason);
    Check {
        required: model.load == Load::Start,
        ..check
    }
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// What is served here.
#[utoipa::path(get, path = "/", tag = "operation",
    responses((status = 200, description = "Where to go on", body = Object)))]
pub(crate) async fn root() -> Json<Value> {
    Json(json!({
        "name": "formwork",
        "version": env!("CARGO_PKG_VERSION"),
        "api": "/v1",
        "openapi": "/openapi.json",
        "live": "/livez",
        "ready": "/readyz",
        "metrics": "/metrics",
        "problems": "/problems",
    }))
}

/// What an error code means, whether to try again, and its status.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CodeAnswer {
    /// The code.
    #[schema(example = "unknown-form")]
    code: &'static str,
    /// A short summary.
    title: &'static str,
    /// The HTTP status it comes with.
    status: u16,
    /// What it means and what to do.
    meaning: &'static str,
    /// Whether the same request may succeed later.
    retry: bool,
}

impl From<Code> for CodeAnswer {
    fn from(code: Code) -> Self {
        Self {
            code: code.as_str(),
            title: code.title(),
            status: code.status().as_u16(),
            meaning: code.meaning(),
            retry: code.retry(),
        }
    }
}

/// Every error code.
#[utoipa::path(get, path = "/problems", tag = "operation",
    responses((status = 200, description = "The codes", body = Vec<CodeAnswer>)))]
pub(crate) async fn problems() -> Json<Vec<CodeAnswer>> {
    Json(Code::ALL.iter().copied().map(CodeAnswer::from).collect())
}

/// One error code: where a problem document's `type` leads.
#[utoipa::path(get, path = "/problems/{code}", tag = "operation", params(("code" = String, Path, description = "A code")),
    responses((status = 200, description = "The code", body = CodeAnswer),
        (status = 404, description = "`not-found`", body = ProblemDocument)))]
pub(crate) async fn problem(InPath(name): InPath<String>) -> Result<Json<CodeAnswer>, Problem> {
    let code = Code::ALL.iter().copied().find(|code| code.as_str() == name);
    code.map(|code| Json(code.into()))
        .ok_or_else(|| Problem::new(Code::NotFound, "no such error code, see /problems"))
}

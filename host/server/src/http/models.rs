//! The models: what is declared, what is in memory, and loading and unloading by hand.

use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use formwork_inference::{CallContext, Load, MemoryStatus, ModelStatus};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json_body::{self, Limits};
use super::params::InPath;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use crate::clock;

/// One model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelAnswer {
    /// The name that plugins use.
    #[schema(example = "encoder")]
    name: String,
    /// Its version.
    #[schema(example = "all-MiniLM-L6-v2-int8")]
    version: String,
    /// The sha256 of its file, in hex.
    sha256: String,
    /// `encoder`, `generator` or `graph`.
    task: String,
    /// `loading`, `ready`, `evicted` (the next call loads it), `failed` or `stopped`.
    #[schema(example = "ready")]
    state: String,
    /// Why it does not answer.
    reason: Option<String>,
    /// `demand` or `start`.
    #[schema(example = "demand")]
    load: String,
    /// Whether it stays in memory when others need room.
    pinned: bool,
    /// Bytes of its file; 0 while it was never read.
    file_bytes: u64,
    /// Bytes it is reckoned with against the budget while it is loaded.
    memory_bytes: u64,
    /// Bytes by which the process grew when it was last loaded.
    measured_bytes: u64,
    /// Time the last load took, checksum and warm-up included, milliseconds.
    load_ms: Option<f64>,
    /// When the last call ended, RFC 3339.
    last_used: Option<String>,
    /// Calls that it is working on or has queued.
    in_use: usize,
    /// Calls that wait until it is loaded.
    waiting: usize,
    /// How often it was loaded.
    loads: u64,
    /// How often it was unloaded.
    evictions: u64,
}

/// The memory of all models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemoryAnswer {
    /// Bytes that models may take.
    budget_bytes: u64,
    /// Where the budget comes from.
    #[schema(example = "half of the machine's memory")]
    reason: &'static str,
    /// Bytes that loaded models are reckoned with.
    used_bytes: u64,
    /// The most that ever was.
    peak_bytes: u64,
}

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelsAnswer {
    /// Each model, by name.
    items: Vec<ModelAnswer>,
    /// Their memory.
    memory: MemoryAnswer,
    /// Which build of llama.cpp's arithmetic generators use, see `inference.cpu_variant`.
    #[schema(example = "haswell")]
    cpu_variant: &'static str,
}

/// What can be changed of a model while the server runs; it is forgotten when the server stops.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelChange {
    /// Whether it stays in memory when others need room.
    pinned: bool,
}

impl From<ModelStatus> for ModelAnswer {
    fn from(model: ModelStatus) -> Self {
        Self {
            name: model.id.name,
            version: model.id.version,
            sha256: model.id.sha256,
            task: model.task.to_owned(),
            state: model.state.as_str().to_owned(),
            reason: model.reason,
            load: match model.load {
                Load::Start => "start".to_owned(),
                Load::Demand => "demand".to_owned(),
            },
            pinned: model.pinned,
            file_bytes: model.file_bytes,
            memory_bytes: model.memory_bytes,
            measured_bytes: model.measured_bytes,
            load_ms: model.load_time.map(|time| time.as_secs_f64() * 1e3),
            last_used: model.last_used.map(|at| clock::rfc3339(clock::millis(at))),
            in_use: model.in_use,
            waiting: model.waiting,
            loads: model.loads,
            evictions: model.evictions,
        }
    }
}

impl From<MemoryStatus> for MemoryAnswer {
    fn from(memory: MemoryStatus) -> Self {
        Self {
            budget_bytes: memory.budget_bytes,
            reason: memory.reason,
            used_bytes: memory.used_bytes,
            peak_bytes: memory.peak_bytes,
        }
    }
}

/// The models, whether they answer, and their memory.
#[utoipa::path(get, path = "/v1/models", tag = "operation",
    responses((status = 200, description = "The models", body = ModelsAnswer)))]
pub(crate) async fn list(State(app): State<App>) -> Json<ModelsAnswer> {
    Json(ModelsAnswer {
        items: app.inference.models().into_iter().map(ModelAnswer::from).collect(),
        memory: app.inference.memory().into(),
        cpu_variant: app.inference.cpu_variant(),
    })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{name}", tag = "operation", params(("name" = String, Path, description = "A model")),
    responses((status = 200, description = "The model", body = ModelAnswer),
        (status = 404, description = "`unknown-model`", body = ProblemDocument)))]
pub(crate) async fn get(State(app): State<App>, InPath(name): InPath<String>) -> Result<Json<ModelAnswer>, Problem> {
    find(&app, &name).map(Json)
}

/// Changes what can be changed while the server runs.
#[utoipa::path(patch, path = "/v1/models/{name}", tag = "operation", params(("name" = String, Path, description = "A model")),
    request_body = ModelChange,
    responses((status = 200, description = "The model as it is then", body = ModelAnswer),
        (status = 404, description = "`unknown-model`", body = ProblemDocument)))]
pub(crate) async fn patch(
    State(app): State<App>,
    InPath(name): InPath<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ModelAnswer>, Problem> {
    let limits = Limits {
        bytes: app.http.body_limit_bytes,
        depth: app.http.json_depth,
    };
    let change: ModelChange = json_body::typed(&headers, body, limits).await?;
    app.inference.pin(&name, change.pinned)?;
    find(&app, &name).map(Json)
}

/// Loads a model and answers when it is ready; also if a load failed a moment ago.
#[utoipa::path(post, path = "/v1/models/{name}/load", tag = "operation",
    params(("name" = String, Path, description = "A model")),
    responses((status = 200, description = "The model, ready", body = ModelAnswer),
        (status = 404, description = "`unknown-model`", body = ProblemDocument),
        (status = 500, description = "`model-not-loaded`", body = ProblemDocument),
        (status = 503, description = "`no-model-memory`", body = ProblemDocument)))]
pub(crate) async fn load(State(app): State<App>, InPath(name): InPath<String>) -> Result<Json<ModelAnswer>, Problem> {
    let call = CallContext {
        deadline: Some(Instant::now() + app.http.request_timeout()),
        owner: "http".to_owned(),
        ..CallContext::default()
    };
    app.inference.load(&name, &call).await?;
    find(&app, &name).map(Json)
}

/// Frees a model's memory and answers when it is done; the next call loads the model again.
#[utoipa::path(post, path = "/v1/models/{name}/unload", tag = "operation",
    params(("name" = String, Path, description = "A model")),
    responses((status = 200, description = "The model, not loaded", body = ModelAnswer),
        (status = 404, description = "`unknown-model`", body = ProblemDocument),
        (status = 409, description = "`model-in-use`", body = ProblemDocument)))]
pub(crate) async fn unload(State(app): State<App>, InPath(name): InPath<String>) -> Result<Json<ModelAnswer>, Problem> {
    app.inference.unload(&name).await?;
    find(&app, &name).map(Json)
}

fn find(app: &App, name: &str) -> Result<ModelAnswer, Problem> {
    let model = app.inference.models().into_iter().find(|model| model.id.name == name);
    model.map(ModelAnswer::from).ok_or_else(|| {
        Problem::new(
            Code::UnknownModel,
            format!("no model {name:?} is declared, see /v1/models"),
        )
    })
}

//! The models that were loaded at start.

use axum::Json;
use axum::extract::State;
use formwork_inference::{ModelState, ModelStatus};
use serde::Serialize;
use utoipa::ToSchema;

use super::answers::List;
use super::state::App;

/// One model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoadedModel {
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
    /// `ready`, `failed` or `stopped`.
    state: String,
    /// Bytes of its file.
    file_bytes: u64,
    /// Bytes by which the process grew when it was loaded: an estimate.
    memory_bytes: u64,
    /// Time to load and warm it up, milliseconds.
    load_ms: f64,
}

impl From<ModelStatus> for LoadedModel {
    fn from(model: ModelStatus) -> Self {
        Self {
            name: model.id.name,
            version: model.id.version,
            sha256: model.id.sha256,
            task: model.task.to_owned(),
            state: state(model.state).to_owned(),
            file_bytes: model.file_bytes,
            memory_bytes: model.memory_bytes,
            load_ms: model.load.as_secs_f64() * 1e3,
        }
    }
}

fn state(state: ModelState) -> &'static str {
    match state {
        ModelState::Ready => "ready",
        ModelState::Stopped => "stopped",
        _ => "failed",
    }
}

/// The models and whether they answer.
#[utoipa::path(get, path = "/v1/models", tag = "operation",
    responses((status = 200, description = "The models", body = List<LoadedModel>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<List<LoadedModel>> {
    let items = app.inference.models().into_iter().map(LoadedModel::from).collect();
    Json(List { items, next: None })
}

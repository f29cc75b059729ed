//! The plugins that are installed.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use formwork_pipeline::{CatalogEntry, CatalogError};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use super::answers::List;
use super::json_body;
use super::params::InPath;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use crate::plugin_library::PushError;

/// One version of a plugin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstalledPlugin {
    /// Its name.
    #[schema(example = "validate")]
    name: String,
    /// Its version.
    #[schema(example = "1.0.0")]
    version: String,
    /// The digest of its component file.
    digest: String,
    /// `validator`, `classifier`, `extractor` or `exporter`.
    kind: String,
    /// What it does, in a sentence.
    description: String,
    /// Names that stand for this version, such as `stable`.
    aliases: Vec<String>,
    /// What it was granted, and why it needs that.
    grants: BTreeMap<String, String>,
    /// Bytes of its component file.
    size_bytes: usize,
    /// Why it cannot be snapshotted, so that every call prepares anew; absent: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_snapshots: Option<String>,
}

/// One version of a plugin with what its manifest says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginDetail {
    /// What the list says.
    #[serde(flatten)]
    plugin: InstalledPlugin,
    /// SPDX expression.
    licence: String,
    /// The version of `formwork:plugin` it was built against.
    contract: String,
    /// What a call gets, by the unit in each name.
    #[schema(value_type = Object)]
    limits: Value,
    /// JSON Schema of its settings.
    #[schema(value_type = Option<Value>)]
    settings_schema: Option<Value>,
}

/// Every version of a plugin.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PluginVersions {
    /// The plugin's name.
    name: String,
    /// Its versions.
    versions: Vec<PluginDetail>,
}

impl From<CatalogEntry> for InstalledPlugin {
    fn from(entry: CatalogEntry) -> Self {
        Self {
            name: entry.name,
            version: entry.version,
            digest: entry.digest,
            kind: entry.kind,
            description: entry.description,
            aliases: entry.aliases,
            grants: entry.grants,
            size_bytes: entry.size,
            no_snapshots: entry.no_snapshots,
        }
    }
}

/// Every version of every plugin.
#[utoipa::path(get, path = "/v1/plugins", tag = "operation",
    responses((status = 200, description = "The plugins", body = List<InstalledPlugin>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<List<InstalledPlugin>> {
    Json(List {
        items: app.catalog.list().into_iter().map(InstalledPlugin::from).collect(),
        next: None,
    })
}

/// Check, install and keep a component; every node has it within seconds.
///
/// The body is the component file. Installing takes as long as compiling: a client that gives up may push the same file
/// again. Without a version in their pipeline, forms use a higher version from their next task on; running tasks end with
/// the version they began with.
#[utoipa::path(post, path = "/v1/plugins", tag = "operation",
    request_body(content = Vec<u8>, content_type = "application/wasm", description = "The component file"),
    responses((status = 201, description = "Installed and kept", body = InstalledPlugin),
        (status = 200, description = "It was there already", body = InstalledPlugin),
        (status = 409, description = "`version-taken`", body = ProblemDocument),
        (status = 413, description = "`body-too-large`", body = ProblemDocument),
        (status = 422, description = "`plugin-refused`", body = ProblemDocument)))]
pub(crate) async fn push(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let component = json_body::collect(&headers, body, app.http.component_limit_bytes).await?;
    let (plugin, created) = app.library.push(component).await.map_err(refused)?;
    let manifest = plugin.manifest();
    let version = manifest.version.to_string();
    tracing::info!(name = manifest.name, version, digest = %plugin.digest(), created, "plugin pushed");
    let entry = app
        .catalog
        .list()
        .into_iter()
        .find(|entry| entry.name == manifest.name && entry.version == version)
        .ok_or_else(|| Problem::internal("the plugin is gone again"))?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(InstalledPlugin::from(entry))).into_response())
}

fn refused(error: PushError) -> Problem {
    match error {
        PushError::Store(error) => error.into(),
        PushError::Refused(CatalogError::VersionTaken { .. }) | PushError::VersionTaken { .. } => {
            Problem::new(Code::VersionTaken, error.to_string())
        }
        PushError::Refused(error) => Problem::new(Code::PluginRefused, error.to_string()),
        PushError::Install(_) => Problem::internal(error),
    }
}

/// Every version of one plugin, with limits and settings.
#[utoipa::path(get, path = "/v1/plugins/{name}", tag = "operation", params(("name" = String, Path, description = "The plugin's name")),
    responses((status = 200, description = "The plugin", body = PluginVersions),
        (status = 404, description = "`unknown-plugin`", body = ProblemDocument)))]
pub(crate) async fn get(State(app): State<App>, InPath(name): InPath<String>) -> Result<Json<PluginVersions>, Problem> {
    let entries = app.catalog.list();
    let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if !known.contains(&name.as_str()) {
        let shown: String = name.chars().take(64).collect();
        let detail = format!(
            "unknown plugin: {} (installed: {})",
            shown.escape_debug(),
            known.join(", ")
        );
        return Err(Problem::new(Code::UnknownPlugin, detail));
    }
    let versions = entries
        .into_iter()
        .filter(|entry| entry.name == name)
        .filter_map(|entry| {
            let plugin = app.catalog.resolve(&format!("{}@{}", entry.name, entry.version)).ok()?;
            let manifest = plugin.manifest();
            Some(PluginDetail {
                plugin: entry.into(),
                licence: manifest.licence.clone(),
                contract: manifest.contract.to_string(),
                limits: serde_json::json!(plugin.limits()),
                settings_schema: manifest.settings_schema.clone(),
            })
        });
    Ok(Json(PluginVersions {
        versions: versions.collect(),
        name,
    }))
}

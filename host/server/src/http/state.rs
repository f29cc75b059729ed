//! What the handlers share.

use std::sync::Arc;

use formwork_inference::Inference;
use formwork_pipeline::{Catalog, Pipeline, RefusedPlugin};
use formwork_scheduler::Scheduler;
use formwork_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::json_body::Limits;
use super::params::FormId;
use super::problem::{Code, Problem};
use crate::config;
use crate::forms::{Forms, FormsError};
use crate::plugin_library::PluginLibrary;
use crate::waiters::Waiters;

/// Forms that an answer names when the one asked for does not exist.
const HINTED_FORMS: u32 = 10;

/// Handle to everything a handler needs; cloning is cheap.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// What [`App`] is made of.
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The plugins.
    pub catalog: Catalog,
    /// Plugins that were pushed.
    pub library: PluginLibrary,
    /// Plugins in the folder that were not taken, and why.
    pub refused: Arc<[RefusedPlugin]>,
    /// The models.
    pub inference: Inference,
    /// The pools.
    pub scheduler: Scheduler,
    /// Published forms, ready to run.
    pub forms: Forms,
    /// Requests that wait for results.
    pub waiters: Waiters,
    /// Places for event streams.
    pub streams: Arc<Semaphore>,
    /// Limits of the API.
    pub http: config::Http,
    /// Cancelled when the server is told to stop: `/readyz` says no, nobody waits for results any more.
    pub draining: CancellationToken,
}

impl App {
    /// A handle to these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Bounds of a submission's document.
    pub(crate) fn document_limits(&self) -> Limits {
        Limits {
            bytes: self.http.body_limit_bytes,
            depth: self.http.json_depth,
        }
    }

    /// A published form, or the problem that says which exist.
    pub(crate) async fn form(&self, id: &FormId, version: Option<u32>) -> Result<Arc<Pipeline>, Problem> {
        let found = self.forms.get(&id.0, version).await.map_err(|error| match error {
            FormsError::Store(error) => error.into(),
            broken => Problem::internal(broken),
        })?;
        match found {
            Some(pipeline) => Ok(pipeline),
            None => Err(self.unknown_form(id, version).await?),
        }
    }

    pub(crate) async fn unknown_form(&self, id: &FormId, version: Option<u32>) -> Result<Problem, Problem> {
        let versions = self.store.form_versions(&id.0).await?;
        if let (Some(version), Some(latest)) = (version, versions.last()) {
            let detail = format!(
                "form {} has no version {version}, its latest is {}",
                id.0, latest.version
            );
            return Ok(Problem::new(Code::UnknownFormVersion, detail).with("latest_version", latest.version));
        }
        let page = formwork_store::Page {
            limit: HINTED_FORMS,
            after: None,
        };
        let known = self.store.forms(page).await?;
        let names: Vec<String> = known.items.into_iter().map(|form| form.id).collect();
        let more = if known.next.is_some() { ", …" } else { "" };
        let hint = match names.is_empty() {
            true => "no form was published yet".to_owned(),
            false => format!("known: {}{more}", names.join(", ")),
        };
        let detail = format!("unknown form: {} ({hint})", id.0);
        Ok(Problem::new(Code::UnknownForm, detail).with("form", id.0.clone()))
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

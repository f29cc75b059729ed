//! Downloading what an exporter made of a form version's submissions.
//!
//! The chunks were recorded one per submission when it was processed; the exporter is asked only for what stands before
//! the first and after the last one. So a download of any size costs the memory of one page of chunks.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use formwork_engine::{CallContext, Frame, Kind};
use formwork_pipeline::Pipeline;
use formwork_tasks::Pool;
use futures::stream;
use serde_json::Value;

use super::correlation::CorrelationId;
use super::forms::lane;
use super::params::{FormId, InPath, InQuery, VersionQuery};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;

/// Chunks read from the store at once.
const PAGE_CHUNKS: u32 = 256;

/// The format that exporters use when the settings name none.
const DEFAULT_FORMAT: &str = "jsonl";

/// Who calls, in the engine's metrics.
const OWNER: &str = "http";

/// Everything one export step has written for a form version, as one file.
#[utoipa::path(get, path = "/v1/forms/{form}/exports/{step}", tag = "exports",
    params(("form" = String, Path, description = "The form's id"), ("step" = String, Path, description = "The export step's name"), VersionQuery),
    responses((status = 200, description = "The file; its media type follows the step's `format`", content_type = "application/octet-stream", body = String),
        (status = 404, description = "`unknown-form`, `unknown-form-version`, `unknown-step`", body = ProblemDocument),
        (status = 500, description = "`plugin-failed`", body = ProblemDocument)))]
pub(crate) async fn get(
    State(app): State<App>,
    InPath((id, step)): InPath<(String, String)>,
    InQuery(query): InQuery<VersionQuery>,
    correlation: CorrelationId,
) -> Result<Response, Problem> {
    let id = FormId::try_new(id)?;
    let pipeline = app.form(&id, query.version).await?;
    let format = exporter_format(&app, &pipeline, &step)?;
    let begin = frame(&app, &pipeline, &step, Frame::Begin, &correlation).await?;
    let (media_type, extension) = media_type(&format);
    let name = format!("{}-v{}-{step}.{extension}", id.0, pipeline.version());
    let source = Source {
        app,
        pipeline,
        step,
        correlation,
        form: id.0,
    };
    let body = Body::from_stream(stream::try_unfold((source, Next::Bytes(begin)), |(source, next)| {
        source.step(next)
    }));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    // Form ids and step names have no character that would need quoting.
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// The export step's format, or the problem that names those there are.
fn exporter_format(app: &App, pipeline: &Pipeline, step: &str) -> Result<String, Problem> {
    let exports = |plugin: &str| {
        app.catalog
            .resolve(plugin)
            .is_ok_and(|plugin| plugin.manifest().kind == Kind::Exporter)
    };
    let steps = &pipeline.definition().pipeline;
    if let Some(found) = steps
        .iter()
        .find(|candidate| candidate.name == step && exports(&candidate.plugin))
    {
        let format = found.settings.get("format").and_then(Value::as_str);
        return Ok(format.unwrap_or(DEFAULT_FORMAT).to_owned());
    }
    let known: Vec<&str> = steps
        .iter()
        .filter(|step| exports(&step.plugin))
        .map(|step| step.name.as_str())
        .collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let shown: String = step.chars().take(formwork_tasks::pipeline::MAX_NAME_LENGTH).collect();
    Err(Problem::new(
        Code::UnknownStep,
        format!("no export step `{}` (export steps: {known})", shown.escape_debug()),
    ))
}

fn media_type(format: &str) -> (&'static str, &'static str) {
    match format {
        "csv" => ("text/csv; charset=utf-8", "csv"),
        "jsonl" => ("application/x-ndjson", "jsonl"),
        "json" => ("application/json", "json"),
        _ => ("application/octet-stream", "bin"),
    }
}

async fn frame(
    app: &App,
    pipeline: &Arc<Pipeline>,
    step: &str,
    frame: Frame,
    correlation: &CorrelationId,
) -> Result<Vec<u8>, Problem> {
    let (pipeline, catalog, step) = (Arc::clone(pipeline), app.catalog.clone(), step.to_owned());
    let lane_of_exports = app.scheduler.lane(Pool::Default);
    let context = CallContext {
        deadline: Some(std::time::Instant::now() + app.http.request_timeout()),
        owner: OWNER.into(),
        budget: Some(crate::pool_cpu::of(lane_of_exports.budget().clone())),
        correlation_id: correlation.0.clone(),
        ..CallContext::default()
    };
    let named = step.clone();
    let work = move || async move { pipeline.export_frame(&catalog, &step, frame, context).await };
    let made = lane_of_exports.spawn(work).await.map_err(lane)?;
    made.map_err(|error| {
        let code = if error.retryable() {
            Code::Unavailable
        } else {
            Code::PluginFailed
        };
        Problem::new(code, format!("step {named}: {error}")).with("error", error.code())
    })
}

/// What comes next in a download.
enum Next {
    /// These bytes, then chunks from the first.
    Bytes(Vec<u8>),
    /// Chunks after this sequence.
    Chunks(u64),
    /// What stands after the last chunk.
    End,
    /// Nothing.
    Done,
}

/// Where a download comes from.
struct Source {
    app: App,
    pipeline: Arc<Pipeline>,
    form: String,
    step: String,
    correlation: CorrelationId,
}

impl Source {
    /// The next bytes. An error ends the connection before its end mark, so that a client sees that the file is not
    /// complete.
    async fn step(self, next: Next) -> Result<Option<(Vec<u8>, (Self, Next))>, std::io::Error> {
        let (bytes, next) = match next {
            Next::Bytes(bytes) => (bytes, Next::Chunks(0)),
            Next::Chunks(after) => {
                let version = self.pipeline.version();
                let rows = self
                    .app
                    .store
                    .export_chunks(&self.form, version, &self.step, after, PAGE_CHUNKS)
                    .await;
                let rows = rows.map_err(std::io::Error::other)?;
                match rows.last().map(|row| row.sequence) {
                    Some(last) => (rows.into_iter().flat_map(|row| row.bytes).collect(), Next::Chunks(last)),
                    None => (Vec::new(), Next::End),
                }
            }
            Next::End => {
                let end = frame(&self.app, &self.pipeline, &self.step, Frame::End, &self.correlation).await;
                (
                    end.map_err(|problem| std::io::Error::other(problem.code().as_str()))?,
                    Next::Done,
                )
            }
            Next::Done => return Ok(None),
        };
        Ok(Some((bytes, (self, next))))
    }
}

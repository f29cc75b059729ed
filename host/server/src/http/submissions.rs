//! Taking submissions, and what became of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use formwork_pipeline::Pipeline;
use formwork_store::{Idempotency, NewSubmission, SubmissionId, SubmissionSummary, SubmissionView, Submit};
use formwork_tasks::SubmissionStatus;
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::answers::{
    self, Accepted, FormRef, LineAccepted, LineError, LinesAccepted, List, SubmissionAnswer, SubmissionHead,
};
use super::correlation::CorrelationId;
use super::json_body;
use super::params::{
    FormId, InPath, InQuery, LinesQuery, PageQuery, VersionQuery, idempotency_key, page, wait_seconds,
};
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use crate::clock;

/// Says that the answer is that of an earlier request under the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Lines of a request that are being recorded at a time: enough to share an fsync among many, and few enough that other
/// clients' submissions are recorded between them.
const LINES_IN_FLIGHT: usize = 64;

/// Submit a document. It is acknowledged once it is on disk; with `Prefer: wait=SECONDS` the answer has the results if
/// the work ends in time.
#[utoipa::path(post, path = "/v1/forms/{form}/submissions", tag = "submissions",
    params(("form" = String, Path, description = "The form's id"), VersionQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key and body give the same submission"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`: answer with the results if the work ends in time", example = "wait=10")),
    request_body(content = Object, content_type = "application/json", description = "The answers, bare",
        example = json!({ "name": "Ada", "email": "ada@example.org", "message": "Please give me my money back." })),
    responses(
        (status = 202, description = "Recorded; `Location` has the results once there are some", body = Accepted),
        (status = 200, description = "Recorded and settled in time", body = SubmissionAnswer),
        (status = 400, description = "`malformed-json`, `json-too-deep`, `duplicate-key`, `invalid-form-id`, `invalid-request`", body = ProblemDocument),
        (status = 404, description = "`unknown-form`, `unknown-form-version`", body = ProblemDocument),
        (status = 413, description = "`body-too-large`", body = ProblemDocument),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument),
        (status = 422, description = "`idempotency-key-reused`", body = ProblemDocument),
        (status = 503, description = "`unavailable`", body = ProblemDocument),
        (status = 507, description = "`storage-full`", body = ProblemDocument)))]
pub(crate) async fn create(
    State(app): State<App>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<VersionQuery>,
    CorrelationId(correlation_id): CorrelationId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let form = FormId::try_new(id)?;
    let key = idempotency_key(&headers)?;
    let wait = wait_seconds(&headers, app.http.max_wait_seconds)?;
    let data = json_body::read(&headers, body, app.document_limits()).await?;
    let target = Target {
        pipeline: app.form(&form, query.version).await?,
        form,
        version: query.version,
    };
    let submission = target.submission(data, key, correlation_id);
    let id = submission.id;
    let submitted_at = clock::now();
    let summary = SubmissionSummary {
        id,
        form: submission.form.clone(),
        form_version: submission.form_version,
        status: SubmissionStatus::Processing,
        correlation_id: submission.correlation_id.clone(),
        submitted_at,
        settled_at: None,
    };
    // Listen before anything is recorded, so that nothing falls between.
    let waiter = wait.map(|_| app.waiters.join(id));
    let (id, summary) = match app.store.submit(submission, submitted_at).await? {
        Submit::Created => (id, Some(summary)),
        Submit::Replayed { id } => (id, None),
        Submit::KeyReused { id } => return Err(key_reused(id)),
    };
    tracing::info!(submission = %id, replayed = summary.is_none(), "submission recorded");
    let replayed = summary.is_none();
    let settled = match (wait, waiter) {
        (Some(seconds), Some(waiter)) => {
            let waiter = if replayed { app.waiters.join(id) } else { waiter };
            settled(&app, id, &waiter, Duration::from_secs(seconds)).await?
        }
        _ => None,
    };
    let mut response = match (settled, summary) {
        (Some(view), _) => {
            let answer = with_steps(&app, view).await?;
            (StatusCode::OK, Json(answer)).into_response()
        }
        (None, Some(summary)) => (StatusCode::ACCEPTED, Json(Accepted::from(summary))).into_response(),
        (None, None) => {
            let found = app.store.submission(id).await?;
            let view = found.ok_or_else(|| Problem::internal(format!("replayed submission {id} is gone")))?;
            (StatusCode::ACCEPTED, Json(Accepted::from(view.summary))).into_response()
        }
    };
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/submissions/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(seconds) = wait
        && let Ok(applied) = HeaderValue::from_str(&format!("wait={seconds}"))
    {
        headers.insert(PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// Where submissions go.
struct Target {
    pipeline: Arc<Pipeline>,
    form: FormId,
    /// The version that the client asked for.
    version: Option<u32>,
}

impl Target {
    /// A new submission of a document that was checked.
    fn submission(&self, data: String, key: Option<String>, correlation_id: String) -> NewSubmission {
        // What the client sent decides, not which version was the latest at that moment: a repetition after a new version
        // was published is still a repetition.
        let fingerprint = || hex::encode(Sha256::digest(format!("{:?}\n{data}", self.version)));
        NewSubmission {
            id: SubmissionId::generate(),
            form: self.form.0.clone(),
            form_version: self.pipeline.version(),
            correlation_id,
            idempotency: key.map(|key| Idempotency {
                key,
                fingerprint: fingerprint(),
            }),
            priority: None,
            data,
        }
    }
}

fn key_reused(id: SubmissionId) -> Problem {
    let detail = format!("this idempotency key was used for another request, which made submission {id}");
    Problem::new(Code::IdempotencyKeyReused, detail).with("submission", id.to_string())
}

/// Submit many documents, one a line, each a submission of its own. A line that is wrong does not concern the others; a
/// line with an `id` is on disk. Send an `Idempotency-Key`: a request that broke off can then be repeated as it is.
#[utoipa::path(post, path = "/v1/forms/{form}/submit-lines", tag = "submissions",
    params(("form" = String, Path, description = "The form's id"), LinesQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key, line number and document give the same submission")),
    request_body(content = String, content_type = "application/x-ndjson", description = "One document a line",
        example = "{ \"message\": \"Hello\" }\n{ \"message\": \"Is anyone there?\" }\n"),
    responses(
        (status = 200, description = "What became of each", body = LinesAccepted, example = json!({
            "form": { "id": "contact", "version": 1 }, "recorded": 1, "replayed": 0, "failed": 1,
            "items": [ { "line": 1, "id": "01KF0Q6V7W5Z1M4B9N8D3R2T6X" },
                { "line": 2, "error": { "code": "malformed-json", "detail": "EOF while parsing an object at column 2" } } ] })),
        (status = 400, description = "`invalid-form-id`, `invalid-request`", body = ProblemDocument),
        (status = 404, description = "`unknown-form`, `unknown-form-version`", body = ProblemDocument),
        (status = 413, description = "`body-too-large`: more than `http.lines_limit_bytes` in all", body = ProblemDocument),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument)))]
pub(crate) async fn create_lines(
    State(app): State<App>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<LinesQuery>,
    CorrelationId(correlation_id): CorrelationId,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<LinesAccepted>, Problem> {
    let form = FormId::try_new(id)?;
    let key = idempotency_key(&headers)?;
    let first = query.first_line.map_or(1, NonZeroU32::get) as usize;
    let lines = json_body::read_lines(&headers, body, app.http.lines_limit_bytes, app.document_limits()).await?;
    let target = Target {
        pipeline: app.form(&form, query.version).await?,
        form,
        version: query.version,
    };
    let mut answer = LinesAccepted {
        form: FormRef {
            id: target.form.0.clone(),
            version: target.pipeline.version(),
        },
        recorded: 0,
        replayed: 0,
        failed: 0,
        items: Vec::with_capacity(lines.len()),
    };
    let submitting = lines.into_iter().map(|(number, document)| {
        let line = first + number - 1;
        let submission = document.map(|data| {
            let key = key.as_ref().map(|key| format!("{key}/{line}"));
            target.submission(data, key, format!("{correlation_id}-{line}"))
        });
        let store = &app.store;
        async move {
            let outcome = match submission {
                Ok(submission) => {
                    let id = submission.id;
                    let submitted = store.submit(submission, clock::now()).await;
                    submitted.map(|submitted| (id, submitted)).map_err(Problem::from)
                }
                Err(problem) => Err(problem),
            };
            (line, outcome)
        }
    });
    let mut submitted = futures::stream::iter(submitting).buffered(LINES_IN_FLIGHT);
    while let Some((line, outcome)) = submitted.next().await {
        answer.add(line, outcome);
    }
    drop(submitted);
    let (recorded, replayed, failed) = (answer.recorded, answer.replayed, answer.failed);
    tracing::info!(recorded, replayed, failed, "submissions recorded");
    Ok(Json(answer))
}

impl LinesAccepted {
    fn add(&mut self, line: usize, outcome: Result<(SubmissionId, Submit), Problem>) {
        let (id, replayed, error) = match outcome {
            Ok((id, Submit::Created)) => (Some(id), false, None),
            Ok((_, Submit::Replayed { id })) => (Some(id), true, None),
            Ok((_, Submit::KeyReused { id })) => (None, false, Some(key_reused(id))),
            Err(problem) => (None, false, Some(problem)),
        };
        *match (&error, replayed) {
            (Some(_), _) => &mut self.failed,
            (None, true) => &mut self.replayed,
            (None, false) => &mut self.recorded,
        } += 1;
        self.items.push(LineAccepted {
            line,
            id: id.map(|id| id.to_string()),
            replayed,
            error: error.map(LineError::from),
        });
    }
}

/// The submission once it is settled, or nothing when the time is over or the server stops.
async fn settled(
    app: &App,
    id: SubmissionId,
    waiter: &crate::waiters::Waiter,
    patience: Duration,
) -> Result<Option<SubmissionView>, Problem> {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let hint = waiter.hint();
        if let Some(view) = app.store.submission(id).await?
            && view.summary.status.is_settled()
        {
            return Ok(Some(view));
        }
        tokio::select! {
            () = hint => {}
            () = tokio::time::sleep_until(deadline) => return Ok(None),
            () = app.draining.cancelled() => return Ok(None),
        }
    }
}

async fn with_steps(app: &App, view: SubmissionView) -> Result<SubmissionAnswer, Problem> {
    let form = FormId::try_new(view.summary.form.clone())?;
    let pipeline = app.form(&form, Some(view.summary.form_version)).await?;
    Ok(answers::submission(view, &pipeline))
}

/// A submission with its results; with `Prefer: wait=SECONDS` as soon as it is settled.
#[utoipa::path(get, path = "/v1/submissions/{id}", tag = "submissions",
    params(("id" = String, Path, description = "The submission's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`: answer when it is settled, or after that time", example = "wait=10")),
    responses((status = 200, description = "The submission", body = SubmissionAnswer, example = json!({
            "id": "01KF0Q6V7W5Z1M4B9N8D3R2T6X", "form": { "id": "contact", "version": 1 }, "status": "done",
            "submitted_at": "2026-03-14T09:26:53.589Z", "settled_at": "2026-03-14T09:26:53.640Z",
            "correlation_id": "01KF0Q6V7WGJ", "data": { "message": "Hello" },
            "steps": [ { "name": "check", "state": "completed", "task": "01KF0Q6V7W5Z1M4B9N8D3R2T6X-0",
                "plugin": { "name": "validate", "version": "1.0.0", "digest": "sha256:…" }, "models": [], "attempts": 1,
                "cpu_ms": 0.4, "started_at": "2026-03-14T09:26:53.601Z", "finished_at": "2026-03-14T09:26:53.640Z",
                "output": { "valid": true, "findings": [] }, "error": null, "progress": null } ] })),
        (status = 404, description = "`unknown-submission`", body = ProblemDocument)))]
pub(crate) async fn get(
    State(app): State<App>,
    InPath(id): InPath<String>,
    headers: HeaderMap,
) -> Result<Json<SubmissionAnswer>, Problem> {
    let unknown = |detail: String| Problem::new(Code::UnknownSubmission, detail);
    let id: SubmissionId = id
        .parse()
        .map_err(|error: formwork_store::InvalidId| unknown(error.to_string()))?;
    let wait = wait_seconds(&headers, app.http.max_wait_seconds)?;
    let found = app.store.submission(id).await?;
    let mut view = found.ok_or_else(|| unknown(format!("unknown submission: {id}")))?;
    if let Some(seconds) = wait
        && !view.summary.status.is_settled()
    {
        let waiter = app.waiters.join(id);
        let settled = settled(&app, id, &waiter, Duration::from_secs(seconds)).await?;
        view = match settled {
            Some(settled) => settled,
            None => app.store.submission(id).await?.unwrap_or(view),
        };
    }
    Ok(Json(with_steps(&app, view).await?))
}

/// A form's submissions, newest first.
#[utoipa::path(get, path = "/v1/forms/{form}/submissions", tag = "submissions",
    params(("form" = String, Path, description = "The form's id"), PageQuery),
    responses((status = 200, description = "A page of submissions", body = List<SubmissionHead>),
        (status = 400, description = "`invalid-request`", body = ProblemDocument),
        (status = 404, description = "`unknown-form`", body = ProblemDocument)))]
pub(crate) async fn list(
    State(app): State<App>,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<List<SubmissionHead>>, Problem> {
    let form = FormId::try_new(id)?;
    let page = page(query.limit, query.cursor)?;
    let found = app.store.submissions(Some(&form.0), page).await?;
    if found.items.is_empty() {
        app.form(&form, None).await?;
    }
    let items = found.items.into_iter().map(SubmissionHead::from).collect();
    Ok(Json(List {
        items,
        next: found.next,
    }))
}

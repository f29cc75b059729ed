//! The outermost layer: correlation id, span, metrics, problem documents.
//!
//! A request is followed by one id: taken from `x-request-id` when it is a reasonable one, made otherwise, and echoed in
//! the response, in problem documents, in the span of every log line, in the submission and in its tasks.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::metrics;
use super::problem::{Code, Problem};

/// The header of the correlation id, in requests and responses.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest correlation id taken from a client, in characters: a UUID or trace id with room to spare.
pub const MAX_LENGTH: usize = 128;

/// The correlation id of a request, for handlers.
#[derive(Clone, Debug)]
pub struct CorrelationId(pub String);

impl CorrelationId {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers
            .get(HEADER)
            .and_then(|value| value.to_str().ok())
            .filter(|id| acceptable(id));
        Self(given.map_or_else(|| ulid::Ulid::generate().to_string(), str::to_owned))
    }
}

/// What may stand in logs, headers and URLs without being escaped.
fn acceptable(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/+=".contains(c);
    (1..=MAX_LENGTH).contains(&id.len()) && id.chars().all(plain)
}

/// Wraps every request.
pub async fn layer(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = CorrelationId::of(request.headers());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!("request", correlation_id = %id.0, %method, path = %request.uri().path());
    request.extensions_mut().insert(id.clone());
    let in_flight = metrics::Counted::request();
    let response = next.run(request).instrument(span.clone()).await;
    drop(in_flight);
    let mut response = finish(response, &id.0);
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(HEADER, value);
    }
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let (status, elapsed) = (response.status(), started.elapsed());
    metrics::observe(&method, &route, status, elapsed);
    span.in_scope(|| {
        let (status, elapsed_ms) = (status.as_u16(), elapsed.as_secs_f64() * 1e3);
        // Probes and scrapes come every few seconds and say nothing.
        if matches!(route.as_str(), "/livez" | "/readyz" | "/metrics") {
            tracing::debug!(status, elapsed_ms, "request");
        } else {
            tracing::info!(status, elapsed_ms, "request");
        }
    });
    response
}

/// Puts the problem document in: the handler's, or one for an answer the framework gave by itself.
fn finish(mut response: Response, correlation_id: &str) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return problem.render(correlation_id);
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        // The framework adds the `Allow` header after this layer.
        let problem = Problem::new(
            Code::MethodNotAllowed,
            "the `allow` header has the methods that this path takes",
        );
        return problem.render(correlation_id);
    }
    response
}

//! A request has an end: reading a body byte by byte does not hold a handler for ever.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::params::wait_seconds;
use super::problem::{Code, Problem};
use super::state::App;

/// Gives up after the configured time, and what the client wants to wait for results besides.
pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    // A malformed header is the handler's to refuse.
    let wait = wait_seconds(request.headers(), app.http.max_wait_seconds)
        .ok()
        .flatten()
        .unwrap_or(0);
    let limit = app.http.request_timeout() + Duration::from_secs(wait);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request took longer than {} ms", limit.as_millis());
            Problem::new(Code::RequestTimeout, detail)
                .with("limit_ms", app.http.request_timeout_ms)
                .into_response()
        }
    }
}

//! One bearer token for `/v1`, where one is configured. Probes, metrics and the description stay open.

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::{Code, Problem};
use super::state::App;

const PROTECTED: &str = "/v1/";

pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    if app.http.token.is_empty() || !request.uri().path().starts_with(PROTECTED) {
        return next.run(request).await;
    }
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match given {
        Some((_, token)) if same(token.trim(), &app.http.token) => next.run(request).await,
        Some(_) => Problem::new(Code::Unauthorized, "the bearer token is wrong").into_response(),
        None => Problem::new(Code::Unauthorized, "send `authorization: Bearer TOKEN`").into_response(),
    }
}

/// Compares digests: how long that takes tells nothing of the token.
fn same(left: &str, right: &str) -> bool {
    Sha256::digest(left) == Sha256::digest(right)
}

//! The HTTP rows: Formwork's synchronous validation, the same route with native Rust in the handler, and a server as
//! small as axum makes one. All three are sent to by the same client ([`Load`]).

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::load::Load;
use super::work::{FORM_ID, Work};
use crate::http::json_body::{self, Limits};
use crate::http::listener::{Listening, listen};
use crate::http::problem::Problem;
use crate::http::{App, layered};
use crate::serve::Server;

/// The route in all three servers.
const ROUTE: &str = "/v1/forms/{form}/validate";

/// What stands in the answer of a server that has validated.
const EXPECTED: &str = "\"valid\":true";

/// The servers under load.
pub(crate) struct HttpRows {
    pub(crate) formwork: Load,
    pub(crate) native: Load,
    pub(crate) bare: Load,
    // Serves until it is dropped.
    _native: Listening,
}

impl HttpRows {
    /// Publishes the form and starts the two native servers beside `server`.
    pub(crate) async fn start(server: &Server, work: &Work, connections: u16) -> anyhow::Result<Self> {
        publish(server.address(), &work.form).await?;
        let validator = Arc::new(work.native_validator()?);
        let app = server.app();
        let route = post({
            let validator = Arc::clone(&validator);
            move |state, path, headers, body| native(validator, state, path, headers, body)
        });
        let router = layered(Router::new().route(ROUTE, route), app.clone());
        let own = SocketAddr::from(([127, 0, 0, 1], 0));
        let native = listen(own, app.http.max_connections, router).await?;
        let listener = tokio::net::TcpListener::bind(own).await?;
        let bare = listener.local_addr()?;
        let router = Router::new().route(ROUTE, post(bare_handler)).with_state(validator);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let load = |address| Load {
            address,
            path: ROUTE.replace("{form}", FORM_ID),
            body: work.submission.clone(),
            connections,
            expect: Some(EXPECTED.into()),
        };
        Ok(Self {
            formwork: load(server.address()),
            native: load(native.address()),
            bare: load(bare),
            _native: native,
        })
    }

    /// Where the servers are, for a program that loads them itself.
    pub(crate) fn addresses(&self) -> Value {
        let url = |load: &Load| format!("http://{}{}", load.address, load.path);
        json!({ "formwork": url(&self.formwork), "native": url(&self.native), "bare": url(&self.bare) })
    }
}

/// Publishes a definition of the bench form; answers its version.
pub(crate) async fn publish(address: SocketAddr, definition: &str) -> anyhow::Result<u64> {
    let response = reqwest::Client::new()
        .put(format!("http://{address}/v1/forms/{FORM_ID}"))
        .header("content-type", "application/json")
        .body(definition.to_owned())
        .send()
        .await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "publishing the bench form: {answer}");
    answer["version"].as_u64().context("an answer without a version")
}

/// What Formwork's handler does, with native Rust for the plugin.
async fn native(
    validator: Arc<Validator>,
    State(app): State<App>,
    Path(form): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let limits = Limits {
        bytes: app.http.body_limit_bytes,
        depth: app.http.json_depth,
    };
    let text = json_body::read(&headers, body, limits).await?;
    let data: Value = serde_json::from_str(&text).map_err(Problem::internal)?;
    let findings = findings(&validator, &data);
    let valid = findings.is_empty();
    // As much as Formwork's answer says.
    Ok(Json(json!({
        "valid": valid, "form": { "id": form, "version": 1 }, "findings": findings,
        "steps": [ { "name": "check", "plugin": { "name": "native", "version": "1.0.0", "digest": "" },
            "cpu_ms": 0.0, "output": { "valid": valid, "findings": findings } } ],
    })))
}

async fn bare_handler(State(validator): State<Arc<Validator>>, Json(data): Json<Value>) -> Json<Value> {
    let findings = findings(&validator, &data);
    Json(json!({ "valid": findings.is_empty(), "findings": findings }))
}

fn findings(validator: &Validator, data: &Value) -> Vec<String> {
    if validator.is_valid(data) {
        return Vec::new();
    }
    validator.iter_errors(data).map(|error| error.to_string()).collect()
}

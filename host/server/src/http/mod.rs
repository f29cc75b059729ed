//! The HTTP API: one file per thing, one table of routes.
//!
//! Handlers say what happened ([`problem`]); the outermost layer ([`correlation`]) gives every answer its correlation id,
//! its metrics and its problem document. The runtime that serves requests never runs a plugin: calls go to the lane of a
//! pool.

mod answers;
mod auth;
mod autoscale;
pub mod correlation;
mod dead_letters;
mod exports;
mod forms;
mod health;
pub mod json_body;
pub mod listener;
pub mod metrics;
mod models;
pub mod openapi;
mod params;
mod plugins;
mod pools;
pub mod problem;
mod queue_metrics;
mod state;
mod submissions;
mod task_events;
mod task_filter;
mod tasks;
mod timeout;
mod validation;

use std::any::Any;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post, put};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

pub use state::{App, Parts};

use problem::{Code, Problem};

/// Every route with its methods: the router is made of it, and `/openapi.json` is held against it by a test.
fn routes() -> Vec<(&'static str, &'static [&'static str], MethodRouter<App>)> {
    vec![
        ("/", &["get"], get(health::root)),
        ("/livez", &["get"], get(health::livez)),
        ("/readyz", &["get"], get(health::readyz)),
        ("/metrics", &["get"], get(metrics::get)),
        ("/openapi.json", &["get"], get(openapi::get)),
        ("/problems", &["get"], get(health::problems)),
        ("/problems/{code}", &["get"], get(health::problem)),
        ("/v1/forms", &["get"], get(forms::list)),
        ("/v1/forms/{form}", &["get", "put"], put(forms::put).get(forms::get)),
        ("/v1/forms/{form}/versions", &["get"], get(forms::versions)),
        ("/v1/forms/{form}/versions/{version}", &["get"], get(forms::version)),
        ("/v1/forms/{form}/validate", &["post"], post(validation::one)),
        ("/v1/forms/{form}/validate-lines", &["post"], post(validation::lines)),
        (
            "/v1/forms/{form}/submissions",
            &["get", "post"],
            post(submissions::create).get(submissions::list),
        ),
        (
            "/v1/forms/{form}/submit-lines",
            &["post"],
            post(submissions::create_lines),
        ),
        ("/v1/forms/{form}/exports/{step}", &["get"], get(exports::get)),
        ("/v1/submissions/{id}", &["get"], get(submissions::get)),
        ("/v1/tasks", &["get"], get(tasks::list)),
        ("/v1/tasks/{id}", &["get"], get(tasks::get)),
        ("/v1/tasks/{id}/events", &["get"], get(task_events::get)),
        ("/v1/tasks/{id}/cancel", &["post"], post(tasks::cancel)),
        ("/v1/tasks/{id}/retry", &["post"], post(tasks::retry)),
        ("/v1/dead-letters", &["get"], get(dead_letters::list)),
        ("/v1/dead-letters/redrive", &["post"], post(dead_letters::redrive)),
        ("/v1/pools", &["get"], get(pools::list)),
        ("/v1/pools/{pool}", &["patch"], patch(pools::change)),
        ("/v1/pools/{pool}/pause", &["post"], post(pools::pause)),
        ("/v1/pools/{pool}/resume", &["post"], post(pools::resume)),
        ("/v1/autoscale", &["get"], get(autoscale::get)),
        ("/v1/plugins", &["get", "post"], get(plugins::list).post(plugins::push)),
        ("/v1/plugins/{name}", &["get"], get(plugins::get)),
        ("/v1/models", &["get"], get(models::list)),
        (
            "/v1/models/{name}",
            &["get", "patch"],
            get(models::get).patch(models::patch),
        ),
        ("/v1/models/{name}/load", &["post"], post(models::load)),
        ("/v1/models/{name}/unload", &["post"], post(models::unload)),
    ]
}

/// Every path with its methods, in lower case.
#[must_use]
pub fn route_list() -> Vec<(&'static str, &'static [&'static str])> {
    routes().into_iter().map(|(path, methods, _)| (path, methods)).collect()
}

/// What a process without the role `api` serves: what an orchestrator asks of every container.
const PROBES: [&str; 4] = ["/", "/livez", "/readyz", "/metrics"];

/// The API over these parts; without `api` only what probes and scrapers ask.
pub fn router(app: App, api: bool) -> Router {
    let mut router = Router::new();
    for (path, _, route) in routes().into_iter().filter(|(path, ..)| api || PROBES.contains(path)) {
        router = router.route(path, route);
    }
    layered(router.fallback(not_found), app)
}

/// Puts what every request passes through around some routes.
pub(crate) fn layered(router: Router<App>, app: App) -> Router {
    // One layer of four, outermost first: each that a router is given by itself costs an allocation and a copy of the rest
    // with every request.
    let layers = ServiceBuilder::new()
        .layer(from_fn(correlation::layer))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app.clone(), auth::layer))
        .layer(from_fn_with_state(app.clone(), timeout::layer));
    router.layer(layers).with_state(app)
}

async fn not_found(uri: axum::http::Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(
        Code::NotFound,
        format!("nothing is served at {path}, see /openapi.json"),
    )
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
    Problem::internal(format!("a handler panicked: {}", message.unwrap_or_default())).into_response()
}

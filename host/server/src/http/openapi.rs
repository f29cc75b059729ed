//! `/openapi.json`: the API's description, made from the handlers' own annotations.

use std::sync::LazyLock;

use axum::Json;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{
    autoscale, dead_letters, exports, forms, health, metrics, models, plugins, pools, submissions, task_events, tasks,
    validation,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Formwork",
        description = "Forms whose submissions are validated, classified, extracted and exported by sandboxed plugins.\n\n\
            Errors are RFC 9457 problem documents with a stable `code`; `/problems` lists all codes. Every answer has the \
            header `x-request-id`; send one to follow a request into its tasks and log lines.",
        license(name = "Apache-2.0")
    ),
    tags(
        (name = "forms", description = "Publish and read form definitions, validate without storing"),
        (name = "submissions", description = "Submit documents and get their results"),
        (name = "tasks", description = "What runs, has run, and failed"),
        (name = "exports", description = "Files that export steps have written"),
        (name = "operation", description = "Pools, plugins, models, probes, metrics")
    ),
    paths(
        health::root, health::livez, health::readyz, health::problems, health::problem, metrics::get, get,
        forms::list, forms::get, forms::put, forms::versions, forms::version, validation::one, validation::lines,
        submissions::create, submissions::create_lines, submissions::list, submissions::get, exports::get,
        tasks::list, tasks::get, task_events::get, tasks::cancel, tasks::retry,
        dead_letters::list, dead_letters::redrive, pools::list, pools::change, pools::pause, pools::resume, autoscale::get,
        plugins::list, plugins::push, plugins::get,
        models::list, models::get, models::patch, models::load, models::unload
    )
)]
struct Api;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = json!(Api::openapi());
    // Every route can also answer these; said once instead of at each.
    let shared = json!({ "description": "Any other problem", "content": { "application/problem+json": {
        "schema": { "$ref": "#/components/schemas/Problem" } } } });
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for operations in paths
        .into_iter()
        .flat_map(|paths| paths.values_mut())
        .filter_map(Value::as_object_mut)
    {
        for responses in operations
            .values_mut()
            .filter_map(|operation| operation.get_mut("responses"))
        {
            problems_have_their_media_type(responses);
            responses["default"] = shared.clone();
        }
    }
    document
});

/// The annotations say which body; the media type of problems follows from it.
fn problems_have_their_media_type(responses: &mut Value) {
    for response in responses.as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
        let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) else {
            continue;
        };
        let is_problem = |body: &Value| {
            body.pointer("/schema/$ref")
                .and_then(Value::as_str)
                .is_some_and(|schema| schema.ends_with("/Problem"))
        };
        if content.get("application/json").is_some_and(is_problem)
            && let Some(body) = content.remove("application/json")
        {
            content.insert(super::problem::MEDIA_TYPE.into(), body);
        }
    }
}

/// The description of this API, OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "operation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(crate) async fn get() -> Json<Value> {
    Json(DOCUMENT.clone())
}

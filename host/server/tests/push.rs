//! A plugin is pushed to a running server: used at once, there again after a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod serving;

use std::path::PathBuf;

use reqwest::StatusCode;
use serde_json::{Value, json};
use serving::Serving;

/// The first-party validator, as `make build` leaves it.
fn validator() -> Vec<u8> {
    let cache = std::env::var_os("FORMWORK_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/formwork"));
    let file = cache.join("plugins/validate-1.0.0.wasm");
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; run `make build`", file.display()))
}

/// The same plugin in another file: an unknown custom section follows.
fn changed(mut component: Vec<u8>) -> Vec<u8> {
    component.extend([0, 4, 3, b'n', b'e', b'w']);
    component
}

async fn push(client: &reqwest::Client, url: &str, component: Vec<u8>) -> (StatusCode, Value) {
    let request = client.post(format!("{url}/v1/plugins")).body(component);
    let answer = request.header("content-type", "application/wasm").send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_pushed_plugin_works_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let environment = [
        ("FORMWORK_PLUGINS__FOLDER", plugins.to_str().unwrap()),
        ("FORMWORK_MODELS", "[]"),
    ];
    let client = reqwest::Client::new();
    let mut server = Serving::start(folder.path(), &environment);
    let form = json!({ "schema": { "type": "object" }, "pipeline": [{ "name": "check", "plugin": "validate" }] });
    let publish = async |url: &str| {
        let put = client.put(format!("{url}/v1/forms/pushed")).json(&form);
        put.send().await.unwrap().status()
    };
    assert_eq!(publish(&server.url).await, StatusCode::UNPROCESSABLE_ENTITY);

    let (status, refused) = push(&client, &server.url, b"\0asm is not enough".to_vec()).await;
    assert_eq!(
        (status.as_u16(), &refused["code"]),
        (422, &json!("plugin-refused")),
        "{refused}"
    );
    let (status, pushed) = push(&client, &server.url, validator()).await;
    assert_eq!(
        (status.as_u16(), &pushed["name"]),
        (201, &json!("validate")),
        "{pushed}"
    );
    assert_eq!(pushed["aliases"], json!(["stable"]));
    assert_eq!(push(&client, &server.url, validator()).await, (StatusCode::OK, pushed));
    let (status, taken) = push(&client, &server.url, changed(validator())).await;
    assert_eq!(
        (status.as_u16(), &taken["code"]),
        (409, &json!("version-taken")),
        "{taken}"
    );
    assert_eq!(publish(&server.url).await, StatusCode::CREATED);

    server.kill();
    let server = Serving::start(folder.path(), &environment);
    let submit = client.post(format!("{}/v1/forms/pushed/submissions", server.url));
    let answer = submit
        .header("prefer", "wait=20")
        .json(&json!({}))
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["status"], "done", "{answer:#}");
}

//! A server of its own for each test; models and plugins are loaded once.

use std::path::Path;

use formwork_server::config::{self, Config};
use formwork_server::serve::{Machinery, Server};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

static MACHINERY: OnceCell<Machinery> = OnceCell::const_new();

/// A running server with a store in a temporary folder.
pub(crate) struct Running {
    server: Server,
    client: Client,
    folder: TempDir,
}

/// A response, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Checks that this is a complete problem document.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        assert_eq!(self.body["code"], code, "{:#}", self.body);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert_eq!(self.body["correlation_id"], self.header("x-request-id"));
        for member in ["title", "detail", "correlation_id"] {
            assert!(
                self.body[member].as_str().is_some_and(|text| !text.is_empty()),
                "no {member}: {:#}",
                self.body
            );
        }
    }
}

/// Starts a server with these changes to the defaults.
pub(crate) async fn start(changes: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    start_in(folder, changes).await
}

async fn start_in(folder: TempDir, changes: &str) -> Running {
    let config = configuration(folder.path(), changes);
    let machinery = MACHINERY.get_or_init(|| load(config.clone())).await;
    let server = Server::start_with(config, machinery.clone()).await.unwrap();
    Running {
        server,
        client: Client::new(),
        folder,
    }
}

/// Models are not loaded: these tests are about the API, and the two plugins they use need none.
fn configuration(folder: &Path, changes: &str) -> Config {
    let mut config = config::from_toml(changes).unwrap();
    config.store = format!("sqlite:{}", folder.join("formwork.db").display());
    config.http.listen.set_port(0);
    config.models.clear();
    config
}

async fn load(config: Config) -> Machinery {
    let machinery = Machinery::start(&config)
        .await
        .expect("run `make build`: the plugins are missing");
    for plugin in ["validate", "export"] {
        assert!(
            machinery.catalog.resolve(plugin).is_ok(),
            "run `make build`: plugin {plugin} is missing or refused: {:?}",
            machinery.refused
        );
    }
    machinery
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Pauses or resumes pool `high`.
    pub(crate) async fn pause_high(&self, paused: bool) {
        let change = formwork_store::PoolControlChange {
            paused: Some(paused),
            ..Default::default()
        };
        let (store, now) = (self.server().store(), formwork_server::clock::now());
        store
            .set_pool_control(formwork_tasks::Pool::High, change, now)
            .await
            .unwrap();
        self.server().scheduler().refresh_controls().await.unwrap();
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        read(self.request(Method::GET, path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        read(self.request(Method::PUT, path).json(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        read(self.request(Method::POST, path).json(body)).await
    }

    /// A body that need not be JSON.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        read(
            self.request(Method::POST, path)
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    /// Publishes the form that most tests use.
    pub(crate) async fn contact(&self) {
        let answer = self.put("/v1/forms/contact", &contact()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{:#}", answer.body);
    }

    /// Stops the server and starts another on the same store.
    pub(crate) async fn restart(self) -> Self {
        self.server.stop().await;
        start_in(self.folder, "").await
    }
}

/// Sends a request; an answer without JSON has the body `null`.
pub(crate) async fn read(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
    Answer { status, headers, body }
}

pub(crate) fn contact() -> Value {
    json!({
        "title": "Contact us",
        "schema": { "type": "object", "required": ["email", "message"], "properties": {
            "email": { "type": "string", "format": "email" }, "message": { "type": "string", "minLength": 5 } } },
        "pipeline": [
            { "name": "check", "plugin": "validate" },
            { "name": "archive", "plugin": "export", "settings": { "format": "csv" } } ]
    })
}

pub(crate) fn good() -> Value {
    json!({ "email": "ana@example.org", "message": "Please refund order A-1042" })
}

//! What bad input gets: a specific problem that names the place, nothing stored, and a server that still serves.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{contact, good, read, start};

const SUBMIT: &str = "/v1/forms/contact/submissions";

#[tokio::test]
async fn bad_bodies_are_told_apart() {
    let server = start("http = { body_limit_bytes = 100_000 }").await;
    server.contact().await;
    for path in [SUBMIT, "/v1/forms/contact/validate"] {
        let malformed = server.post_text(path, "{\n  \"email\": }").await;
        malformed.problem(400, "malformed-json");
        assert_eq!(
            (&malformed.body["line"], &malformed.body["column"]),
            (&json!(2), &json!(12)),
            "{:#}",
            malformed.body
        );

        let not_text = server.post_text(path, vec![b'"', 0xff, b'"']).await;
        not_text.problem(400, "malformed-json");
        assert_eq!(not_text.body["byte"], 1);

        let deep = server.post_text(path, "[".repeat(10_000) + &"]".repeat(10_000)).await;
        deep.problem(400, "json-too-deep");
        assert_eq!((&deep.body["limit"], &deep.body["byte"]), (&json!(64), &json!(64)));

        let twice = server.post_text(path, "{\"a\": [{\"b/c\": 1, \"b/c\": 2}]}").await;
        twice.problem(400, "duplicate-key");
        assert_eq!(twice.body["problems"][0]["pointer"], "/a/0/b~1c");

        server
            .post_text(path, " ".repeat(100_001))
            .await
            .problem(413, "body-too-large");
        let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1_000])).take_chunks(300);
        let streamed = server.post_text(path, reqwest::Body::wrap_stream(endless)).await;
        streamed.problem(413, "body-too-large");
        assert_eq!(streamed.body["limit"], 100_000);

        let wrong_type = read(
            server
                .request(Method::POST, path)
                .header("content-type", "text/plain")
                .body("{}"),
        )
        .await;
        wrong_type.problem(415, "unsupported-media-type");
        read(server.request(Method::POST, path).body("{}"))
            .await
            .problem(415, "unsupported-media-type");
    }
    assert_eq!(server.get(SUBMIT).await.body["items"], json!([]));
    assert_eq!(server.post(SUBMIT, &good()).await.status, StatusCode::ACCEPTED);
}

/// `StreamExt::take` under a name that says what it counts.
trait TakeChunks: futures::Stream + Sized {
    fn take_chunks(self, chunks: usize) -> futures::stream::Take<Self> {
        futures::StreamExt::take(self, chunks)
    }
}

impl<S: futures::Stream> TakeChunks for S {}

#[tokio::test]
async fn a_body_that_is_announced_far_too_large_is_not_read() {
    let server = start("").await;
    server.contact().await;
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST {SUBMIT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9999999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The server closes the connection after its answer, else this would not end.
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn definitions_are_refused_with_every_place() {
    let server = start("").await;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut definition = contact();
        change(&mut definition);
        definition
    };
    let cases: [(&str, Value); 7] = [
        (
            "/pipeline/0/plugin",
            with(&|form| form["pipeline"][0]["plugin"] = json!("validat")),
        ),
        (
            "/pipeline/0/plugin",
            with(&|form| form["pipeline"][0]["plugin"] = json!("validate@9.9.9")),
        ),
        (
            "/pipeline/1/after/0",
            with(&|form| form["pipeline"][1]["after"] = json!(["nothing"])),
        ),
        (
            "/pipeline/1/name",
            with(&|form| form["pipeline"][1]["name"] = json!("check")),
        ),
        ("/schema", with(&|form| form["schema"] = json!("none"))),
        (
            "/schema/properties/email/type",
            with(&|form| form["schema"]["properties"]["email"]["type"] = json!("strin")),
        ),
        (
            "/pipeline/1/settings",
            with(&|form| form["pipeline"][1]["settings"]["format"] = json!("xls")),
        ),
    ];
    for (pointer, definition) in cases {
        let refused = server.put("/v1/forms/contact", &definition).await;
        refused.problem(422, "invalid-definition");
        let places = refused.body["problems"].as_array().unwrap();
        let found = places.iter().any(|place| {
            place["pointer"]
                .as_str()
                .is_some_and(|found| found.starts_with(pointer))
        });
        assert!(found, "no problem at {pointer}: {:#}", refused.body);
    }
    let unknown = server
        .put("/v1/forms/contact", &with(&|form| form["pipelin"] = json!([])))
        .await;
    unknown.problem(422, "invalid-definition");
    assert!(
        unknown.body["detail"].as_str().unwrap().contains("pipelin"),
        "{:#}",
        unknown.body
    );
    server.get("/v1/forms/contact").await.problem(404, "unknown-form");
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let server = start("").await;
    let none = server.get("/v1/forms/contact").await;
    none.problem(404, "unknown-form");
    assert!(
        none.body["detail"].as_str().unwrap().contains("no form was published"),
        "{:#}",
        none.body
    );
    server.contact().await;
    let typo = server.post("/v1/forms/contcat/submissions", &good()).await;
    typo.problem(404, "unknown-form");
    assert!(
        typo.body["detail"].as_str().unwrap().contains("known: contact"),
        "{:#}",
        typo.body
    );
    let version = server.get("/v1/forms/contact/versions/7").await;
    version.problem(404, "unknown-form-version");
    assert_eq!(version.body["latest_version"], 1);
    server
        .post("/v1/forms/contact/submissions?version=7", &good())
        .await
        .problem(404, "unknown-form-version");
    let cases = [
        ("/v1/submissions/01KF0Q6V7W5Z1M4B9N8D3R2T6X", "unknown-submission"),
        ("/v1/submissions/nonsense", "unknown-submission"),
        ("/v1/tasks/01KF0Q6V7W5Z1M4B9N8D3R2T6X-0", "unknown-task"),
        ("/v1/tasks/nonsense", "unknown-task"),
        ("/v1/plugins/nonsense", "unknown-plugin"),
        ("/v1/nonsense", "not-found"),
        ("/nonsense", "not-found"),
        ("/problems/nonsense", "not-found"),
    ];
    for (path, code) in cases {
        server.get(path).await.problem(404, code);
    }
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let server = start("").await;
    server.contact().await;
    for id in [
        "Contact",
        "-x",
        "a%20b",
        "%ff",
        "a".repeat(65).as_str(),
        "..%2f..%2fetc",
    ] {
        let refused = server.put(&format!("/v1/forms/{id}"), &contact()).await;
        let code = if id == "%ff" {
            "invalid-request"
        } else {
            "invalid-form-id"
        };
        refused.problem(400, code);
    }
    for path in [
        "/v1/tasks?state=done",
        "/v1/tasks?pool=fast",
        "/v1/tasks?limit=0",
        "/v1/tasks?limit=1001",
        "/v1/tasks?limit=x",
        "/v1/tasks?stat=dead",
        "/v1/tasks?cursor=nonsense",
        "/v1/forms/contact/submissions?cursor=nonsense",
        "/v1/forms/contact/versions/x",
    ] {
        server.get(path).await.problem(400, "invalid-request");
    }
    let long = "k".repeat(256);
    for (name, value) in [
        ("prefer", "wait=soon"),
        ("idempotency-key", ""),
        ("idempotency-key", long.as_str()),
    ] {
        let request = server.request(Method::POST, SUBMIT).header(name, value).json(&good());
        read(request).await.problem(400, "invalid-request");
    }
    let refused = read(server.request(Method::DELETE, "/v1/forms/contact")).await;
    refused.problem(405, "method-not-allowed");
    assert!(refused.header("allow").contains("PUT"));
}

#[tokio::test]
async fn a_correlation_id_that_is_not_one_is_replaced() {
    let server = start("").await;
    for given in ["with blank", "", "x".repeat(200).as_str(), "quote\"inside"] {
        let answer = read(server.request(Method::GET, "/livez").header("x-request-id", given)).await;
        let made = answer.header("x-request-id");
        assert!(!made.is_empty() && made != given, "{made}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_where_one_is_configured() {
    let server = start("http = { token = \"s3cret\" }").await;
    let refused = server.get("/v1/forms").await;
    refused.problem(401, "unauthorized");
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    read(server.request(Method::GET, "/v1/forms").bearer_auth("wrong"))
        .await
        .problem(401, "unauthorized");
    let allowed = read(server.request(Method::GET, "/v1/forms").bearer_auth("s3cret")).await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(server.get("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_request() {
    let server = start("http = { request_timeout_ms = 200 }").await;
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let head =
        format!("POST {SUBMIT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request-timeout"), "{answer}");
}

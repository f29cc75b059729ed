//! Many documents in one request, batches, and how far a form's snapshots are.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Running, contact, read, start};

async fn validate_lines(server: &Running, media_type: &str, body: &str) -> Answer {
    let request = server.request(Method::POST, "/v1/forms/contact/validate-lines");
    read(request.header("content-type", media_type).body(body.to_owned())).await
}

/// The contact form whose validator takes `batch` submissions at once.
fn batched(batch: u32) -> Value {
    let mut form = contact();
    form["pipeline"][0]["batch"] = json!(batch);
    form
}

#[tokio::test]
async fn each_line_is_validated_for_itself_in_batches_and_without() {
    let server = start("[http]\nbody_limit_bytes = 200\n").await;
    let good = r#"{ "email": "ana@example.org", "message": "hello there" }"#;
    let long = format!(r#"{{ "email": "ana@example.org", "message": "{}" }}"#, "x".repeat(300));
    let body = [
        good,
        r#"{ "message": "hi" }"#,
        "",
        "not json",
        r#"{ "a": 1, "a": 2 }"#,
        &long,
        good,
    ]
    .join("\n");
    for batch in [1, 2, 64] {
        server.put("/v1/forms/contact", &batched(batch)).await;
        let answer = validate_lines(&server, "application/x-ndjson", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
        let counts = ["valid", "invalid", "failed"].map(|name| answer.body[name].as_u64());
        assert_eq!(counts, [Some(2), Some(1), Some(3)], "{:#}", answer.body);
        let items = answer.body["items"].as_array().unwrap();
        let lines: Vec<_> = items.iter().filter_map(|item| item["line"].as_u64()).collect();
        assert_eq!(lines, [1, 2, 4, 5, 6, 7]);
        assert_eq!(items[0]["valid"], true);
        let pointers: Vec<_> = items[1]["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| &f["pointer"])
            .collect();
        assert!(pointers.contains(&&json!("/message")), "{:#}", items[1]);
        for (item, code) in [(2, "malformed-json"), (3, "duplicate-key"), (4, "body-too-large")] {
            assert_eq!(items[item]["error"]["code"], code);
            assert_eq!(items[item]["valid"], Value::Null);
        }
    }
}

#[tokio::test]
async fn a_request_of_many_lines_is_bounded_and_says_what_it_is() {
    let server = start("[http]\nlines_limit_bytes = 1000\n").await;
    server.contact().await;
    validate_lines(&server, "application/json", "{}")
        .await
        .problem(415, "unsupported-media-type");
    validate_lines(&server, "application/x-ndjson", &"{}\n".repeat(500))
        .await
        .problem(413, "body-too-large");
    let nothing = validate_lines(&server, "application/x-ndjson", "\n\n").await;
    assert_eq!(nothing.body["items"], json!([]));
}

#[tokio::test]
async fn a_batch_has_a_size_and_a_kind() {
    let server = start("").await;
    for (batch, expected) in [(0, "1 to 256"), (257, "1 to 256")] {
        let answer = server.put("/v1/forms/contact", &batched(batch)).await;
        answer.problem(422, "invalid-definition");
        assert_eq!(answer.body["problems"][0]["pointer"], "/pipeline/0/batch");
        let message = answer.body["problems"][0]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(
        server.put("/v1/forms/contact", &batched(256)).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_published_form_gets_its_snapshots_without_a_submission() {
    let server = start("").await;
    server.contact().await;
    // Made behind the publishing; every look is a request.
    for _ in 0..10_000 {
        let form = server.get("/v1/forms/contact").await.body;
        let snapshots = form["snapshots"].as_array().unwrap();
        let steps: Vec<_> = snapshots.iter().map(|snapshot| &snapshot["step"]).collect();
        assert_eq!(steps, ["check", "archive"]);
        if snapshots.iter().all(|snapshot| snapshot["state"] == "ready") {
            assert!(snapshots[0]["bytes"].as_u64() > Some(0));
            return;
        }
    }
    panic!("no snapshot after ten thousand requests");
}

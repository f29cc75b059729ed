//! Many submissions in one request.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Running, good, read, start};

async fn submit_lines(server: &Running, query: &str, key: Option<&str>, body: &str) -> Answer {
    let path = format!("/v1/forms/contact/submit-lines{query}");
    let mut request = server.request(Method::POST, &path);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    read(
        request
            .header("content-type", "application/x-ndjson")
            .body(body.to_owned()),
    )
    .await
}

/// Recorded, recorded before, failed.
#[track_caller]
fn counts(answer: &Answer, expected: [u64; 3]) {
    assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
    let counts = ["recorded", "replayed", "failed"].map(|name| answer.body[name].as_u64().unwrap());
    assert_eq!(counts, expected, "{:#}", answer.body);
}

fn each<'a>(answer: &'a Answer, name: &str) -> Vec<&'a Value> {
    let items = answer.body["items"].as_array().unwrap();
    items.iter().map(|item| &item[name]).collect()
}

/// A document that is told from others by its message.
fn numbered(number: usize) -> String {
    let mut document = good();
    document["message"] = json!(format!("message number {number}"));
    document.to_string()
}

#[tokio::test]
async fn each_line_is_a_submission_of_its_own_and_a_wrong_one_concerns_no_other() {
    let server = start("[http]\nbody_limit_bytes = 200\n").await;
    server.contact().await;
    let long = json!({ "message": "x".repeat(300) }).to_string();
    let body = [&numbered(1), "not json", "", "{\"a\":1,\"a\":2}", &long, &numbered(6)].join("\n");
    let answer = submit_lines(&server, "", None, &body).await;
    counts(&answer, [2, 0, 3]);
    assert_eq!(answer.body["form"], json!({ "id": "contact", "version": 1 }));
    assert_eq!(each(&answer, "line"), [1, 2, 4, 5, 6]);
    let codes: Vec<_> = each(&answer, "error")
        .iter()
        .map(|error| error["code"].clone())
        .collect();
    assert_eq!(
        codes,
        [
            json!(null),
            json!("malformed-json"),
            json!("duplicate-key"),
            json!("body-too-large"),
            json!(null)
        ]
    );
    assert_eq!(each(&answer, "error")[1]["detail"], "expected ident at column 2");
    let ids: Vec<_> = each(&answer, "id").into_iter().filter_map(Value::as_str).collect();
    assert!(ids.is_sorted(), "in the order of the lines: {ids:?}");
    for (id, number) in ids.into_iter().zip([1, 6]) {
        let request = server.request(Method::GET, &format!("/v1/submissions/{id}"));
        let found = read(request.header("prefer", "wait=50")).await;
        assert_eq!(found.body["status"], "done", "{:#}", found.body);
        assert_eq!(found.body["data"]["message"], format!("message number {number}"));
        let correlation = found.body["correlation_id"].as_str().unwrap();
        assert_eq!(correlation, format!("{}-{number}", answer.header("x-request-id")));
    }
}

#[tokio::test]
async fn a_request_under_a_key_can_be_repeated_in_other_parts() {
    let server = start("").await;
    server.contact().await;
    let lines: Vec<_> = (1..=300).map(numbered).collect();
    let first = submit_lines(&server, "", Some("import"), &lines[..200].join("\n")).await;
    counts(&first, [200, 0, 0]);
    let whole = submit_lines(&server, "", Some("import"), &lines.join("\n")).await;
    counts(&whole, [100, 200, 0]);
    assert_eq!(each(&whole, "id")[..200], each(&first, "id"));
    let part = submit_lines(&server, "?first_line=151", Some("import"), &lines[150..].join("\n")).await;
    counts(&part, [0, 150, 0]);
    assert_eq!(each(&part, "id"), each(&whole, "id")[150..]);
    assert_eq!(each(&part, "line")[0], 151);

    let changed = [&lines[0], &lines[5], &numbered(301)].map(String::as_str).join("\n");
    let changed = submit_lines(&server, "", Some("import"), &changed).await;
    counts(&changed, [0, 1, 2]);
    assert_eq!(each(&changed, "error")[1]["code"], "idempotency-key-reused");
    counts(&submit_lines(&server, "", None, &lines[0]).await, [1, 0, 0]);
}

#[tokio::test]
async fn a_request_that_is_wrong_as_a_whole_records_nothing() {
    let server = start("[http]\nlines_limit_bytes = 1000\n").await;
    let nowhere = submit_lines(&server, "", None, &numbered(1)).await;
    nowhere.problem(404, "unknown-form");
    server.contact().await;
    let too_large = submit_lines(&server, "", None, &[numbered(1), " ".repeat(1_000)].join("\n")).await;
    too_large.problem(413, "body-too-large");
    let none = submit_lines(&server, "?version=2", None, &numbered(1)).await;
    none.problem(404, "unknown-form-version");
    let zero = submit_lines(&server, "?first_line=0", None, &numbered(1)).await;
    zero.problem(400, "invalid-request");
    let json = server.post("/v1/forms/contact/submit-lines", &good()).await;
    json.problem(415, "unsupported-media-type");
    let nothing = submit_lines(&server, "", None, "\n\n").await;
    counts(&nothing, [0, 0, 0]);
    let list = server.get("/v1/forms/contact/submissions").await;
    assert_eq!(list.body["items"], json!([]));
}

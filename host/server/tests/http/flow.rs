//! What the quick start does, and what follows from it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{contact, good, read, start};

#[tokio::test]
async fn a_form_is_published_in_immutable_versions() {
    let server = start("").await;
    let first = server.put("/v1/forms/contact", &contact()).await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!(first.header("location"), "/v1/forms/contact/versions/1");
    let again = server.put("/v1/forms/contact", &contact()).await;
    assert_eq!((again.status, &again.body["created"]), (StatusCode::OK, &json!(false)));

    let mut changed = contact();
    changed["title"] = json!("Write to us");
    let second = server.put("/v1/forms/contact", &changed).await;
    assert_eq!(
        (second.status, &second.body["version"]),
        (StatusCode::CREATED, &json!(2))
    );

    let latest = server.get("/v1/forms/contact").await.body;
    assert_eq!(
        (&latest["version"], &latest["definition"]["title"]),
        (&json!(2), &json!("Write to us"))
    );
    let old = server.get("/v1/forms/contact/versions/1").await.body;
    assert_eq!(old["definition"], contact());
    let versions = server.get("/v1/forms/contact/versions").await.body;
    assert_eq!(versions["items"].as_array().map(Vec::len), Some(2));
    let forms = server.get("/v1/forms").await.body;
    assert_eq!(forms["items"][0]["id"], "contact");
}

#[tokio::test]
async fn a_submission_is_accepted_worked_on_and_shown_with_its_provenance() {
    let server = start("").await;
    server.contact().await;
    let request = server
        .request(Method::POST, "/v1/forms/contact/submissions")
        .header("x-request-id", "my-trace/1");
    let accepted = read(request.json(&good())).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{:#}", accepted.body);
    assert_eq!(accepted.header("x-request-id"), "my-trace/1");
    let location = accepted.header("location").to_owned();
    assert_eq!(accepted.body["location"], location.as_str());

    let settled = read(server.request(Method::GET, &location).header("prefer", "wait=30"))
        .await
        .body;
    assert_eq!(settled["status"], "done", "{settled:#}");
    assert_eq!(settled["data"], good());
    assert_eq!(settled["form"], json!({ "id": "contact", "version": 1 }));
    assert_eq!(settled["correlation_id"], "my-trace/1");
    let steps = settled["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0]["output"]["valid"], true);
    for (step, plugin) in steps.iter().zip(["validate", "export"]) {
        assert_eq!(
            (&step["state"], &step["attempts"], &step["error"]),
            (&json!("completed"), &json!(1), &Value::Null)
        );
        assert_eq!(step["plugin"]["name"], plugin);
        assert!(step["plugin"]["digest"].as_str().unwrap().starts_with("sha256:"));
        assert!(step["cpu_ms"].as_f64().unwrap() > 0.0);
        assert!(step["started_at"].as_str() <= step["finished_at"].as_str());
    }

    let task = server
        .get(&format!("/v1/tasks/{}", steps[0]["task"].as_str().unwrap()))
        .await
        .body;
    let moves: Vec<&str> = task["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["to"].as_str())
        .collect();
    assert_eq!(moves, ["available", "running", "completed"]);
    let tasks = server
        .get("/v1/tasks?state=completed&form=contact&pool=high")
        .await
        .body;
    assert_eq!(tasks["items"][0]["step"], "check", "{tasks:#}");
    let listed = server.get("/v1/forms/contact/submissions").await.body;
    assert_eq!(listed["items"][0]["id"], settled["id"]);
}

#[tokio::test]
async fn a_rejected_submission_says_why_and_what_was_skipped() {
    let server = start("").await;
    server.contact().await;
    let request = server
        .request(Method::POST, "/v1/forms/contact/submissions")
        .header("prefer", "wait=30");
    let answer = read(request.json(&json!({ "email": "ana", "message": "Please" }))).await;
    assert_eq!(
        (answer.status, &answer.body["status"]),
        (StatusCode::OK, &json!("rejected")),
        "{:#}",
        answer.body
    );
    assert_eq!(answer.header("preference-applied"), "wait=30");
    let steps = &answer.body["steps"];
    assert_eq!(steps[0]["output"]["findings"][0]["pointer"], "/email");
    assert_eq!(
        (&steps[1]["state"], &steps[1]["task"]),
        (&json!("skipped"), &Value::Null)
    );
}

#[tokio::test]
async fn data_is_kept_as_it_was_sent() {
    let server = start("").await;
    let form = json!({ "schema": {}, "pipeline": [ { "name": "check", "plugin": "validate" } ] });
    assert_eq!(server.put("/v1/forms/any", &form).await.status, StatusCode::CREATED);
    let sent = "{\"z\": 1.10, \"a\": 12345678901234567890123, \"\\u00e9\": \"\\ud83d\\ude00\"}";
    let accepted = server.post_text("/v1/forms/any/submissions", sent).await;
    let location = accepted.header("location").to_owned();
    let text = server
        .request(Method::GET, &location)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(text.contains(&format!("\"data\":{sent}")), "{text}");
}

#[tokio::test]
async fn a_repeated_request_with_the_same_key_is_recorded_once() {
    let server = start("").await;
    server.contact().await;
    let submit = |key: &str, body: Value| {
        let request = server
            .request(Method::POST, "/v1/forms/contact/submissions")
            .header("idempotency-key", key);
        read(request.json(&body))
    };
    let first = submit("k-1", good()).await;
    // A new version in between does not make the repetition another request.
    let mut changed = contact();
    changed["title"] = json!("Write to us");
    server.put("/v1/forms/contact", &changed).await;
    let second = submit("k-1", good()).await;
    assert_eq!(first.body["id"], second.body["id"]);
    assert_eq!(second.status, StatusCode::ACCEPTED);
    assert_eq!(
        (
            first.header("idempotency-replayed"),
            second.header("idempotency-replayed")
        ),
        ("", "true")
    );
    assert_ne!(submit("k-2", good()).await.body["id"], first.body["id"]);
    let reused = submit("k-1", json!({ "other": true })).await;
    reused.problem(422, "idempotency-key-reused");
    assert_eq!(reused.body["submission"], first.body["id"]);
    let listed = server.get("/v1/forms/contact/submissions").await.body;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn validation_answers_at_once_and_stores_nothing() {
    let server = start("").await;
    server.contact().await;
    let valid = server.post("/v1/forms/contact/validate", &good()).await;
    assert_eq!(
        (valid.status, &valid.body["valid"]),
        (StatusCode::OK, &json!(true)),
        "{:#}",
        valid.body
    );
    let invalid = server
        .post("/v1/forms/contact/validate", &json!({ "email": "ana@example.org" }))
        .await;
    assert_eq!(invalid.body["valid"], false);
    assert_eq!(invalid.body["findings"][0]["pointer"], "/message");
    assert_eq!(invalid.body["steps"][0]["plugin"]["name"], "validate");
    let listed = server.get("/v1/forms/contact/submissions").await.body;
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test]
async fn an_export_is_one_file_with_its_frame() {
    let server = start("").await;
    server.contact().await;
    for number in 0..3 {
        let data = json!({ "email": "ana@example.org", "message": format!("Message {number}, \"quoted\"") });
        let request = server
            .request(Method::POST, "/v1/forms/contact/submissions")
            .header("prefer", "wait=30");
        assert_eq!(read(request.json(&data)).await.body["status"], "done");
    }
    let response = server
        .request(Method::GET, "/v1/forms/contact/exports/archive")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/csv; charset=utf-8");
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"contact-v1-archive.csv\""
    );
    let text = response.text().await.unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "a head and three records: {text}");
    assert!(lines[0].contains("message"), "{text}");
    assert!(text.contains("Message 2, \"\"quoted\"\""), "{text}");
    server
        .get("/v1/forms/contact/exports/check")
        .await
        .problem(404, "unknown-step");
}

#[tokio::test]
async fn lists_have_pages() {
    let server = start("").await;
    server.contact().await;
    for _ in 0..5 {
        server.post("/v1/forms/contact/submissions", &good()).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/forms/contact/submissions?limit=2".to_owned();
    loop {
        let page = server.get(&path).await.body;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/forms/contact/submissions?limit=2&cursor={next}");
    }
    let mut newest_first = seen.clone();
    newest_first.sort_unstable_by(|left, right| right.cmp(left));
    newest_first.dedup();
    assert_eq!((seen.len(), &seen), (5, &newest_first));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let server = start("").await;
    server.contact().await;
    let id = server.post("/v1/forms/contact/submissions", &good()).await.body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let server = server.restart().await;
    let request = server
        .request(Method::GET, &format!("/v1/submissions/{id}"))
        .header("prefer", "wait=30");
    assert_eq!(read(request).await.body["status"], "done");
}

#[tokio::test]
async fn operators_see_pools_plugins_models_and_probes() {
    let server = start("").await;
    let pools = server.get("/v1/pools").await.body;
    let names: Vec<&str> = pools["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|pool| pool["name"].as_str())
        .collect();
    assert_eq!(names, ["high", "default", "batched"]);
    let plugin = server.get("/v1/plugins/validate").await.body;
    assert_eq!(plugin["versions"][0]["kind"], "validator", "{plugin:#}");
    assert!(plugin["versions"][0]["limits"]["cpu_ms"].as_u64() > Some(0));
    assert_eq!(server.get("/v1/models").await.body["items"], json!([]));
    server.server().scheduler().ready().await;
    let ready = server.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.body["ready"]),
        (StatusCode::OK, &json!(true)),
        "{:#}",
        ready.body
    );
    let metrics = server
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for name in [
        "formwork_http_requests_total{",
        "process_resident_memory_bytes ",
        "formwork_http_requests_in_flight_count ",
    ] {
        assert!(metrics.contains(name), "no {name} in {metrics}");
    }
}

#[tokio::test]
async fn tasks_that_ended_cannot_be_cancelled_or_retried() {
    let server = start("").await;
    server.contact().await;
    let request = server
        .request(Method::POST, "/v1/forms/contact/submissions")
        .header("prefer", "wait=30");
    let task = read(request.json(&good())).await.body["steps"][0]["task"]
        .as_str()
        .unwrap()
        .to_owned();
    for operation in ["cancel", "retry"] {
        let refused = read(server.request(Method::POST, &format!("/v1/tasks/{task}/{operation}"))).await;
        refused.problem(409, "wrong-state");
        assert_eq!(refused.body["state"], "completed");
    }
}

#[tokio::test]
async fn a_waiting_task_is_cancelled_and_retried() {
    let server = start("").await;
    server.contact().await;
    server.pause_high(true).await;
    let id = server.post("/v1/forms/contact/submissions", &good()).await.body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let cancelled = read(server.request(Method::POST, &format!("/v1/tasks/{id}-0/cancel"))).await;
    assert_eq!(
        (cancelled.status, &cancelled.body["state"]),
        (StatusCode::OK, &json!("cancelled")),
        "{:#}",
        cancelled.body
    );
    assert_eq!(
        server.get(&format!("/v1/submissions/{id}")).await.body["status"],
        "failed"
    );
    let retried = read(server.request(Method::POST, &format!("/v1/tasks/{id}-0/retry"))).await;
    assert_eq!(retried.body["state"], "available", "{:#}", retried.body);
    server.pause_high(false).await;
    let request = server
        .request(Method::GET, &format!("/v1/submissions/{id}"))
        .header("prefer", "wait=30");
    assert_eq!(read(request).await.body["status"], "done");
}

//! `retry` and `limits` of a step, from the form's definition to the task.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Running, read, start};

fn form(step: Value) -> Value {
    let mut definition = json!({ "name": "check", "plugin": "validate" });
    definition
        .as_object_mut()
        .unwrap()
        .extend(step.as_object().unwrap().clone());
    json!({ "schema": {}, "pipeline": [definition] })
}

async fn refused(server: &Running, step: Value) -> Vec<String> {
    let answer = server.put("/v1/forms/rules", &form(step)).await;
    answer.problem(422, "invalid-definition");
    let problems = answer.body["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem["pointer"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn rules_that_cannot_be_right_are_refused_with_their_place() {
    let server = start("[pools.step_maxima]\nmax_attempts = 10\ncap_ms = 60000\nhard_ms = 5000").await;
    let cases = [
        (json!({ "retry": { "max_attempts": 0 } }), "/retry/max_attempts"),
        (json!({ "retry": { "max_attempts": 11 } }), "/retry/max_attempts"),
        (json!({ "retry": { "base_ms": 60001 } }), "/retry/base_ms"),
        (json!({ "retry": { "base_ms": 2, "cap_ms": 1 } }), "/retry/cap_ms"),
        (json!({ "retry": { "times": 3 } }), "/retry/times"),
        (json!({ "retry": { "base_ms": "soon" } }), "/retry/base_ms"),
        (
            json!({ "retry": { "errors": { "model~busy/": { "retry": true } } } }),
            "/retry/errors/model~0busy~1",
        ),
        (json!({ "retry": { "errors": { "trap": {} } } }), "/retry/errors/trap"),
        (
            json!({ "retry": { "errors": { "trap": { "retry": false, "base_ms": 1 } } } }),
            "/retry/errors/trap",
        ),
        (
            json!({ "retry": { "errors": { "trap": { "cap_ms": 60001 } } } }),
            "/retry/errors/trap/cap_ms",
        ),
        (
            json!({ "retry": { "base_ms": 5, "errors": { "trap": { "cap_ms": 4 } } } }),
            "/retry/errors/trap/cap_ms",
        ),
        (json!({ "limits": { "hard_ms": 0 } }), "/limits/hard_ms"),
        (json!({ "limits": { "hard_ms": 5001 } }), "/limits/hard_ms"),
        (json!({ "limits": { "soft_ms": 3, "hard_ms": 2 } }), "/limits/soft_ms"),
        (json!({ "limits": { "softly": 3 } }), "/limits/softly"),
    ];
    for (step, pointer) in cases {
        let pointer = format!("/pipeline/0{pointer}");
        assert_eq!(refused(&server, step.clone()).await, [pointer], "{step}");
    }
    let most = json!({ "retry": { "max_attempts": 10, "base_ms": 60000, "cap_ms": 60000 },
        "limits": { "soft_ms": 5000, "hard_ms": 5000 } });
    let taken = server.put("/v1/forms/rules", &form(most)).await;
    assert_eq!(taken.status, StatusCode::CREATED, "{:#}", taken.body);
}

#[tokio::test]
async fn a_steps_rules_hold_for_its_tasks() {
    let server = start("").await;
    // Takes far longer than a millisecond to validate, and far less than `validate` may take.
    let patterns: Vec<Value> = (0..20)
        .map(|number| json!({ "pattern": format!("^[a-z]+(?:Q{number})?$") }))
        .collect();
    let schema = json!({ "properties": { "words": { "items": { "allOf": patterns } } } });
    let words: Vec<String> = (0..20_000)
        .map(|number: u32| format!("abc{}", "d".repeat((number % 7) as usize)))
        .collect();
    let tried = async |retry: Value| -> Value {
        let mut definition = form(json!({ "retry": retry, "limits": { "hard_ms": 1 } }));
        definition["schema"] = schema.clone();
        let published = server.put("/v1/forms/hasty", &definition).await;
        assert_eq!(published.status, StatusCode::CREATED, "{:#}", published.body);
        let request = server
            .request(Method::POST, "/v1/forms/hasty/submissions")
            .header("prefer", "wait=30");
        let answer = read(request.json(&json!({ "words": words }))).await;
        assert_eq!(answer.body["status"], "failed", "{:#}", answer.body);
        let step = &answer.body["steps"][0];
        assert_eq!(step["error"]["code"], "deadline-exceeded", "{step:#}");
        let task = server
            .get(&format!("/v1/tasks/{}", step["task"].as_str().unwrap()))
            .await;
        json!([task.body["attempts"], task.body["dead_reason"]])
    };
    let twice = json!({ "max_attempts": 2, "base_ms": 1, "cap_ms": 1 });
    assert_eq!(tried(twice).await, json!([2, "exhausted"]));
    let never = json!({ "errors": { "deadline-exceeded": { "retry": false } } });
    assert_eq!(tried(never).await, json!([1, "failed"]));
}

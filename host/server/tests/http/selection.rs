//! Choosing tasks: the same words in every list and in bulk operations.

use formwork_store::Failure;
use formwork_tasks::{DeadReason, Disposition, Pool};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Running, good, start};

/// Two dead tasks, `failed` of `limit-cpu` and `exhausted` of `unavailable`, and one that waits; the submissions in this order.
async fn two_dead_and_one_waiting(server: &Running) -> Vec<String> {
    server.contact().await;
    server.pause_high(true).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let accepted = server.post("/v1/forms/contact/submissions", &good()).await;
        waiting.push(accepted.body["id"].as_str().unwrap().to_owned());
    }
    // Which of them is claimed first is open: they may be of the same millisecond.
    let mut ids = Vec::new();
    let store = server.server().store();
    let ends = [
        ("limit-cpu", DeadReason::Failed),
        ("unavailable", DeadReason::Exhausted),
    ];
    for (code, reason) in ends {
        let now = formwork_server::clock::now();
        let claimed = store.claim(Pool::High, "test", 1, 30_000, now).await.unwrap();
        let failure = Failure {
            code: code.into(),
            message: "it did not work".into(),
            disposition: Disposition::Dead(reason),
            provenance: None,
            cpu_ms: None,
        };
        store
            .fail(claimed[0].id, claimed[0].run_lease, failure, now)
            .await
            .unwrap();
        ids.push(claimed[0].id.submission.to_string());
    }
    waiting.retain(|id| !ids.contains(id));
    ids.append(&mut waiting);
    ids
}

#[tokio::test]
async fn tasks_and_dead_letters_are_chosen_by_the_same_words() {
    let server = start("").await;
    let ids = two_dead_and_one_waiting(&server).await;
    let found = async |path: String| -> Vec<usize> {
        let answer = server.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:#}", answer.body);
        let items = answer.body["items"].as_array().unwrap().iter();
        let mut places: Vec<usize> = items
            .map(|item| ids.iter().position(|id| item["submission"] == id.as_str()).unwrap())
            .collect();
        places.sort_unstable();
        places
    };
    let second = &ids[1];
    let newest = usize::from(ids[1] > ids[0]);
    let cases = [
        (String::new(), vec![0, 1]),
        ("reason=failed".into(), vec![0]),
        ("code=unavailable".into(), vec![1]),
        ("reason=failed&code=unavailable".into(), vec![]),
        (format!("submission={second}"), vec![1]),
        (
            "from=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00Z".into(),
            vec![0, 1],
        ),
        ("until=2020-01-01T00:00:00Z".into(), vec![]),
        ("pool=high&form=contact&step=check".into(), vec![0, 1]),
        ("pool=batched".into(), vec![]),
        ("limit=1".into(), vec![newest]),
    ];
    for (query, expected) in cases {
        assert_eq!(found(format!("/v1/dead-letters?{query}")).await, expected, "{query}");
        assert_eq!(
            found(format!("/v1/tasks?state=dead&{query}")).await,
            expected,
            "{query}"
        );
    }
    assert_eq!(found("/v1/tasks?state=available".into()).await, [2]);
    for wrong in [
        "reason=tired",
        "from=yesterday",
        "submission=x",
        "colour=red",
        "limit=0",
    ] {
        for list in ["/v1/tasks", "/v1/dead-letters"] {
            let refused = server.get(&format!("{list}?{wrong}")).await;
            refused.problem(400, "invalid-request");
        }
    }

    let redrive = "/v1/dead-letters/redrive";
    for wrong in [
        json!({}),
        json!({ "all": false }),
        json!({ "colour": "red" }),
        json!({ "code": 1 }),
    ] {
        server.post(redrive, &wrong).await.problem(400, "invalid-request");
    }
    let done = server.post(redrive, &json!({ "submission": second })).await;
    assert_eq!(done.body, json!({ "count": 1, "more": false }));
    assert_eq!(found("/v1/dead-letters".into()).await, [0]);
}

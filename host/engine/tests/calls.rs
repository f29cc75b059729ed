//! How calls end that end well. The others are in `tests/hostile`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use formwork_guests::OK;
use serde_json::json;
use support::{outcome, validator};

#[tokio::test]
async fn an_answer_is_an_answer() {
    let report = outcome(&validator("", OK, OK), &json!({})).await;
    assert_eq!(report.result.unwrap().json, json!({ "valid": true, "findings": [] }));
    assert!(report.usage.memory_bytes >= 65_536);
}

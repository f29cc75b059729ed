//! The part of the API that the campaign uses.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

/// The form of the campaign.
pub(crate) const FORM: &str = "campaign";

/// Submissions with a smaller number are rejected by the form: a rejection is an end as well.
pub(crate) const LEAST_VALID: u64 = 100;

/// Longest wait for an answer; a process that is killed closes its connections at once.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn definition() -> Value {
    json!({
        "title": "Campaign",
        "schema": { "type": "object", "required": ["number"],
            "properties": { "number": { "type": "integer", "minimum": LEAST_VALID } } },
        "pipeline": [
            { "name": "check", "plugin": "validate" },
            { "name": "archive", "plugin": "export", "settings": { "format": "jsonl" } }
        ]
    })
}

pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(ANSWER_PATIENCE).build()?)
}

/// What the server said to a submission.
pub(crate) struct Acknowledged {
    pub(crate) id: String,
    /// It had been recorded by an earlier request under the same key.
    pub(crate) replayed: bool,
}

/// Submits number `number` under its own idempotency key.
///
/// # Errors
/// No answer, or one that is not an acknowledgement: ask again.
pub(crate) async fn submit(client: &reqwest::Client, endpoint: &str, number: u64) -> anyhow::Result<Acknowledged> {
    let response = client
        .post(format!("{endpoint}/v1/forms/{FORM}/submissions"))
        .header("idempotency-key", format!("number-{number}"))
        .json(&json!({ "number": number }))
        .send()
        .await?;
    let status = response.status();
    let replayed = response.headers().contains_key("idempotency-replayed");
    let answer: Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "{status} {answer}");
    let id = answer["id"].as_str().context("an acknowledgement without an id")?;
    Ok(Acknowledged {
        id: id.to_owned(),
        replayed,
    })
}

/// A JSON document of the API.
pub(crate) async fn get(client: &reqwest::Client, url: &str) -> anyhow::Result<Value> {
    let response = client.get(url).send().await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "{url}: {status} {answer}");
    Ok(answer)
}

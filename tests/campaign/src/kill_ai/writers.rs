//! Those who want drafts: each asks for one, waits until it is there, and asks for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinHandle;

use super::nodes::DRAFTS;
use crate::api;

/// How often a writer looks whether its draft is there.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Writers at work.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<anyhow::Result<Vec<String>>>>,
}

impl Writers {
    pub(super) fn start(api: &str, count: u32) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let client = api::client()?;
        let running = (0..count)
            .map(|_| {
                let (stop, next, client, api) = (Arc::clone(&stop), Arc::clone(&next), client.clone(), api.to_owned());
                tokio::spawn(async move {
                    let mut drafts = Vec::new();
                    while !stop.load(Ordering::Acquire) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        // Repeated under its key until it is acknowledged.
                        let id = loop {
                            match ask(&client, &api, number).await {
                                Ok(id) => break id,
                                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                            }
                        };
                        drafts.push(id.clone());
                        let url = format!("{api}/v1/submissions/{id}");
                        // No answer says nothing about the draft.
                        let waits = |answer: serde_json::Value| answer["status"] == "processing";
                        while !stop.load(Ordering::Acquire) && api::get(&client, &url).await.map_or(true, waits) {
                            tokio::time::sleep(LOOK_EVERY).await;
                        }
                    }
                    Ok(drafts)
                })
            })
            .collect();
        Ok(Self { stop, running })
    }

    /// Asks for no more; answers the submissions that were acknowledged.
    pub(super) async fn finish(self) -> anyhow::Result<Vec<String>> {
        self.stop.store(true, Ordering::Release);
        let mut drafts = Vec::new();
        for writer in self.running {
            drafts.extend(writer.await??);
        }
        Ok(drafts)
    }
}

async fn ask(client: &reqwest::Client, api: &str, number: u64) -> anyhow::Result<String> {
    let response = client
        .post(format!("{api}/v1/forms/{DRAFTS}/submissions"))
        .header("idempotency-key", format!("draft-{number}"))
        .json(&json!({ "message": format!("Toaster number {number} burns every slice. What can I do?") }))
        .send()
        .await?;
    let status = response.status();
    let answer: serde_json::Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "asking for a draft: {status} {answer}");
    Ok(answer["id"]
        .as_str()
        .context("an acknowledgement without an id")?
        .to_owned())
}

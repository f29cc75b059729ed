//! `formwork task watch`: the events of a task, as they happen.
//!
//! A stream that breaks off (a server that restarts, a proxy that gives up) is opened again where it ended.

use std::time::Duration;

use anyhow::anyhow;
use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sse_stream::SseStream;

use super::Global;
use super::client::Client;
use super::exit::Failure;
use super::output::{cell, print};

/// Pause before a stream that broke off is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// How often in a row that is tried: as long as a server may take to start again.
const TRIES: u32 = 30;

/// What was heard of a task.
#[derive(Default)]
struct Heard {
    /// The id of the latest event.
    id: Option<String>,
    /// The latest state.
    state: String,
    ended: bool,
}

pub(super) async fn run(client: &Client, id: &str, global: &Global) -> Result<(), Failure> {
    let mut heard = Heard::default();
    let mut failed = 0;
    while !heard.ended {
        let before = heard.id.clone();
        match follow(client, id, &mut heard, global).await {
            // The first time, or a server that refuses: trying again would not help.
            Err(failure) if heard.id.is_none() || !matches!(failure, Failure::Unreachable(_)) => return Err(failure),
            Err(failure) if failed == TRIES => return Err(failure),
            Err(_) | Ok(()) => {}
        }
        failed = if heard.id == before { failed + 1 } else { 0 };
        if !heard.ended {
            tokio::time::sleep(RETRY).await;
        }
    }
    match heard.state.as_str() {
        "completed" => Ok(()),
        state => Err(Failure::Failed(anyhow!("task {id} is {state}"))),
    }
}

/// Until the task has ended, or the stream.
async fn follow(client: &Client, id: &str, heard: &mut Heard, global: &Global) -> Result<(), Failure> {
    let mut request = client.request(Method::GET, &["tasks", id, "events"], &[]);
    if let Some(id) = &heard.id {
        request = request.header("last-event-id", id);
    }
    let response = client.open(request).await?;
    if response.status() == StatusCode::NO_CONTENT {
        // It ended with the latest event that was heard.
        heard.ended = true;
        return Ok(());
    }
    let mut events = SseStream::from_bytes_stream(response.bytes_stream());
    while let Some(event) = events.next().await {
        let broken = |why: String| Failure::Unreachable(format!("the event stream broke off: {why}"));
        let event = event.map_err(|error| broken(error.to_string()))?;
        let (Some(name), Some(data)) = (event.event, event.data) else {
            continue;
        };
        let data: Value = serde_json::from_str(&data).map_err(|error| broken(error.to_string()))?;
        heard.id = event.id.or(heard.id.take());
        show(&name, &data, heard, global)?;
        if heard.ended {
            return Ok(());
        }
    }
    Ok(())
}

/// One line for each event; kinds that a newer server sends are passed over.
fn show(name: &str, data: &Value, heard: &mut Heard, global: &Global) -> Result<(), Failure> {
    let text = |name: &str| cell(data.get(name));
    let line = match name {
        "state" => {
            heard.state = text("to");
            format!("{}  {:<10} {} ({})", text("at"), heard.state, text("why"), text("who"))
        }
        "progress" => {
            let share = data["fraction"]
                .as_f64()
                .map_or_else(String::new, |share| format!("{:.0} % ", share * 100.0));
            format!("{}  {:<10} {share}{}", text("at"), "…", text("message"))
        }
        "end" => {
            heard.state = text("state");
            heard.ended = true;
            return Ok(());
        }
        _ => return Ok(()),
    };
    match global.json {
        true => print(&serde_json::json!({ "event": name, "data": data }).to_string())?,
        false => print(&line)?,
    }
    Ok(())
}

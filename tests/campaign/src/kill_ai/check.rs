//! What must hold when the kills are over.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use super::nodes::DRAFTS;
use crate::api;
use crate::check::{history_is_legal, idle};

/// Submissions that are checked at once.
const AT_ONCE: usize = 8;

/// Longest time for the work that is left, besides the time after which orphans are taken back.
const WORK_PATIENCE: Duration = Duration::from_secs(120);

/// What was found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Drafts that were asked for and acknowledged.
    pub drafts: usize,
    /// Tasks whose history was checked.
    pub tasks: usize,
    /// Runs that a kill ended: each was taken back by the reaper.
    pub taken_back: u64,
    /// Submissions of the probes.
    pub probes: usize,
    /// Everything that must not be.
    pub broken: Vec<String>,
}

/// Waits for what is left and checks every submission, every task and the export.
pub(super) async fn all(
    api: &str,
    orphan: Duration,
    drafts: Vec<String>,
    probes: Vec<String>,
) -> anyhow::Result<Checked> {
    let client = api::client()?;
    let mut checked = Checked {
        drafts: drafts.len(),
        probes: probes.len(),
        ..Checked::default()
    };
    checked.broken.extend(idle(&client, api, orphan + WORK_PATIENCE).await?);
    let steps = |ids: &[String], steps: usize| ids.iter().map(|id| (id.clone(), steps)).collect::<Vec<_>>();
    let wanted = [steps(&drafts, 3), steps(&probes, 1)].concat();
    let mut found = futures::stream::iter(
        wanted
            .into_iter()
            .map(|(id, steps)| submission(&client, api, id, steps)),
    )
    .buffer_unordered(AT_ONCE);
    while let Some(found) = found.next().await {
        let (tasks, taken_back, broken) = found?;
        checked.tasks += tasks;
        checked.taken_back += taken_back;
        checked.broken.extend(broken);
    }
    drop(found);

    let export = client
        .get(format!("{api}/v1/forms/{DRAFTS}/exports/archive"))
        .timeout(WORK_PATIENCE);
    let export = export.send().await?.error_for_status()?.text().await?;
    let mut exported = BTreeMap::<String, u32>::new();
    for line in export.lines() {
        let line: Value = serde_json::from_str(line)?;
        *exported
            .entry(line["id"].as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
    }
    for id in &drafts {
        match exported.remove(id) {
            Some(1) => {}
            lines => checked
                .broken
                .push(format!("{id} has {} exported lines", lines.unwrap_or(0))),
        }
    }
    let unknown = exported
        .into_keys()
        .map(|id| format!("{id} was exported and is nobody's"));
    checked.broken.extend(unknown);
    Ok(checked)
}

/// Tasks, runs that were taken back, and what must not be.
async fn submission(
    client: &reqwest::Client,
    api: &str,
    id: String,
    steps: usize,
) -> anyhow::Result<(usize, u64, Vec<String>)> {
    let (mut taken_back, mut broken) = (0, Vec::new());
    let submission = match api::get(client, &format!("{api}/v1/submissions/{id}")).await {
        Ok(submission) => submission,
        Err(error) => return Ok((0, 0, vec![format!("{id} was acknowledged and is lost: {error:#}")])),
    };
    if submission["status"] != "done" {
        broken.push(format!("{id} has not ended as done: {submission}"));
    }
    let text = submission["steps"][1]["output"]["response"]["text"]
        .as_str()
        .unwrap_or_default();
    if steps > 1 && text.is_empty() {
        broken.push(format!("{id} has no draft: {submission}"));
    }
    for step in 0..steps {
        let task = api::get(client, &format!("{api}/v1/tasks/{id}-{step}")).await?;
        let history = task["history"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        match history_is_legal(history) {
            Ok(times) => taken_back += times,
            Err(error) => broken.push(format!("task {id}-{step}: {error}")),
        }
        if task["state"] != "completed" {
            broken.push(format!("task {id}-{step} has not completed: {task}"));
        }
    }
    Ok((steps, taken_back, broken))
}

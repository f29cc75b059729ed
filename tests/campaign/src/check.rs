//! What must hold when the kills are over.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::{Duration, Instant};

use formwork_tasks::{Actor, EDGES, State};
use futures::StreamExt;
use serde_json::Value;

use crate::api;
use crate::clients::Line;
use crate::cluster::Cluster;

/// Submissions that are checked at once.
const AT_ONCE: usize = 16;

/// How often the pools are looked at until they are idle.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest time for the work that is left, besides the time after which orphans are taken back.
const WORK_PATIENCE: Duration = Duration::from_secs(120);

/// What was found.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) broken: Vec<String>,
    pub(crate) tasks: usize,
    pub(crate) taken_back: u64,
    pub(crate) exported: usize,
}

/// Checks every line of the ledger, the exports and the pools.
pub(crate) async fn all(cluster: &Cluster, ledger: Vec<Line>) -> anyhow::Result<Checked> {
    let client = api::client()?;
    let endpoint = &cluster.endpoints[0];
    let mut checked = Checked::default();
    if let Some(orphans) = idle(&client, endpoint, cluster.orphan + WORK_PATIENCE).await? {
        checked.broken.push(orphans);
    }

    let mut by_id: HashMap<&str, u64> = HashMap::new();
    for line in &ledger {
        if let Some(other) = by_id.insert(&line.id, line.number) {
            let text = format!("{} was acknowledged for {other} and for {}", line.id, line.number);
            checked.broken.push(text);
        }
    }

    let mut looked =
        futures::stream::iter(ledger.iter().map(|line| submission(&client, endpoint, line))).buffer_unordered(AT_ONCE);
    let mut done: HashSet<String> = HashSet::new();
    while let Some(found) = looked.next().await {
        let found = found?;
        checked.broken.extend(found.broken);
        checked.tasks += found.tasks;
        checked.taken_back += found.taken_back;
        done.extend(found.done);
    }

    let response = client
        .get(format!("{endpoint}/v1/forms/{}/exports/archive", api::FORM))
        .timeout(WORK_PATIENCE)
        .send()
        .await?;
    let mut exported: HashMap<String, u32> = HashMap::new();
    for line in response.error_for_status()?.text().await?.lines() {
        let line: Value = serde_json::from_str(line)?;
        *exported
            .entry(line["id"].as_str().unwrap_or_default().to_owned())
            .or_default() += 1;
        checked.exported += 1;
    }
    for (id, count) in &exported {
        if *count > 1 {
            checked.broken.push(format!("{id} was exported {count} times"));
        }
        // All requests were repeated until they were acknowledged: nothing may be there that nobody knows of.
        if !done.contains(id) {
            checked.broken.push(format!("{id} was exported and is not done"));
        }
    }
    let missing = done.iter().filter(|id| !exported.contains_key(*id));
    checked
        .broken
        .extend(missing.map(|id| format!("{id} is done and was not exported")));
    Ok(checked)
}

/// Waits until no pool has work; says what is left after `patience`.
pub(crate) async fn idle(
    client: &reqwest::Client,
    endpoint: &str,
    patience: Duration,
) -> anyhow::Result<Option<String>> {
    let began = Instant::now();
    loop {
        let pools = api::get(client, &format!("{endpoint}/v1/pools")).await?;
        let items = pools["items"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(!items.is_empty(), "no pools: {pools}");
        let sum = |key: &str| items.iter().filter_map(|pool| pool[key].as_u64()).sum::<u64>();
        let (waiting, running) = (sum("available") + sum("retryable"), sum("running"));
        if waiting + running == 0 {
            let (dead, cancelled) = (sum("dead"), sum("cancelled"));
            return Ok((dead + cancelled > 0).then(|| format!("{dead} tasks are dead, {cancelled} cancelled")));
        }
        if began.elapsed() > patience {
            return Ok(Some(format!(
                "after {patience:?} {running} tasks still run and {waiting} wait"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[derive(Default)]
struct Found {
    broken: Vec<String>,
    tasks: usize,
    taken_back: u64,
    done: Option<String>,
}

async fn submission(client: &reqwest::Client, endpoint: &str, line: &Line) -> anyhow::Result<Found> {
    let mut found = Found::default();
    let Line { number, id } = line;
    let submission = match api::get(client, &format!("{endpoint}/v1/submissions/{id}")).await {
        Ok(submission) => submission,
        Err(error) => {
            found
                .broken
                .push(format!("{id} was acknowledged and is lost: {error:#}"));
            return Ok(found);
        }
    };
    if submission["data"]["number"] != *number {
        found.broken.push(format!("{id} is not what was sent: {submission}"));
    }
    let (status, steps) = if *number < api::LEAST_VALID {
        ("rejected", 1)
    } else {
        ("done", 2)
    };
    if submission["status"] != status {
        found
            .broken
            .push(format!("{id} has not ended as {status}: {submission}"));
    }
    if status == "done" {
        found.done = Some(id.clone());
    }
    for step in 0..steps {
        let task = match api::get(client, &format!("{endpoint}/v1/tasks/{id}-{step}")).await {
            Ok(task) => task,
            Err(error) => {
                found.broken.push(format!("{id} has no task of step {step}: {error:#}"));
                continue;
            }
        };
        found.tasks += 1;
        let history = task["history"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        match history_is_legal(history) {
            Ok(taken_back) => found.taken_back += taken_back,
            Err(error) => found.broken.push(format!("task {id}-{step}: {error}")),
        }
        if task["state"] != "completed" || history.last().is_none_or(|event| event["to"] != "completed") {
            found.broken.push(format!("task {id}-{step} has not completed: {task}"));
        }
    }
    Ok(found)
}

/// Whether each line follows from the one before by a legal edge; answers how often the reaper took the task back.
pub(crate) fn history_is_legal(history: &[Value]) -> Result<u64, String> {
    let (mut state, mut taken_back, mut completed) = (None::<State>, 0, 0);
    for (index, event) in history.iter().enumerate() {
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        if event["sequence"] != index as u64 + 1 {
            return Err(format!("line {index} has sequence {}", event["sequence"]));
        }
        let from = event["from"].as_str().map(State::from_str).transpose();
        let (from, to) = match (from, State::from_str(text("to"))) {
            (Ok(from), Ok(to)) => (from, to),
            _ => return Err(format!("unknown state in {event}")),
        };
        if from != state {
            return Err(format!("{event} follows the state {state:?}"));
        }
        let who = text("who");
        let actor = if who.starts_with("worker:") { "worker" } else { who };
        let Ok(actor) = Actor::from_str(actor) else {
            return Err(format!("unknown actor in {event}"));
        };
        let legal = match from {
            None => to == State::Available && actor == Actor::Pipeline,
            Some(from) => EDGES
                .iter()
                .any(|edge| edge.from == from && edge.to == to && edge.actor == actor),
        };
        if !legal {
            return Err(format!("no legal edge: {event}"));
        }
        taken_back += u64::from(actor == Actor::Reaper && from == Some(State::Running));
        completed += u32::from(to == State::Completed);
        state = Some(to);
    }
    if completed > 1 {
        return Err(format!("completed {completed} times"));
    }
    Ok(taken_back)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(sequence: u32, who: &str, from: Option<&str>, to: &str) -> Value {
        json!({ "sequence": sequence, "who": who, "from": from, "to": to })
    }

    #[test]
    fn a_run_that_was_taken_back_is_legal_and_counted() {
        let history = [
            event(1, "pipeline", None, "available"),
            event(2, "worker:w-1", Some("available"), "running"),
            event(3, "reaper", Some("running"), "available"),
            event(4, "worker:w-2", Some("available"), "running"),
            event(5, "worker:w-2", Some("running"), "completed"),
        ];
        assert_eq!(history_is_legal(&history), Ok(1));
    }

    #[test]
    fn gaps_jumps_and_second_completions_are_found() {
        let born = event(1, "pipeline", None, "available");
        let ran = event(2, "worker:w-1", Some("available"), "running");
        for wrong in [
            event(3, "worker:w-1", Some("available"), "running"),
            event(4, "worker:w-1", Some("running"), "completed"),
            event(3, "pipeline", Some("running"), "completed"),
            event(3, "worker:w-1", Some("running"), "running"),
        ] {
            assert!(
                history_is_legal(&[born.clone(), ran.clone(), wrong.clone()]).is_err(),
                "{wrong}"
            );
        }
    }
}

//! From the request of a cancel to its recorded end, over HTTP.

use std::time::{Duration, Instant};

use anyhow::Context;
use formwork_store::TaskId;
use formwork_tasks::{Priority, State};

use super::isolation::tokens;
use super::pressure::{Kind, Source};
use super::{Row, Stage, percentiles};
use crate::cli::bench::figures::Bar;
use crate::serve::Server;

/// How long a task runs before it is cancelled: in the middle of its work.
const RUNS: Duration = Duration::from_millis(100);

/// After a cancelled generation: a token that was still coming has come.
const AFTER: Duration = Duration::from_millis(200);

/// Longest wait for the first token.
const FIRST_TOKEN: Duration = Duration::from_secs(60);

pub(super) async fn measure(stage: &mut Stage, count: usize) -> anyhow::Result<Vec<Row>> {
    let server = stage.start(|_| ()).await?;
    let client = reqwest::Client::new();
    let guests = Source::publish(&server, Kind::Guests).await?;
    let mut alone = Vec::new();
    for number in 0..count {
        let id = guests.submit(number, None).await?;
        guests.until_running(id).await?;
        tokio::time::sleep(RUNS).await;
        alone.push(cancel(&server, &client, id).await?);
    }
    let generations = Source::publish(&server, Kind::Generations).await?;
    let (mut stopped, mut most) = (Vec::new(), 0.0_f64);
    for number in 0..count {
        let before = tokens();
        let id = generations.submit(number, None).await?;
        let first = async {
            while tokens() < before + 3.0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(FIRST_TOKEN, first)
            .await
            .context("no token came")?;
        let (took, at_answer) = cancel_and_count(&server, &client, id).await?;
        stopped.push(took);
        tokio::time::sleep(AFTER).await;
        most = most.max(tokens() - at_answer);
    }
    let pressure = guests.pressure().await?;
    let mut among = Vec::new();
    for number in 0..count {
        // Ahead of those that wait, so that it only waits for one of sixteen to end.
        let id = guests.submit(1_000_000 + number, Some(Priority::HIGHEST)).await?;
        guests.until_running(id).await?;
        tokio::time::sleep(RUNS).await;
        among.push(cancel(&server, &client, id).await?);
    }
    pressure.end().await?;
    server.stop().await;
    let row = |what: &str, samples: &[Duration]| {
        let [p50, p95, _] = percentiles(samples.to_vec());
        let most = samples.iter().max().map_or(0.0, |sample| sample.as_secs_f64() * 1e3);
        [
            Row::new(format!("cancel to recorded end, {what}: p50"), p50, "ms"),
            Row::new("  p95", p95, "ms").bar(Bar::AtMost(50.0)),
            Row::new("  worst", most, "ms"),
        ]
    };
    let mut rows: Vec<Row> = row("a guest that computes", &alone).into();
    rows.extend(row("a generation", &stopped));
    rows.push(Row::new("  tokens after the cancel was answered, most", most, "").bar(Bar::AtMost(1.0)));
    rows.extend(row("a guest among 16 that compute on the pool's threads", &among));
    Ok(rows)
}

async fn cancel(server: &Server, client: &reqwest::Client, id: TaskId) -> anyhow::Result<Duration> {
    Ok(cancel_and_count(server, client, id).await?.0)
}

/// How long it took until the task was recorded as cancelled, and the tokens there were when the request was answered.
async fn cancel_and_count(server: &Server, client: &reqwest::Client, id: TaskId) -> anyhow::Result<(Duration, f64)> {
    let waiter = server.app().waiters.join(id.submission);
    let url = format!("http://{}/v1/tasks/{id}/cancel", server.address());
    let asked = Instant::now();
    let answer = client.post(url).send().await?;
    let counted = tokens();
    anyhow::ensure!(answer.status().is_success(), "cancelling: {}", answer.text().await?);
    loop {
        let hint = waiter.hint();
        let task = server.store().task(id).await?.context("the task is gone")?;
        match task.summary.state {
            State::Cancelled => return Ok((asked.elapsed(), counted)),
            State::Running => hint.await,
            other => anyhow::bail!("the task is {other}, it was to be cancelled"),
        }
    }
}

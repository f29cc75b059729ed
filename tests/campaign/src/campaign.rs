//! Kills while clients submit, then checks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::check::{self, Checked};
use crate::clients::{Clients, Ledger};
use crate::cluster::Cluster;
use crate::{api, cluster::ClusterFile};

/// Longest time without an acknowledgement while everything runs.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(60);

/// How much there is of everything.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kills.
    pub kills: u32,
    /// Clients that submit at once.
    pub clients: u32,
    /// How long a client rests after an acknowledgement: bounds what must be checked at the end.
    pub pause: Duration,
    /// The longest time from readiness to the next kill; the moment is random.
    pub longest_life: Duration,
}

/// What a campaign did and found.
#[derive(Debug)]
pub struct Report {
    /// Kills by process.
    pub kills: BTreeMap<String, u32>,
    /// Submissions that were acknowledged.
    pub acknowledged: usize,
    /// Requests that were not answered.
    pub unanswered: u64,
    /// Requests that had been recorded when the process was killed, and were not answered.
    pub recorded_unanswered: u64,
    /// Runs that a kill ended: each was taken back by the reaper.
    pub taken_back: u64,
    /// Tasks whose history was checked.
    pub tasks: usize,
    /// Export lines that were read.
    pub exported: usize,
    /// Everything that must not be; empty when all promises were kept.
    pub broken: Vec<String>,
    /// How long it took, the checks included.
    pub elapsed: Duration,
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kills: Vec<String> = self
            .kills
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        writeln!(formatter, "kills: {}", kills.join(", "))?;
        writeln!(
            formatter,
            "acknowledged {}; unanswered requests {}, of which recorded before the kill {}",
            self.acknowledged, self.unanswered, self.recorded_unanswered
        )?;
        writeln!(
            formatter,
            "checked {} tasks and {} exported lines; runs that a kill ended and that were taken back: {}",
            self.tasks, self.exported, self.taken_back
        )?;
        writeln!(formatter, "took {:.0} s", self.elapsed.as_secs_f64())?;
        for broken in &self.broken {
            writeln!(formatter, "BROKEN: {broken}")?;
        }
        write!(formatter, "broken promises: {}", self.broken.len())
    }
}

/// Runs a campaign against the cluster that `file` describes; ledger and logs go to `folder`. `progress` is told now and
/// then how many kills are done.
///
/// # Errors
/// The cluster does not start, or ends by itself. A broken promise is no error: see [`Report::broken`].
pub async fn run(
    file: ClusterFile,
    plan: &Plan,
    folder: &Path,
    mut progress: impl FnMut(u32, usize),
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let mut cluster = Cluster::start(file, folder).await?;
    publish(&cluster.endpoints[0]).await?;
    let ledger = Ledger::new(&folder.join("ledger.txt"))?;
    let clients = Arc::new(Clients::new(cluster.endpoints.clone(), ledger));
    let running: Vec<_> = (0..plan.clients)
        .map(|_| tokio::spawn(Arc::clone(&clients).submit(plan.pause)))
        .collect();
    let mut kills = BTreeMap::new();
    for number in 1..=plan.kills {
        wait_for_progress(&clients).await?;
        tokio::time::sleep(plan.longest_life.mul_f64(rand::random())).await;
        let victim = cluster.choose(rand::random())?;
        cluster.kill(victim)?;
        *kills.entry(cluster.name(victim).to_owned()).or_default() += 1;
        cluster.restart(victim).await?;
        progress(number, clients.ledger.len());
    }
    wait_for_progress(&clients).await?;
    clients.stop();
    for client in running {
        client.await??;
    }
    let Checked {
        broken,
        tasks,
        taken_back,
        exported,
    } = check::all(&cluster, clients.ledger.since(0)).await?;
    Ok(Report {
        kills,
        acknowledged: clients.ledger.len(),
        unanswered: clients.unanswered.load(Ordering::Relaxed),
        recorded_unanswered: clients.recorded_unanswered.load(Ordering::Relaxed),
        taken_back,
        tasks,
        exported,
        broken,
        elapsed: began.elapsed(),
    })
}

async fn publish(endpoint: &str) -> anyhow::Result<()> {
    let response = api::client()?
        .put(format!("{endpoint}/v1/forms/{}", api::FORM))
        .json(&api::definition())
        .send()
        .await?;
    let status = response.status();
    anyhow::ensure!(status.is_success(), "publishing: {status} {}", response.text().await?);
    Ok(())
}

/// Waits for the next acknowledgement: a process that is killed before it did anything tests nothing.
async fn wait_for_progress(clients: &Clients) -> anyhow::Result<()> {
    let before = clients.ledger.len();
    let progress = async {
        while clients.ledger.len() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PROGRESS_PATIENCE, progress)
        .await
        .context("nothing was acknowledged for a minute although everything runs")
}

//! The AI process is killed in mid-generation, again and again, beside an API that goes on answering.
//!
//! **Problem.** A native library may crash at any token. The product's answer is a process of its own for AI
//! (`roles = ["batched"]`), and that answer must be seen to hold. **Promise.** Two processes share MongoDB and Redis: one
//! is API and rules, the other AI. Writers keep asking for drafts while the AI process is killed with SIGKILL each time it
//! is known to be in the middle of a text. At the end every draft is there, made once, with a legal history and one exported
//! line, and the API's latencies are compared with those of windows in which nobody was killed, round by round. **Cost.**
//! Some six seconds a kill, half of them without one. **Rejected.** Comparing with a run before or after: on a shared machine
//! the minute decides more than the kills do.

mod check;
mod latency;
mod nodes;
mod writers;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::api;
use crate::cluster::Cluster;
use latency::{Phase, Probes};
use writers::Writers;

pub use check::Checked;
pub use latency::{Comparison, Figures};
pub use nodes::Servers;

/// Longest wait for the AI process to be in the middle of a text: its start, the load of the model and the leases of the
/// process before it, on a busy machine.
const GENERATION_PATIENCE: Duration = Duration::from_secs(120);

/// How often the AI process is asked what it is doing. Each time it asks the store for the queues' figures: more often, and the
/// asking were most of what the test's MongoDB does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much there is of everything.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kills.
    pub kills: u32,
    /// Kills between two windows without one; 0: there are no such windows, and nothing is compared.
    pub kills_a_round: u32,
    /// Drafts that are asked for at once.
    pub writers: u32,
    /// Longest time that a generation that was seen goes on before the kill; the moment is random.
    pub longest_life: Duration,
    /// Time between two requests of a probe; each route has its own.
    pub probe_every: Duration,
}

/// What was done and found.
#[derive(Debug)]
pub struct Report {
    /// Kills, all of them in the middle of a text.
    pub kills: u32,
    /// What became of the drafts and of the probes' submissions.
    pub checked: Checked,
    /// The API's latencies in windows without and with kills, by route.
    pub latencies: Vec<Comparison>,
    /// Models that the API's process loaded; it has no use for any.
    pub models_of_the_api: u64,
    /// How long it took, the checks included.
    pub elapsed: Duration,
}

impl Report {
    /// Whether every promise that a slow machine cannot break was kept.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.checked.broken.is_empty() && self.models_of_the_api == 0
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Checked {
            drafts,
            tasks,
            taken_back,
            probes,
            broken,
        } = &self.checked;
        writeln!(formatter, "kills in mid-generation: {}", self.kills)?;
        writeln!(
            formatter,
            "drafts {drafts}, all tasks {tasks}, runs that a kill ended and that were taken back {taken_back}; \
             submissions of the probes {probes}"
        )?;
        writeln!(
            formatter,
            "models loaded by the API's process: {}",
            self.models_of_the_api
        )?;
        for comparison in &self.latencies {
            writeln!(formatter, "{comparison}")?;
        }
        writeln!(formatter, "took {:.0} s", self.elapsed.as_secs_f64())?;
        for broken in broken.iter().take(50) {
            writeln!(formatter, "BROKEN: {broken}")?;
        }
        write!(formatter, "broken promises: {}", broken.len())
    }
}

/// Runs the plan on two processes of `formwork` with these servers; configurations and logs go to `folder`. `progress` is
/// told how many kills are done.
///
/// # Errors
/// A process that does not start, ends by itself or never generates. A broken promise is no error: see [`Report::kept`].
pub async fn run(
    formwork: &Path,
    servers: &Servers,
    plan: &Plan,
    folder: &Path,
    mut progress: impl FnMut(u32),
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let nodes = nodes::describe(formwork, servers, folder)?;
    let mut cluster = Cluster::start(nodes.file, folder).await?;
    nodes::publish(&nodes.api).await?;

    let writers = Writers::start(&nodes.api, plan.writers)?;
    let probes = Arc::new(Probes::new(&nodes.api)?);
    let probing = probes.start(plan.probe_every);
    let mut kills = 0;
    while kills < plan.kills {
        probes.enter(Phase::Kills);
        let window = Instant::now();
        let round = if plan.kills_a_round == 0 {
            plan.kills
        } else {
            plan.kills_a_round
        };
        for _ in 0..round.min(plan.kills - kills) {
            in_mid_generation(&nodes.ai, plan.longest_life).await?;
            cluster.kill(nodes::AI)?;
            cluster.restart(nodes::AI).await?;
            kills += 1;
            progress(kills);
        }
        if plan.kills_a_round == 0 {
            break;
        }
        // The last one's loads and leases belong to it too.
        in_mid_generation(&nodes.ai, Duration::ZERO).await?;
        let window = window.elapsed();
        probes.enter(Phase::Calm);
        tokio::time::sleep(window).await;
        probes.end_round();
    }
    probing.stop().await?;
    let drafts = writers.finish().await?;

    let checked = check::all(&nodes.api, cluster.orphan, drafts, probes.acknowledged()).await?;
    Ok(Report {
        kills,
        checked,
        latencies: probes.compare(),
        models_of_the_api: nodes::models_loaded(&nodes.api).await?,
        elapsed: began.elapsed(),
    })
}

/// Waits until the AI process has written a part of a text and goes on writing, and up to `longest` more.
async fn in_mid_generation(ai: &str, longest: Duration) -> anyhow::Result<()> {
    let client = api::client()?;
    let waited = async {
        loop {
            if nodes::is_writing(&client, ai).await {
                if longest.is_zero() {
                    return;
                }
                tokio::time::sleep(longest.mul_f64(rand::random())).await;
                if nodes::is_writing(&client, ai).await {
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(GENERATION_PATIENCE, waited)
        .await
        .context("the AI process never came to write a text")
}

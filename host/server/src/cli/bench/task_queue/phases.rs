//! The phases of a round, and what each cost.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::super::figures::Figures;
use super::job::Start;
use super::producers::Producers;
use super::subject::Subject;

/// How often completions are counted.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The clock of the completions starts here: a worker's start is not its speed. The same for every peer.
const WARM_UP_JOBS: u64 = 50;

/// Longest wait for the next completion; only a queue that has lost a job meets it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kernel ticks of `/proc/self/stat` in a second; fixed at 100 for programs on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a phase took besides time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Group commits, one fsync each in class `sync`.
    pub(crate) commits_per_job: f64,
    /// Of the whole process, the clients included.
    pub(crate) cpu_seconds_per_job: f64,
}

/// Both at one moment.
#[derive(Clone, Copy, Debug)]
struct Meters {
    commits: u64,
    cpu_seconds: f64,
}

impl Meters {
    fn read() -> anyhow::Result<Self> {
        let families = prometheus::gather();
        let commits = families
            .iter()
            .filter(|family| family.name() == "formwork_store_commit_seconds")
            .flat_map(|family| family.get_metric())
            .map(|metric| metric.get_histogram().get_sample_count())
            .sum();
        Ok(Self {
            commits,
            cpu_seconds: cpu_seconds(&std::fs::read_to_string("/proc/self/stat")?)?,
        })
    }

    fn cost_since(&self, before: &Self, jobs: u64) -> Cost {
        let jobs = jobs.max(1) as f64;
        Cost {
            commits_per_job: (self.commits - before.commits) as f64 / jobs,
            cpu_seconds_per_job: (self.cpu_seconds - before.cpu_seconds) / jobs,
        }
    }
}

/// User and system time from a line of `/proc/PID/stat`.
fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    // The name in brackets may hold spaces.
    let fields = stat.rsplit_once(')').context("no name in /proc/self/stat")?.1;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    match (ticks.next(), ticks.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok((user + system) / TICKS_PER_SECOND),
        _ => anyhow::bail!("no times in /proc/self/stat"),
    }
}

#[derive(Debug)]
pub(crate) struct Enqueued {
    jobs: u64,
    /// Of requests, which are jobs where a row sends them one by one.
    pub(crate) requests: Figures,
    pub(crate) seconds: f64,
    pub(crate) cost: Cost,
}

impl Enqueued {
    pub(crate) fn per_second(&self) -> f64 {
        self.jobs as f64 / self.seconds
    }
}

/// All jobs by `clients` clients, nothing is worked off.
pub(crate) async fn enqueue(
    subject: &Subject,
    jobs: u64,
    clients: u16,
    payload_bytes: usize,
) -> anyhow::Result<Enqueued> {
    let before = Meters::read()?;
    let producers = Producers::new(subject, clients, payload_bytes);
    let (samples, elapsed) = producers.closed(jobs).await?;
    Ok(Enqueued {
        jobs,
        requests: Figures::of(samples, elapsed),
        seconds: elapsed.as_secs_f64(),
        cost: Meters::read()?.cost_since(&before, jobs),
    })
}

#[derive(Debug)]
pub(crate) struct Completed {
    /// Jobs within `seconds`.
    pub(crate) counted: u64,
    pub(crate) seconds: f64,
    pub(crate) cost: Cost,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) runs: Vec<Start>,
}

impl Completed {
    pub(crate) fn per_second(&self) -> f64 {
        self.counted as f64 / self.seconds
    }
}

/// Works off what was enqueued.
pub(crate) async fn complete(subject: &Subject, jobs: u64) -> anyhow::Result<Completed> {
    let before = Meters::read()?;
    subject.resume().await?;
    let first = wait_for(subject, WARM_UP_JOBS).await?;
    let began = Instant::now();
    wait_for(subject, jobs).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cost = Meters::read()?.cost_since(&before, jobs);
    let runs = subject.starts.take();
    let different: HashSet<u64> = runs.iter().map(|run| run.number).collect();
    Ok(Completed {
        counted: jobs - first,
        seconds,
        cost,
        lost: jobs - different.len() as u64,
        twice: (runs.len() - different.len()) as u64,
        runs,
    })
}

/// Waits until `count` tasks are completed; answers how many were.
async fn wait_for(subject: &Subject, count: u64) -> anyhow::Result<u64> {
    let (mut latest, mut changed) = (0, Instant::now());
    loop {
        let completed = subject.completed().await?;
        if completed >= count {
            return Ok(completed);
        }
        if completed != latest {
            (latest, changed) = (completed, Instant::now());
        }
        anyhow::ensure!(
            changed.elapsed() < PATIENCE,
            "{completed} of {count} tasks completed, then none for {PATIENCE:?}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) jobs: u64,
    pub(crate) seconds: f64,
    pub(crate) runs: Vec<Start>,
}

impl Paced {
    /// From when a job was due until its run started, at a percentile.
    pub(crate) fn to_start_ms(&self, percent: usize) -> f64 {
        let mut waits: Vec<u64> = self
            .runs
            .iter()
            .map(|run| run.started_us.saturating_sub(run.sent_us))
            .collect();
        waits.sort_unstable();
        let index = (waits.len() * percent).div_ceil(100).saturating_sub(1);
        waits.get(index).map_or(0.0, |us| *us as f64 / 1e3)
    }
}

/// Jobs by the clock while the pool works.
pub(crate) async fn paced(
    subject: &Subject,
    rate: f64,
    time: Duration,
    clients: u16,
    payload_bytes: usize,
) -> anyhow::Result<Paced> {
    let before = subject.completed().await?;
    let jobs = (rate * time.as_secs_f64()).ceil() as u64;
    subject.resume().await?;
    let began = Instant::now();
    let producers = Producers::new(subject, clients, payload_bytes);
    producers.paced(before, jobs, rate).await?;
    let seconds = began.elapsed().as_secs_f64();
    wait_for(subject, before + jobs).await?;
    Ok(Paced {
        jobs,
        seconds,
        runs: subject.starts.take(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_the_name() {
        let stat = "12 (a (b) c) S 1 12 12 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 1";
        assert_eq!(cpu_seconds(stat).unwrap(), 2.0);
    }
}

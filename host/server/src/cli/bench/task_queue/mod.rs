//! `formwork bench queue`: what the queue takes and what it does, apart from what plugins do.
//!
//! A row is a way in (HTTP or the store itself) and a runner (nothing, or a sandboxed validation). In each round a row
//! starts with an empty store and goes through the same phases as the peers of `make bench-queues`: all jobs are
//! enqueued by a number of clients while the pool is paused; the pool is resumed and works them off; then, if a rate is
//! given, jobs come by the clock and the time from sending a job to the start of its run is taken.

mod events;
mod job;
mod phases;
mod producers;
pub(super) mod soak;
mod subject;

use std::time::Duration;

use serde_json::{Value, json};

use super::Shared;
use super::figures::{cpus, median};
use super::work::scratch_and_runtime;
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{Table, print, print_json};
use crate::serve::Machinery;
use phases::{Completed, Enqueued, Paced};
use subject::{Durability, Row, Subject};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Rows to measure; absent: all of them.
    #[arg(long = "row", value_name = "ROW")]
    rows: Vec<Row>,
    /// Jobs of a row in a round.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..))]
    jobs: u64,
    /// Clients that send at once, each its next job when the last was acknowledged.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Bytes of a job's document.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    payload_bytes: usize,
    /// `sync`: acknowledged after the fsync. `interval`: at most a second before it.
    #[arg(long, value_name = "CLASS", default_value = "sync")]
    durability: Durability,
    /// Rounds; every row runs once in each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Jobs a second of the last phase; 0 leaves it out.
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// How long the last phase takes.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Print the phases as they begin and end, as an adapter of `tests/peers/queues` does, and write what ran when into
    /// this folder.
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<std::path::PathBuf>,
}

/// What a row did in a round.
#[derive(Debug)]
struct Round {
    row: Row,
    enqueued: Enqueued,
    completed: Completed,
    paced: Option<Paced>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let (scratch, runtime) = scratch_and_runtime(&Shared {
        config: options.config.clone(),
        form: None,
        submission: None,
    })?;
    let rows = if options.rows.is_empty() {
        Row::ALL.to_vec()
    } else {
        options.rows.clone()
    };
    let rounds = runtime.block_on(async {
        let machinery = Machinery::start(&scratch.config).await?;
        let mut rounds = Vec::new();
        for _ in 0..options.rounds {
            for &row in &rows {
                let subject = Subject::start(&scratch, &machinery, row, options.durability).await?;
                let round = measure(&subject, options).await;
                subject.stop().await;
                rounds.push(round?);
            }
        }
        anyhow::Ok(rounds)
    })?;
    if options.adapter.is_some() {
        return Ok(());
    }
    report(options, &rows, &rounds, global)
}

async fn measure(subject: &Subject, options: &Options) -> anyhow::Result<Round> {
    let mut events = events::Events::new(options.adapter.as_deref());
    let payload = options.payload_bytes;
    subject.pause().await?;
    events.begin("enqueue")?;
    let enqueued = phases::enqueue(subject, options.jobs, options.clients, payload).await?;
    events.end(
        "enqueue",
        &json!({ "jobs": options.jobs, "seconds": enqueued.seconds }),
        &[],
    )?;
    events.begin("complete")?;
    let completed = phases::complete(subject, options.jobs).await?;
    let counted = json!({ "jobs": completed.counted, "seconds": completed.seconds });
    events.end("complete", &counted, &completed.runs)?;
    let mut paced = None;
    if options.rate > 0.0 {
        events.begin("paced")?;
        let time = Duration::from_secs(options.seconds);
        let result = phases::paced(subject, options.rate, time, options.clients, payload).await?;
        events.end(
            "paced",
            &json!({ "jobs": result.jobs, "seconds": result.seconds }),
            &result.runs,
        )?;
        paced = Some(result);
    }
    Ok(Round {
        row: subject.row,
        enqueued,
        completed,
        paced,
    })
}

/// Medians over the rounds of a row.
fn summary(row: Row, rounds: &[Round]) -> Value {
    let of =
        |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().filter(|round| round.row == row).map(figure).collect());
    let mut summary = json!({
        "row": row.name(),
        "enqueued_per_second": of(&|round| round.enqueued.per_second()),
        "enqueue_p50_ms": of(&|round| round.enqueued.requests.p50_us / 1e3),
        "enqueue_p95_ms": of(&|round| round.enqueued.requests.p95_us / 1e3),
        "enqueue_fsyncs_per_job": of(&|round| round.enqueued.cost.commits_per_job),
        "completed_per_second": of(&|round| round.completed.per_second()),
        "complete_fsyncs_per_job": of(&|round| round.completed.cost.commits_per_job),
        "cpu_seconds_per_1000_jobs":
            of(&|round| 1e3 * (round.enqueued.cost.cpu_seconds_per_job + round.completed.cost.cpu_seconds_per_job)),
        "lost": rounds.iter().filter(|round| round.row == row).map(|round| round.completed.lost).sum::<u64>(),
        "ran_twice": rounds.iter().filter(|round| round.row == row).map(|round| round.completed.twice).sum::<u64>(),
    });
    if rounds.iter().any(|round| round.row == row && round.paced.is_some()) {
        let start = |percent: usize| of(&|round| round.paced.as_ref().map_or(0.0, |paced| paced.to_start_ms(percent)));
        summary["send_to_start_p50_ms"] = json!(start(50));
        summary["send_to_start_p95_ms"] = json!(start(95));
    }
    summary
}

fn report(options: &Options, rows: &[Row], rounds: &[Round], global: &Global) -> Result<(), Failure> {
    let summaries: Vec<Value> = rows.iter().map(|row| summary(*row, rounds)).collect();
    if global.json {
        print_json(&json!({
            "cpus": cpus(), "rounds": options.rounds, "jobs": options.jobs, "clients": options.clients,
            "payload_bytes": options.payload_bytes, "durability": options.durability.name(), "rate": options.rate,
            "rows": summaries
        }))?;
        return Ok(());
    }
    let mut table = Table::new(&[
        "row",
        "enqueued/s",
        "p50 ms",
        "p95 ms",
        "fsyncs/job",
        "completed/s",
        "fsyncs/job",
        "cpu s/1000",
        "to start p50 ms",
        "p95 ms",
        "lost",
        "twice",
    ]);
    for row in &summaries {
        let number = |key: &str, digits: usize| {
            let value = row[key].as_f64();
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        table.row([
            row["row"].as_str().unwrap_or_default().to_owned(),
            number("enqueued_per_second", 0),
            number("enqueue_p50_ms", 2),
            number("enqueue_p95_ms", 2),
            number("enqueue_fsyncs_per_job", 3),
            number("completed_per_second", 0),
            number("complete_fsyncs_per_job", 3),
            number("cpu_seconds_per_1000_jobs", 3),
            number("send_to_start_p50_ms", 2),
            number("send_to_start_p95_ms", 2),
            number("lost", 0),
            number("ran_twice", 0),
        ]);
    }
    print(&format!(
        "{} CPUs, medians over {} rounds of {} jobs of {} B, {} clients, durability {}\n{}",
        cpus(),
        options.rounds,
        options.jobs,
        options.payload_bytes,
        options.clients,
        options.durability.name(),
        table.render()
    ))?;
    Ok(())
}

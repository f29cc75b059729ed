//! `formwork bench soak`: hours of steady work, in which nothing may grow.
//!
//! **Problem.** What leaks a little for each task, or gets slower with each row, is not seen by a bench of seconds.
//! **Promise.** The capacity is measured first; then tasks come by the clock at a share of it, window after window, and the
//! last third of the windows is held against the first: resident memory of the whole process (clients included), and the time
//! from sending a job to the start of its run. The command fails when one has grown; beside each window stands what a hypervisor
//! took of the machine meanwhile, since work delayed by others looks like growth. **Cost.** As long as you ask for, and
//! some 2 GB of disk an hour: results are kept, as they would be. **Rejected.** One percentile over the whole time: slow growth
//! hides in it.

use std::path::PathBuf;
use std::time::Duration;

use formwork_scheduler::CpuTicks;
use serde_json::json;

use super::super::Shared;
use super::super::figures::{Bar, cpus, median};
use super::super::publish::Memory;
use super::super::work::scratch_and_runtime;
use super::phases;
use super::subject::{Durability, Row, Subject};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{Table, print, print_json};
use crate::serve::Machinery;

/// Jobs by which the capacity is measured.
const CAPACITY_JOBS: u64 = 20_000;

/// Windows that are not counted: caches fill up.
const WARM_UP_WINDOWS: usize = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the jobs come in, and what runs them.
    #[arg(long, default_value = "http-validate")]
    row: Row,
    /// How long, minutes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Seconds of a window.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,
    /// The rate, as a share of the capacity.
    #[arg(long, default_value_t = 0.7)]
    share: f64,
    /// Clients that send.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Bytes of a job's document.
    #[arg(long, value_name = "BYTES", default_value_t = 256)]
    payload_bytes: usize,
    /// How much the median resident memory may grow.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.05)]
    memory_growth: f64,
    /// How much the median of the windows' p95 may grow: what else a machine does moves a percentile more than memory.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.25)]
    latency_growth: f64,
}

/// What one window showed.
struct Window {
    resident_kib: u64,
    p50_ms: f64,
    p95_ms: f64,
    p99_ms: f64,
    /// CPU time of the machine that its hypervisor gave to others, 0 to 1; nothing where the system does not tell.
    stolen: Option<f64>,
}

struct Outcome {
    capacity: f64,
    rate: f64,
    windows: Vec<Window>,
}

impl Outcome {
    /// A figure's median in the last third of the counted windows over that in the first.
    fn growth(&self, figure: impl Fn(&Window) -> f64) -> f64 {
        let counted: Vec<f64> = self.windows.iter().skip(WARM_UP_WINDOWS).map(figure).collect();
        let third = (counted.len() / 3).max(1);
        let first = counted.iter().take(third).copied().collect();
        let last = counted.iter().rev().take(third).copied().collect();
        median(last) / median(first)
    }
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let windows = usize::try_from(options.minutes * 60 / options.window).unwrap_or(usize::MAX);
    if windows < WARM_UP_WINDOWS + 3 {
        return Err(Failure::Usage(format!(
            "--minutes {} and --window {}: {} windows at least are needed",
            options.minutes,
            options.window,
            WARM_UP_WINDOWS + 3
        )));
    }
    let (scratch, runtime) = scratch_and_runtime(&Shared {
        config: options.config.clone(),
        form: None,
        submission: None,
    })?;
    let outcome = runtime.block_on(async {
        let machinery = Machinery::start(&scratch.config).await?;
        let capacity = {
            let subject = Subject::start(&scratch, &machinery, options.row, Durability::Sync).await?;
            let capacity = capacity(&subject, options).await;
            subject.stop().await;
            capacity?
        };
        let subject = Subject::start(&scratch, &machinery, options.row, Durability::Sync).await?;
        let outcome = soak(&subject, options, capacity, windows).await;
        subject.stop().await;
        outcome
    })?;
    report(options, &outcome, global)
}

/// Jobs a second when they come in and are worked off at the same time, as they share the machine.
async fn capacity(subject: &Subject, options: &Options) -> anyhow::Result<f64> {
    subject.pause().await?;
    let enqueued = phases::enqueue(subject, CAPACITY_JOBS, options.clients, options.payload_bytes).await?;
    let completed = phases::complete(subject, CAPACITY_JOBS).await?;
    Ok(1.0 / (1.0 / enqueued.per_second() + 1.0 / completed.per_second()))
}

async fn soak(subject: &Subject, options: &Options, capacity: f64, windows: usize) -> anyhow::Result<Outcome> {
    let rate = capacity * options.share;
    let time = Duration::from_secs(options.window);
    let mut outcome = Outcome {
        capacity,
        rate,
        windows: Vec::with_capacity(windows),
    };
    for number in 1..=windows {
        let before = CpuTicks::read();
        let paced = phases::paced(subject, rate, time, options.clients, options.payload_bytes).await?;
        let window = Window {
            p50_ms: paced.to_start_ms(50),
            p95_ms: paced.to_start_ms(95),
            p99_ms: paced.to_start_ms(99),
            stolen: before.and_then(|before| CpuTicks::read()?.stolen_since(&before)),
            // Without what this bench notes of each job.
            resident_kib: {
                drop(paced);
                Memory::read()?.resident_kib
            },
        };
        eprintln!(
            "window {number} of {windows}: {:.0} jobs/s, {} MiB, to start p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms{}",
            rate,
            window.resident_kib >> 10,
            window.p50_ms,
            window.p95_ms,
            window.p99_ms,
            window
                .stolen
                .map_or_else(String::new, |stolen| format!(", {:.1} % stolen", stolen * 100.0))
        );
        outcome.windows.push(window);
    }
    Ok(outcome)
}

fn report(options: &Options, outcome: &Outcome, global: &Global) -> Result<(), Failure> {
    #[expect(clippy::cast_precision_loss, reason = "KiB of memory are far below 2^52")]
    let memory = outcome.growth(|window| window.resident_kib as f64);
    let bars = [
        (
            "resident memory, last third / first third",
            memory,
            Bar::AtMost(options.memory_growth),
        ),
        (
            "send to start p95, last third / first third",
            outcome.growth(|window| window.p95_ms),
            Bar::AtMost(options.latency_growth),
        ),
    ];
    let missed = bars.iter().filter(|(_, value, bar)| !bar.is_met(*value)).count();
    if global.json {
        let windows = outcome.windows.iter().map(|window| {
            json!({ "resident_kib": window.resident_kib, "p50_ms": window.p50_ms, "p95_ms": window.p95_ms,
                "p99_ms": window.p99_ms, "stolen_share": window.stolen })
        });
        let bars = bars.iter().map(
            |(what, value, bar)| json!({ "what": what, "value": value, "bar": bar.text(), "met": bar.is_met(*value) }),
        );
        print_json(&json!({
            "cpus": cpus(), "row": options.row.name(), "capacity_per_second": outcome.capacity,
            "rate_per_second": outcome.rate, "window_seconds": options.window,
            "windows": windows.collect::<Vec<_>>(), "bars": bars.collect::<Vec<_>>(),
        }))?;
    } else {
        let mut table = Table::new(&["what", "growth", "bar", "met"]);
        for (what, value, bar) in &bars {
            let met = if bar.is_met(*value) { "yes" } else { "NO" };
            table.row([(*what).into(), format!("{value:.3}"), bar.text(), met.into()]);
        }
        print(&format!(
            "{} CPUs, {}: capacity {:.0} jobs/s, {:.0} jobs/s for {} windows of {} s\n{}",
            cpus(),
            options.row.name(),
            outcome.capacity,
            outcome.rate,
            outcome.windows.len(),
            options.window,
            table.render()
        ))?;
    }
    if missed == 0 {
        return Ok(());
    }
    Err(Failure::failed(anyhow::anyhow!(
        "{missed} of {} bars were missed",
        bars.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_compares_thirds_without_the_warm_up() {
        let window = |resident_kib| Window {
            resident_kib,
            p50_ms: 1.0,
            p95_ms: 1.0,
            p99_ms: 1.0,
            stolen: None,
        };
        let outcome = Outcome {
            capacity: 1.0,
            rate: 1.0,
            windows: [10, 100, 100, 100, 150, 90, 110, 120, 110, 130].map(window).into(),
        };
        assert_eq!(outcome.growth(|window| window.resident_kib as f64), 1.2);
    }
}

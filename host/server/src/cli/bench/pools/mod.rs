//! `formwork bench pools`: whether pools keep to their CPU, leave `high` alone, and stop when told to.
//!
//! **Problem.** A CPU limit, isolation and a cancel are promises about time: a test on a shared machine cannot hold them.
//! **Promise.** Each part starts the product with the configuration it is about and the first-party plugins, keeps
//! the pool `batched` full (of validations that compute for most of a second, or of generations), and measures with means the
//! product does not use: the kernel's account of the pool's threads for CPU, this process's clock for cancels.
//! Pick-up is the product's own histogram, because nobody else sees when a run starts. **Cost.** About two minutes with the
//! default times. **Rejected.** One run with everything at once: a figure that is wrong would not say why.

mod cancel;
mod cpu;
mod high_load;
mod isolation;
mod pressure;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use formwork_tasks::Pool;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::figures::{Bar, cpus};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{Table, print, print_json};
use crate::config::Config;
use crate::serve::{Machinery, Server};

/// The limit that is measured.
const HALF: f64 = 0.5;

/// Time for a drain between two parts: what runs then is of no interest.
const DRAIN_MS: u64 = 200;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Parts to measure; absent: all.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds over which CPU use is measured.
    #[arg(long, value_name = "N", default_value_t = 30)]
    cpu_seconds: u64,
    /// Seconds of open load on `high`, without and with pressure.
    #[arg(long, value_name = "N", default_value_t = 15)]
    load_seconds: u64,
    /// Cancels of each kind.
    #[arg(long, value_name = "N", default_value_t = 30)]
    cancels: usize,
    /// How the CPU limit is enforced: `auto`, `budget` or `cgroup`; absent: as configured.
    #[arg(long, value_name = "WAY")]
    enforcement: Option<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Half a CPU, full of guests that compute.
    Guests,
    /// Half a CPU, full of generations.
    Generation,
    /// Half a CPU with `burst`, alone and beside others.
    Burst,
    /// `high` at half load beside `batched` full of generations.
    Isolation,
    /// From a cancel to its end.
    Cancel,
}

const ALL: [Part; 5] = [
    Part::Guests,
    Part::Generation,
    Part::Burst,
    Part::Isolation,
    Part::Cancel,
];

/// A line of the report.
#[derive(Debug)]
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    /// All of them hold, or it is not met.
    bars: Vec<Bar>,
}

impl Row {
    fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            bars: Vec::new(),
        }
    }

    fn bar(mut self, bar: Bar) -> Self {
        self.bars.push(bar);
        self
    }

    fn bars_text(&self) -> String {
        let texts: Vec<String> = self.bars.iter().map(|bar| bar.text()).collect();
        texts.join(", ")
    }

    fn is_met(&self) -> bool {
        self.bars.iter().all(|bar| bar.is_met(self.value))
    }
}

/// The product as the parts start it.
struct Stage {
    config: Config,
    machinery: Machinery,
    // Removed when this is dropped.
    folder: TempDir,
    stores: usize,
}

impl Stage {
    /// The product with an empty store and a changed configuration; models and plugins are loaded once.
    async fn start(&mut self, change: impl FnOnce(&mut Config)) -> anyhow::Result<Server> {
        let mut config = self.config.clone();
        self.stores += 1;
        let store = self.folder.path().join(format!("bench-{}.db", self.stores));
        config.store = format!("sqlite:{}", store.display());
        change(&mut config);
        Ok(Server::start_with(config, self.machinery.clone()).await?)
    }
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let mut config = crate::cli::load_config(options.config.as_deref())
        .map_err(|error| Failure::Usage(error.to_string()))?
        .config;
    // Beside the caller's files: a store in a memory file system would make fsync free.
    let folder = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
    config.http.listen.set_port(0);
    config.http.token.clear();
    config.http.drain_timeout_ms = DRAIN_MS;
    config.log.filter = "error".into();
    if let Some(way) = &options.enforcement {
        config.pools.cpu_enforcement = serde_json::from_value(json!(way))
            .map_err(|error| Failure::Usage(format!("--enforcement {way}: {error}")))?;
    }
    crate::logging::start_for_tools(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.http.threads)
        .enable_all()
        .build()?;
    let rows = runtime.block_on(async {
        let machinery = Machinery::start(&config).await?;
        let mut stage = Stage {
            config,
            machinery,
            folder,
            stores: 0,
        };
        measure(&mut stage, options).await
    })?;
    report(&rows, global)
}

async fn measure(stage: &mut Stage, options: &Options) -> anyhow::Result<Vec<Row>> {
    let wanted = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let time = Duration::from_secs(options.cpu_seconds.max(1));
    let load = Duration::from_secs(options.load_seconds.max(1));
    let mut rows = Vec::new();
    for part in ALL.iter().filter(|part| wanted(part)) {
        let measured = match part {
            Part::Guests => cpu::limited(stage, pressure::Kind::Guests, time).await,
            Part::Generation => cpu::limited(stage, pressure::Kind::Generations, time).await,
            Part::Burst => cpu::burst(stage, time / 3).await,
            Part::Isolation => isolation::measure(stage, load).await,
            Part::Cancel => cancel::measure(stage, options.cancels.max(1)).await,
        };
        rows.extend(measured.with_context(|| format!("measuring {part:?}"))?);
    }
    Ok(rows)
}

fn report(rows: &[Row], global: &Global) -> Result<(), Failure> {
    let cpus = cpus();
    if global.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                let met = (!row.bars.is_empty()).then(|| row.is_met());
                json!({ "what": row.what, "value": row.value, "unit": row.unit, "bar": row.bars_text(), "met": met })
            })
            .collect();
        print_json(&json!({ "cpus": cpus, "rows": rows }))?;
        return Ok(());
    }
    let mut table = Table::new(&["what", "measured", "bar", "met"]);
    for row in rows {
        let met = match (row.bars.is_empty(), row.is_met()) {
            (true, _) => "",
            (_, true) => "yes",
            (_, false) => "NO",
        };
        let measured = format!("{:.2} {}", row.value, row.unit);
        table.row([row.what.clone(), measured, row.bars_text(), met.into()]);
    }
    print(&format!("{cpus} CPUs\n{}", table.render()))?;
    Ok(())
}

/// The middle, the 95th and the 99th percent of durations, milliseconds.
fn percentiles(mut samples: Vec<Duration>) -> [f64; 3] {
    samples.sort_unstable();
    [50, 95, 99].map(|percent| {
        let index = (samples.len() * percent).div_ceil(100).saturating_sub(1);
        samples.get(index).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    })
}

/// Gives `batched` half a CPU.
fn half_a_cpu(config: &mut Config, burst: bool) {
    config.pools.batched.cpus = Some(HALF);
    config.pools.batched.burst = burst;
}

/// The pool that is put under pressure.
const PRESSED: Pool = Pool::Batched;

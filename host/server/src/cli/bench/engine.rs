//! `formwork bench engine`: one validation, taken apart.
//!
//! Each row adds one thing to a row before it: native Rust, wasmtime, Formwork's call, the pool's threads, the queue, HTTP.
//! The quotient of two rows is what that thing costs. [`Report`] says how rows take turns and what a figure means.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use formwork_engine::floor::work_plainly;
use formwork_engine::{Plugin, Setup, SubmissionInput};
use formwork_pipeline::{Catalog, Pipeline};
use formwork_scheduler::Lane;
use formwork_tasks::Pool;
use serde_json::{Value, json};

use super::Shared;
use super::figures::{Bar, Figure, Figures, Ratio, Report, round};
use super::floor::BareFloor;
use super::http::HttpRows;
use super::queue::Queue;
use super::work::{Work, call_context, scratch_and_runtime};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{print, print_json};
use crate::serve::Server;

const NATIVE: &str = "native";
const FLOOR_PLAIN: &str = "floor, plain";
const CALL_PLAIN: &str = "call, plain";
const FLOOR_SNAPSHOT: &str = "floor, snapshot";
const CALL_SNAPSHOT: &str = "call, snapshot";
const WARM: &str = "warm";
const LANE: &str = "lane";
const QUEUE: &str = "queue";
const QUEUE_BUSY: &str = "queue, 32 at once";
const HTTP: &str = "http";
const HTTP_NATIVE: &str = "http, native";
const HTTP_BARE: &str = "http, bare axum";

/// The form version that is published and has a snapshot.
const SNAPSHOT: u32 = 1;

/// One that nobody publishes: it never has a snapshot.
const PLAIN: u32 = u32::MAX;

/// Submissions of the busy queue that are under way.
const AT_ONCE: usize = 32;

/// A ratio of the same figure of two rows.
const fn ratio(what: &'static str, of: &'static str, to: &'static str, figure: Figure, bar: Option<Bar>) -> Ratio {
    Ratio {
        what,
        of: (of, figure),
        to: (to, figure),
        bar,
    }
}

const RATIOS: [Ratio; 11] = [
    ratio("call / floor, plain", CALL_PLAIN, FLOOR_PLAIN, Figure::P50, None),
    ratio(
        "call / floor, snapshot",
        CALL_SNAPSHOT,
        FLOOR_SNAPSHOT,
        Figure::P50,
        Some(Bar::AtMost(1.4)),
    ),
    ratio(
        "call, snapshot / native",
        CALL_SNAPSHOT,
        NATIVE,
        Figure::P50,
        Some(Bar::AtMost(8.0)),
    ),
    ratio(
        "call, plain / call, snapshot",
        CALL_PLAIN,
        CALL_SNAPSHOT,
        Figure::P50,
        Some(Bar::AtLeast(40.0)),
    ),
    Ratio {
        what: "p99 / p50 of call, snapshot",
        of: (CALL_SNAPSHOT, Figure::P99),
        to: (CALL_SNAPSHOT, Figure::P50),
        bar: Some(Bar::AtMost(3.0)),
    },
    ratio("call, snapshot / warm", CALL_SNAPSHOT, WARM, Figure::P50, None),
    ratio("warm / native", WARM, NATIVE, Figure::P50, None),
    ratio("lane / call, snapshot", LANE, CALL_SNAPSHOT, Figure::P50, None),
    ratio("queue / lane", QUEUE, LANE, Figure::P50, None),
    ratio(
        "http / http, native (requests a second)",
        HTTP,
        HTTP_NATIVE,
        Figure::PerSecond,
        Some(Bar::AtLeast(0.5)),
    ),
    ratio(
        "http / http, bare axum (requests a second)",
        HTTP,
        HTTP_BARE,
        Figure::PerSecond,
        None,
    ),
];

/// What a fresh snapshot validation may take at the median, microseconds.
const SNAPSHOT_BAR: Bar = Bar::AtMost(30.0);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shared: Shared,
    /// Rounds; every row runs once in each.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Time of a row in a round, milliseconds; a row makes at least 100 calls.
    #[arg(long, value_name = "MS", default_value_t = 200)]
    slice_ms: u64,
    /// Connections of the HTTP rows.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Leave the queue and HTTP out.
    #[arg(long)]
    calls_only: bool,
    /// Run a round for each line on standard input and print it as a JSON line, for a program that takes turns with
    /// this one. The first line printed has the addresses of the HTTP rows.
    #[arg(long, conflicts_with = "rounds")]
    lockstep: bool,
    /// Write the report as JSON to this file as well.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let (scratch, runtime) = scratch_and_runtime(&options.shared)?;
    let config = scratch.config.clone();
    let server = runtime.block_on(Server::start(config))?;
    let measured = measure(&runtime, &server, &scratch.work, options);
    runtime.block_on(server.stop());
    let report = measured?;
    if options.lockstep {
        return Ok(());
    }
    let json = report.to_json();
    if let Some(file) = &options.report {
        std::fs::write(file, format!("{json:#}\n")).with_context(|| format!("writing {}", file.display()))?;
    }
    if global.json {
        print_json(&json)?;
    } else {
        print(&report.to_text())?;
        if let Some(line) = snapshot_bar(&json) {
            print(&line)?;
        }
    }
    Ok(())
}

/// The one bar that is not a ratio.
fn snapshot_bar(report: &Value) -> Option<String> {
    let rows = report["rows"].as_array()?;
    let p50 = rows.iter().find(|row| row["name"] == CALL_SNAPSHOT)?["figures"]["p50_us"].as_f64()?;
    let verdict = if SNAPSHOT_BAR.is_met(p50) { "met" } else { "missed" };
    Some(format!(
        "p50 of {CALL_SNAPSHOT}: {p50:.1} us, bar: {} ({verdict})",
        SNAPSHOT_BAR.text()
    ))
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    server: &Server,
    work: &Work,
    options: &Options,
) -> anyhow::Result<Report> {
    let slice = Duration::from_millis(options.slice_ms.max(1));
    let http = if options.calls_only {
        None
    } else {
        Some(runtime.block_on(HttpRows::start(server, work, options.connections))?)
    };
    let queue = if options.calls_only {
        None
    } else {
        Some(Queue::new(server, work))
    };
    // Guests do not run on the runtime that owns sockets: here as in the product.
    let calls = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let rows = calls.block_on(CallRows::new(server, work))?;
    let mut report = Report::new(&RATIOS);
    let one_round = |report: &mut Report| {
        report.begin_round();
        calls.block_on(rows.round(report, slice))?;
        if let Some(queue) = &queue {
            let figures = runtime.block_on(queue.one_by_one(slice))?;
            report.add(QUEUE, "from submit to the recorded result, both fsynced", figures);
            let figures = runtime.block_on(queue.at_once(AT_ONCE, slice))?;
            report.add(QUEUE_BUSY, "the same; commits are shared", figures);
        }
        // In lockstep the other program loads the servers, so that one client measures them and its own.
        if let Some(http) = http.as_ref().filter(|_| !options.lockstep) {
            http.round(report, slice)?;
        }
        anyhow::Ok(())
    };
    if options.lockstep {
        print(&http.as_ref().map_or(json!({}), HttpRows::addresses).to_string())?;
        for line in std::io::stdin().lines() {
            line?;
            one_round(&mut report)?;
            print(&report.last_round().to_string())?;
        }
        return Ok(report);
    }
    for _ in 0..options.rounds {
        one_round(&mut report)?;
    }
    Ok(report)
}

impl HttpRows {
    fn round(&self, report: &mut Report, time: Duration) -> anyhow::Result<()> {
        let mut add = |name, note, figures: anyhow::Result<Figures>| {
            report.add(name, note, figures?);
            anyhow::Ok(())
        };
        add(
            HTTP,
            "POST …/validate of Formwork",
            self.formwork.run_on_own_thread(time),
        )?;
        add(
            HTTP_NATIVE,
            "the same route with native Rust in the handler",
            self.native.run_on_own_thread(time),
        )?;
        add(
            HTTP_BARE,
            "axum's serve, its JSON extractor, native Rust",
            self.bare.run_on_own_thread(time),
        )
    }
}

/// The rows without queue and HTTP: one call at a time.
struct CallRows {
    native: jsonschema::Validator,
    plugin: Arc<Plugin>,
    plain: Setup,
    snapshot: Option<Setup>,
    floor: BareFloor,
    snapshot_floor: Option<BareFloor>,
    submission: SubmissionInput,
    lane: Lane,
    pipeline: Arc<Pipeline>,
    step: String,
    catalog: Catalog,
}

impl CallRows {
    async fn new(server: &Server, work: &Work) -> anyhow::Result<Self> {
        let catalog = server.catalog().clone();
        let plugin = catalog.resolve(&work.plugin)?;
        let submission = work.input();
        let (plain, snapshot) = (work.setup(PLAIN)?, work.setup(SNAPSHOT)?);
        let snapshot = plugin.snapshot(&snapshot).await.is_ok().then_some(snapshot);
        let snapshot_floor = match &snapshot {
            Some(setup) => BareFloor::snapshot(&plugin, setup, &submission)?,
            None => None,
        };
        Ok(Self {
            native: work.native_validator()?,
            floor: BareFloor::plain(&plugin, &plain, &submission)?,
            snapshot_floor,
            plugin,
            plain,
            snapshot,
            submission,
            lane: server.lane(Pool::High).clone(),
            // The pipeline's setup equals the snapshot's: a lane serves what a published form gets.
            pipeline: work.pipeline(SNAPSHOT),
            step: work.step.clone(),
            catalog,
        })
    }

    async fn round(&self, report: &mut Report, slice: Duration) -> anyhow::Result<()> {
        let native = round(slice, async || {
            let data: Value = serde_json::from_str(black_box(&self.submission.data))?;
            anyhow::ensure!(self.native.is_valid(&data), "the bench submission is not valid");
            Ok(())
        });
        report.add(NATIVE, "parse and validate here, schema compiled once", native.await?);
        let mut warm = self.floor.warm().await?;
        let figures = round(slice, async || warm.call().await).await?;
        report.add(WARM, "one instance for all submissions, bare store", figures);
        drop(warm);
        if let Some(floor) = &self.snapshot_floor {
            let figures = round(slice, async || floor.fresh().await).await?;
            report.add(FLOOR_SNAPSHOT, "fresh instance of the snapshot, bare store", figures);
        }
        if let Some(setup) = &self.snapshot {
            let figures = round(slice, async || self.call(setup).await).await?;
            report.add(CALL_SNAPSHOT, "Formwork's call: every limit and meter", figures);
        }
        let lane = round(slice, async || self.on_lane().await).await?;
        report.add(LANE, "that call, handed to a pool's thread and back", lane);
        let figures = round(slice, async || self.floor.fresh().await).await?;
        report.add(FLOOR_PLAIN, "fresh instance, prepare and work, bare store", figures);
        let call = round(slice, async || self.call_plainly().await).await?;
        report.add(CALL_PLAIN, "Formwork's call: every limit and meter", call);
        Ok(())
    }

    async fn call(&self, setup: &Setup) -> anyhow::Result<()> {
        let report = self.plugin.work(setup, &self.submission, call_context()).await;
        let output = report.result?;
        anyhow::ensure!(!output.rejected, "the bench submission is not valid: {}", output.json);
        Ok(())
    }

    /// On the path that a form takes while it has no snapshot.
    async fn call_plainly(&self) -> anyhow::Result<()> {
        let context = call_context();
        let report = work_plainly(&self.plugin, &self.plain, &self.submission, &context).await;
        report.result?;
        Ok(())
    }

    async fn on_lane(&self) -> anyhow::Result<()> {
        let (pipeline, catalog) = (Arc::clone(&self.pipeline), self.catalog.clone());
        let (step, submission) = (self.step.clone(), self.submission.clone());
        let done = self
            .lane
            .spawn(move || async move { pipeline.run_step(&catalog, &step, &submission, call_context()).await });
        let output = done.await?.report.result?;
        anyhow::ensure!(!output.rejected, "the bench submission is not valid: {}", output.json);
        Ok(())
    }
}

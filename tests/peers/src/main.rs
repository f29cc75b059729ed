//! Formwork, `wasmtime serve`, Extism and native Rust on the same validation, in one run.
//!
//! **Problem.** Figures that hosts publish were taken on different machines with different work. **Promise.** One form, one
//! submission, one library in every guest, one compiler; every row runs once in each round, so that what else the machine
//! does meets all of them; HTTP servers are separate processes loaded by one client, one at a time. **Cost.** The first
//! run compiles the peers (a quarter of an hour). **Rejected.** Comparing with the peers' own benches: another guest.

mod children;
mod extism_rows;
mod guests;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use children::{FormworkServe, Lockstep, WasmtimeServe, load};
use extism_rows::ExtismRow;
use report::Report;

/// What `wasmtime serve` is started with: what its documentation recommends for speed.
const POOLING: &[&str] = &["-O", "pooling-allocator"];

/// One instance for many requests: what one submission leaves in memory is there for the next.
const REUSED: &[&str] = &["-O", "pooling-allocator", "--max-instance-reuse-count", "1000000"];

/// Pooling, and how Formwork resets its slots, for the pre-initialised component at its best.
const TUNED: &[&str] = &[
    "-O",
    "pooling-allocator,pooling-memory-keep-resident=524288,pooling-table-keep-resident=65536,pooling-pagemap-scan=auto",
];

#[derive(Debug, Parser)]
#[command(max_term_width = 120)]
struct Options {
    /// The `formwork` program.
    #[arg(long, value_name = "FILE")]
    formwork: PathBuf,
    /// The `wasmtime` program, with `serve` and `wizer`.
    #[arg(long, value_name = "FILE")]
    wasmtime: PathBuf,
    /// Where the guests' sources are.
    #[arg(long, value_name = "FOLDER")]
    guests: PathBuf,
    /// The folder of `form.json` and `submission.json`.
    #[arg(long, value_name = "FOLDER")]
    work: PathBuf,
    /// Where built guests are kept.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The report, Markdown; a JSON file is put beside it.
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Rounds; every row runs once in each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Time of an in-process row in a round, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300)]
    slice_ms: u64,
    /// Time of an HTTP row in a round, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1500)]
    http_ms: u64,
    /// Connections of the HTTP rows.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let built = guests::build(&options.guests, &options.wasmtime, &options.out)?;
    let submission =
        std::fs::read_to_string(options.work.join("submission.json")).context("reading submission.json")?;
    let slice = Duration::from_millis(options.slice_ms);

    let mut extism = ExtismRow::all(&built)?;
    let scratch = tempfile::tempdir_in(&options.out)?;
    let formwork = FormworkServe::start(&options.formwork, &options.work, scratch.path())?;
    let plain = WasmtimeServe::start(&options.wasmtime, &built.serve, POOLING)?;
    let reused = WasmtimeServe::start(&options.wasmtime, &built.serve, REUSED)?;
    let wizened = WasmtimeServe::start(&options.wasmtime, &built.serve_wizened, POOLING)?;
    let tuned = WasmtimeServe::start(&options.wasmtime, &built.serve_wizened, TUNED)?;
    let mut lockstep = Lockstep::start(&options.formwork, options.slice_ms, scratch.path())?;
    let servers = [
        (report::HTTP_FORMWORK, formwork.url()),
        (report::HTTP_NATIVE, lockstep.address("native")?),
        (report::HTTP_BARE, lockstep.address("bare")?),
        (report::HTTP_SERVE, plain.url()),
        (report::HTTP_SERVE_REUSED, reused.url()),
        (report::HTTP_SERVE_WIZENED, wizened.url()),
        (report::HTTP_SERVE_TUNED, tuned.url()),
    ];

    let mut report = Report::default();
    for number in 1..=options.rounds {
        eprintln!("round {number} of {}", options.rounds);
        report.begin_round();
        for (name, figures) in lockstep.round()? {
            report.add(&name, figures);
        }
        for row in &mut extism {
            report.add(row.name, row.round(&submission, slice)?);
        }
        for (name, url) in &servers {
            let figures = load(&options, url).with_context(|| format!("loading {name}"))?;
            report.add(name, figures);
        }
    }
    let markdown = report.markdown(&options, &children::versions(&options)?);
    print!("{markdown}");
    std::fs::write(&options.report, markdown).with_context(|| format!("writing {}", options.report.display()))?;
    let json = options.report.with_extension("json");
    std::fs::write(&json, format!("{:#}\n", report.json())).with_context(|| format!("writing {}", json.display()))?;
    Ok(())
}

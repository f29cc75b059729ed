//! `formwork bench`: what this machine does, by one command anybody can run.
//!
//! **Problem.** A figure without the machine, the work and a yardstick says nothing. **Promise.** Every figure is taken on
//! the work of `bench/` (a form of 30 fields, a submission of about 1 kB), and every subcommand measures its yardsticks
//! in the same run. **Cost.** A run takes minutes rather than seconds. **Rejected.** Figures of earlier runs to compare
//! with: the machine they were taken on is gone, even when it is the same one.

mod engine;
mod figures;
mod floor;
mod http;
mod load;
pub(crate) mod model;
mod models_budget;
mod overview;
mod pools;
mod publish;
mod queue;
mod task_queue;
mod work;

use std::path::PathBuf;

use clap::Subcommand;

use super::Global;
use super::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    overview: overview::Options,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One validation taken apart: native Rust, wasmtime alone, Formwork's call, the queue, HTTP.
    Engine(engine::Options),
    /// What publishing form versions takes, and the memory that many of them hold.
    Publish(publish::Options),
    /// Whether pools keep to their CPU limits, leave `high` alone, and stop when told to.
    Pools(pools::Options),
    /// What the queue takes and does, apart from what plugins do.
    Queue(task_queue::Options),
    /// Steady work at a share of the capacity: whether memory or latency grows.
    Soak(task_queue::soak::Options),
    /// Random calls for more models than there is memory for: whether the budget holds.
    ModelsBudget(models_budget::Options),
    /// Send one request over and over from a number of connections, to any server.
    Load(load::Options),
}

/// What every part that starts the product takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Shared {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another form than the bench's own; the plugin of its first step is what is measured.
    #[arg(long, value_name = "FILE", requires = "submission")]
    form: Option<PathBuf>,
    /// A submission that this step accepts.
    #[arg(long, value_name = "FILE", requires = "form")]
    submission: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    match &options.part {
        None => overview::run(&options.overview, global),
        Some(Part::Engine(options)) => engine::run(options, global),
        Some(Part::Publish(options)) => publish::run(options, global),
        Some(Part::Pools(options)) => pools::run(options, global),
        Some(Part::Queue(options)) => task_queue::run(options, global),
        Some(Part::Soak(options)) => task_queue::soak::run(options, global),
        Some(Part::ModelsBudget(options)) => models_budget::run(options, global),
        Some(Part::Load(options)) => load::run(options, global),
    }
}

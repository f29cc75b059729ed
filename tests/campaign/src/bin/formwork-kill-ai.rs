//! `formwork-kill-ai`: kills of the AI process in mid-generation, from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use formwork_campaign::kill_ai::{Plan, Servers, run};

/// Kill the AI process in mid-generation over and over, and check that no draft was lost and the API did not notice.
#[derive(Debug, Parser)]
#[command(max_term_width = 120)]
struct Options {
    /// The `formwork` program; its default models and plugins are used.
    #[arg(long, value_name = "FILE", default_value = "formwork")]
    formwork: PathBuf,
    /// A MongoDB connection string with an empty database; absent: a server of its own is started, as for tests.
    #[arg(long, value_name = "URL", requires = "redis")]
    mongodb: Option<String>,
    /// A Redis connection string.
    #[arg(long, value_name = "URL", requires = "mongodb")]
    redis: Option<String>,
    /// Kills.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Kills between two windows without one; 0: no such windows, and no comparison.
    #[arg(long, default_value_t = 5)]
    kills_a_round: u32,
    /// Drafts that are asked for at once.
    #[arg(long, default_value_t = 3)]
    writers: u32,
    /// Longest time that a generation that was seen goes on before the kill, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 600)]
    longest_life_ms: u64,
    /// Time between two requests of a probe, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 50)]
    probe_every_ms: u64,
    /// Where configurations and logs go; absent: a folder here that is removed if no promise was broken.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let (folder, scratch) = match &options.folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            (std::path::absolute(folder)?, None)
        }
        None => {
            let scratch = tempfile::tempdir_in(".")?;
            (std::path::absolute(scratch.path())?, Some(scratch))
        }
    };
    let servers = match (options.mongodb, options.redis) {
        (Some(mongodb), Some(redis)) => Servers { mongodb, redis },
        _ => Servers::for_tests("kill-ai"),
    };
    let plan = Plan {
        kills: options.kills,
        kills_a_round: options.kills_a_round,
        writers: options.writers,
        longest_life: Duration::from_millis(options.longest_life_ms),
        probe_every: Duration::from_millis(options.probe_every_ms),
    };
    let report = run(&options.formwork, &servers, &plan, &folder, |kills| {
        if kills % 10 == 0 {
            eprintln!("{kills} kills");
        }
    })
    .await?;
    println!("{report}");
    if report.kept() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(scratch) = scratch {
        println!("configurations and logs: {}", scratch.keep().display());
    }
    Ok(ExitCode::FAILURE)
}

//! `formwork-campaign`: a campaign of kills from the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use formwork_campaign::{Cluster, ClusterFile, Plan, run};

/// Kill the processes of a running Formwork over and over, and check that nothing acknowledged was lost or doubled.
#[derive(Debug, Parser)]
#[command(max_term_width = 120)]
struct Options {
    /// The `formwork` program, for one server on an embedded store.
    #[arg(long, value_name = "FILE", default_value = "formwork")]
    formwork: PathBuf,
    /// The folder with the plugins `validate` and `export`.
    #[arg(long, value_name = "FOLDER", required_unless_present = "cluster")]
    plugins: Option<PathBuf>,
    /// Several nodes on a Redis and a MongoDB-protocol server of their own, instead of one server on an embedded store.
    #[arg(long, conflicts_with = "cluster")]
    many_nodes: bool,
    /// Another cluster: its processes, commands and endpoints, in TOML.
    #[arg(long, value_name = "FILE", conflicts_with = "plugins")]
    cluster: Option<PathBuf>,
    /// Kills.
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// Clients that submit at once.
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// How long a client rests after an acknowledgement, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pause_ms: u64,
    /// Longest time from readiness to the next kill, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 800)]
    longest_life_ms: u64,
    /// Where store, ledger and logs go; absent: a folder here that is removed if no promise was broken.
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
        // On the disk, not in memory: fsync shall mean something.
        None => {
            let scratch = tempfile::tempdir_in(".")?;
            (std::path::absolute(scratch.path())?, Some(scratch))
        }
    };
    let file: ClusterFile = match (&options.cluster, &options.plugins) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?
        }
        (None, Some(plugins)) => {
            let describe = if options.many_nodes {
                Cluster::many_nodes
            } else {
                Cluster::embedded
            };
            describe(&options.formwork, &std::path::absolute(plugins)?, &folder)?
        }
        (None, None) => anyhow::bail!("neither --plugins nor --cluster"),
    };
    let plan = Plan {
        kills: options.kills,
        clients: options.clients,
        pause: Duration::from_millis(options.pause_ms),
        longest_life: Duration::from_millis(options.longest_life_ms),
    };
    let report = run(file, &plan, &folder, |kills, acknowledged| {
        if kills % 50 == 0 {
            eprintln!("{kills} kills, {acknowledged} acknowledged");
        }
    })
    .await?;
    println!("{report}");
    if report.broken.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(scratch) = scratch {
        println!("store, ledger and logs: {}", scratch.keep().display());
    }
    Ok(ExitCode::FAILURE)
}

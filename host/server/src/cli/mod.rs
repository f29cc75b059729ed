//! The command line: one file per command, and what they share.

pub mod exit;
pub mod output;
mod plugin;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;

/// Shown after the options of `formwork --help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or configuration
  3  what was named does not exist
  4  the server refused the request
  5  no server answered";

/// Forms whose submissions are validated, classified, extracted and exported by sandboxed plugins.
#[derive(Debug, Parser)]
#[command(name = "formwork", version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build, check and look into plugins.
    #[command(subcommand)]
    Plugin(plugin::Command),
}

/// Runs the command in the arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Plugin(command) => plugin::run(command, &cli.global),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("formwork: {failure}");
    failure.into()
}

//! The command line: one file per command, and what they share.

mod bench;
mod client;
mod compile;
mod demo;
pub mod exit;
mod form;
mod lines;
mod model;
mod model_file;
pub mod output;
mod plugin;
mod ready;
mod run;
mod serve;
mod submit;
mod task;
mod task_watch;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config;
use exit::Failure;

/// Largest document read from a file or standard input, bytes: more than any server takes.
const MAX_INPUT_BYTES: u64 = 64 << 20;

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
    /// The server that client commands talk to.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "FORMWORK_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) server: String,
    /// The server's bearer token.
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "FORMWORK_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the HTTP API and work on submissions.
    Serve(serve::Options),
    /// Run a form's pipeline over a file, without a server.
    Run(run::Options),
    /// Show the example forms at work.
    Demo(demo::Options),
    /// Measure what this machine does.
    Bench(bench::Options),
    /// Publish and read forms of a running server.
    #[command(subcommand)]
    Form(form::Command),
    /// Submit a document to a running server.
    Submit(submit::Options),
    /// Ask a running server whether it can do its work; fails if not.
    Ready,
    /// Look at, cancel and retry tasks of a running server.
    #[command(subcommand)]
    Task(task::Command),
    /// Look at the dead-letter queue of a running server, and run its tasks again.
    #[command(subcommand)]
    Dead(task::DeadCommand),
    /// Look at the pools of a running server, pause and limit them.
    #[command(subcommand)]
    Pool(task::PoolCommand),
    /// Build, check, look into and list plugins.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Look at models of a running server, load and unload them; measure models.
    #[command(subcommand)]
    Model(model::Command),
    /// What the host starts to compile one component: the component on standard input, machine code on standard output.
    #[command(name = compile::COMMAND, hide = true)]
    CompileComponent(compile::Options),
}

/// Runs the command in the arguments.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let global = &cli.global;
    let result = match cli.command {
        Command::Serve(options) => serve::run(&options, global),
        Command::Run(options) => run::run(&options, global),
        Command::Demo(options) => demo::run(&options, global),
        Command::Bench(options) => bench::run(&options, global),
        Command::Form(command) => block_on(form::run(command, global)),
        Command::Submit(options) => block_on(submit::run(&options, global)),
        Command::Ready => block_on(ready::run(global)),
        Command::Task(command) => block_on(task::run(command, global)),
        Command::Dead(command) => block_on(task::dead(command, global)),
        Command::Pool(command) => block_on(task::pools(command, global)),
        Command::Plugin(command) => plugin::run(command, global),
        Command::Model(command) => model::run(command, global),
        Command::CompileComponent(options) => compile::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("formwork: {failure}");
            ExitCode::from(&failure)
        }
    }
}

/// The configuration, with this program as the engine's compiler.
pub(crate) fn load_config(file: Option<&Path>) -> Result<config::Loaded, config::ConfigError> {
    let mut loaded = config::load(file)?;
    loaded.config.engine.compiler = compile::of_this_program();
    Ok(loaded)
}

/// How an engine starts `program`, a `formwork`, as its compiler.
#[must_use]
pub fn compiler_command(program: PathBuf) -> formwork_engine::CompilerCommand {
    compile::of(program)
}

/// Runs a client command.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// A document from a file, or from standard input for `-`.
pub(crate) fn read_input(file: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::NotFound(format!("no such file: {}", file.display())),
        _ => Failure::Failed(anyhow::Error::new(error).context(format!("reading {}", file.display()))),
    };
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(wrong)?)
    };
    source
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(wrong)?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(Failure::Usage(format!(
            "{} has more than {MAX_INPUT_BYTES} bytes",
            file.display()
        )));
    }
    Ok(bytes)
}

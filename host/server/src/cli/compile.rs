//! The compiler's process: see `formwork_engine`'s module `compile`.

use std::path::PathBuf;

use formwork_engine::{CompileOptions, CompilerCommand, compile_in_this_process};

use super::exit::Failure;

/// The hidden command's name.
pub(super) const COMMAND: &str = "compile-component";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What it may use, as JSON.
    limits: String,
}

/// How the host starts it; none where this program cannot be found again: it then compiles in its own process.
pub(super) fn of_this_program() -> Option<CompilerCommand> {
    match std::env::current_exe() {
        Ok(program) => Some(of(program)),
        Err(error) => {
            tracing::warn!(%error, "this program's file is not known: components are compiled in this process");
            None
        }
    }
}

/// How `program`, a `formwork`, is started to compile.
pub(super) fn of(program: PathBuf) -> CompilerCommand {
    CompilerCommand {
        program,
        arguments: vec![COMMAND.into()],
        // The allocator would reserve a GiB of the address space that is limited.
        environment: vec![("MIMALLOC_ARENA_RESERVE".into(), "0".into())],
    }
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let limits: CompileOptions =
        serde_json::from_str(&options.limits).map_err(|error| Failure::Usage(format!("limits: {error}")))?;
    compile_in_this_process(&limits, std::io::stdin().lock(), std::io::stdout().lock())
        .map_err(|message| Failure::Failed(anyhow::Error::msg(message)))
}

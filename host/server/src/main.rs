//! The `formwork` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    formwork_server::cli::main()
}

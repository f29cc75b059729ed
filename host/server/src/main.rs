//! The `formwork` program.

use std::process::ExitCode;

/// A request is read on one thread and answered on another: the C library's allocator took a tenth of a validation over
/// HTTP for handing memory between them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    formwork_server::cli::main()
}

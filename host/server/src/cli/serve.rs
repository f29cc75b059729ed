//! `formwork serve`: the server.

use std::path::PathBuf;

use super::Global;
use super::exit::Failure;
use super::output::print;
use crate::config::{LogFormat, Roles};
use crate::serve::{Server, signalled};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration, secrets masked, and end.
    #[arg(long)]
    print_config: bool,
    /// Address and port; instead of `http.listen`.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<std::net::SocketAddr>,
    /// What this process does, some of api, high, default, batched; instead of `roles`.
    #[arg(long, value_name = "ROLE,…")]
    roles: Option<Roles>,
    /// `json` or `text`; instead of `log.format`.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

pub(crate) fn run(options: &Options, _: &Global) -> Result<(), Failure> {
    let mut loaded =
        super::load_config(options.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))?;
    if options.print_config {
        print(&loaded.printed())?;
        return Ok(());
    }
    if let Some(listen) = options.listen {
        loaded.config.http.listen = listen;
    }
    if let Some(roles) = &options.roles {
        loaded
            .set_roles(roles.clone())
            .map_err(|error| Failure::Usage(error.to_string()))?;
    }
    if let Some(format) = options.log_format {
        loaded.config.log.format = format;
    }
    crate::logging::init(&loaded.config.log).map_err(|error| Failure::Usage(error.to_string()))?;
    let file = loaded
        .file
        .as_ref()
        .map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), configuration = file, "starting");
    for warning in loaded.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(loaded.config.http.threads)
        .thread_name("fw-http")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // A process with the number 1, as in a container, has no default action for signals.
        let server = tokio::select! {
            server = Server::start(loaded.config) => server?,
            () = signalled() => {
                tracing::info!("told to stop before everything was started");
                std::process::exit(0);
            }
        };
        server.until_stopped().await.map_err(Failure::failed)
    })
}

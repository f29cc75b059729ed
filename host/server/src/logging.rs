//! Logs: one JSON object a line by default, with the fields of the spans around it (the correlation id among them).

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// `log.filter` is not a filter.
    #[error("log.filter `{filter}`: {source}, expected for example `info` or `warn,formwork_engine=debug`")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before.
    #[error("setting up logging: {0}")]
    Init(#[from] TryInitError),
}

/// Sets logging up for a command that runs the product in its own process: text, warnings unless something else was asked
/// for. A command prints its results; a second set-up or a bad filter is no reason not to.
pub fn start_for_tools(log: &Log) {
    let quiet = log.filter == crate::config::defaults::LOG_FILTER;
    let filter = if quiet { "warn".to_owned() } else { log.filter.clone() };
    if let Err(error) = init(&Log {
        format: LogFormat::Text,
        filter,
    }) {
        eprintln!("formwork: {error}");
    }
}

/// Sends events to standard error: standard output is for results.
///
/// # Errors
/// [`LogError::Filter`] for a bad filter, [`LogError::Init`] the second time.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|source| LogError::Filter {
        filter: log.filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init()?,
        LogFormat::Text => builder.finish().try_init()?,
    }
    Ok(())
}

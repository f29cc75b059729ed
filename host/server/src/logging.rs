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

/// Sends events to standard error: standard output is for results.
///
/// # Errors
/// [`LogError::Filter`] for a bad filter, [`LogError::Init`] the second time.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|source| LogError::Filter { filter: log.filter.clone(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).finish().try_init()?,
        LogFormat::Text => builder.finish().try_init()?,
    }
    Ok(())
}

//! `formwork model bench`: what models do on this machine.
//!
//! **Problem.** Tokens a second depend on prompt, threads, batch and on who asks. **Promise.** Each model is measured in a
//! process of its own for each number of threads, by two routes that take turns: the inference service's functions, and a
//! plugin in its sandbox. The cache of embeddings is off, prefixes are kept in memory only. **Cost.** A minute for each
//! model and number of threads. **Rejected.** One process for all settings: ONNX Runtime's threads are set once, and what
//! one model left in memory would be in the next one's figure.

mod driver;
mod encoder;
mod generator;
mod guest;
mod plot;
mod report;
mod schemas;
mod worker;

use std::path::PathBuf;

use formwork_inference::ModelTask;

use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{print, print_json};
use crate::config::Config;

use driver::Driver;
use report::Rows;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The models, by the names that plugins use; absent: all that are configured and no plain graphs.
    models: Vec<String>,
    /// Native threads to measure with, such as `1,2`; absent: as configured. More than there are CPUs are lowered to them.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,
    /// Rounds; every figure is the median over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Also write so many texts under a dozen JSON Schemas, and fail if one does not parse and validate.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    schemas: usize,
    /// Write the report as Markdown, JSON and a plot into this folder.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Be the process that is measured: work in lines of JSON on standard input, times on standard output.
    #[arg(long)]
    worker: bool,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let config = config(options)?;
    crate::logging::start_for_tools(&config.log);
    if options.worker {
        return Ok(worker::serve(&config)?);
    }
    let rows = measure(options, &config)?;
    if let Some(folder) = &options.report {
        rows.write(folder)?;
    }
    if global.json {
        print_json(&rows.to_json())?;
    } else {
        print(&rows.to_text())?;
    }
    Ok(())
}

/// The operator's, with the models that are measured and nothing kept between calls but prefixes in memory.
fn config(options: &Options) -> Result<Config, Failure> {
    let mut config = crate::cli::load_config(options.config.as_deref())
        .map_err(|error| Failure::Usage(error.to_string()))?
        .config;
    let known: Vec<String> = config.models.iter().map(|model| model.name.clone()).collect();
    if let Some(unknown) = options.models.iter().find(|name| !known.contains(name)) {
        let known = known.join(", ");
        return Err(Failure::NotFound(format!(
            "no model `{unknown}` is configured; there are: {known}"
        )));
    }
    if !options.models.is_empty() {
        config.models.retain(|model| options.models.contains(&model.name));
    }
    config.log.filter = "warn".into();
    config.inference.embedding_cache_bytes = 0;
    config.inference.prefix_folder = None;
    if let Some(threads) = options.threads.first() {
        config.inference.threads = usize::from(*threads);
    }
    Ok(config)
}

fn measure(options: &Options, config: &Config) -> anyhow::Result<Rows> {
    let threads: Vec<usize> = match options.threads.is_empty() {
        true => vec![config.inference.threads],
        false => options.threads.iter().copied().map(usize::from).collect(),
    };
    let rounds = usize::from(options.rounds);
    let mut rows = Rows::default();
    for model in &config.models {
        if matches!(model.task, ModelTask::Graph { .. }) {
            continue;
        }
        for (setting, threads) in threads.iter().enumerate() {
            eprintln!("measuring {} with {threads} thread(s)", model.name);
            let mut driver = Driver::start(options.config.as_deref(), &model.name, *threads)?;
            if setting == 0 {
                rows.add_model(&driver);
            }
            let empty = driver.resident_bytes()?;
            if matches!(model.task, ModelTask::Encoder { .. }) {
                encoder::measure(&mut driver, rounds, &mut rows)?;
            } else {
                generator::measure(&mut driver, rounds, &mut rows)?;
                if options.schemas > 0 {
                    generator::validity(&mut driver, options.schemas, &mut rows)?;
                }
            }
            let full = driver.resident_bytes()?;
            for (what, bytes) in [("resident memory, loaded", empty), ("resident memory at the end", full)] {
                rows.add(&driver, None, what, None, bytes / f64::from(1 << 20), "MiB");
            }
        }
    }
    anyhow::ensure!(!rows.rows.is_empty(), "none of the models is an encoder or a generator");
    Ok(rows)
}

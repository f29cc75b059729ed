//! `formwork run`: a form's pipeline over a file, without a server.
//!
//! The same engine, plugins and models as the server's; no store, since the files are the record. Lines are read, run on
//! the pool's threads and written in their order with a bounded number in flight, so memory stays flat however long the
//! file is. A line that cannot be processed is reported in its place and does not stop the others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use formwork_engine::{CallContext, Frame, Kind, SubmissionInput};
use formwork_pipeline::{FormDefinition, Pipeline, RunReport, StepDefinition, StepRun};
use formwork_scheduler::{Lane, PoolOptions};
use formwork_tasks::{Pool, SubmissionStatus};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Global;
use super::exit::Failure;
use super::lines::{Line, Lines, not_readable, open_input};
use super::output::print_json;
use crate::clock;
use crate::config;
use crate::http::json_body;
use crate::serve::Machinery;

/// Lines in flight for each thread: enough that a slow line (a generation) does not idle the other threads at once.
const LINES_PER_THREAD: usize = 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The form definition.
    #[arg(long, value_name = "FORM.json")]
    form: PathBuf,
    /// One submission's data a line; `-` reads standard input.
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// One result a line, in the order of the input; `-` writes standard output.
    #[arg(long, value_name = "OUT.jsonl")]
    output: PathBuf,
    /// Only this step; may be given several times.
    #[arg(long, value_name = "NAME")]
    step: Vec<String>,
    /// Writes what export steps produce to STEP.csv or STEP.jsonl in this folder.
    #[arg(long, value_name = "FOLDER")]
    exports: Option<PathBuf>,
    /// Threads that run plugins; absent: one a core.
    #[arg(long)]
    threads: Option<usize>,
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// How many lines ended how.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    rejected: u64,
    failed: u64,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let loaded = super::load_config(options.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))?;
    crate::logging::start_for_tools(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = runtime.block_on(process(options, &loaded.config))?;
    let Tally { done, rejected, failed } = tally;
    let lines = done + rejected + failed;
    if global.json {
        print_json(&json!({ "lines": lines, "done": done, "rejected": rejected, "failed": failed }))?;
    } else {
        eprintln!("{lines} lines: {done} done, {rejected} rejected, {failed} failed");
    }
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::failed(anyhow::anyhow!(
            "{failed} of {lines} lines failed; each has its `error` in the output"
        )))
    }
}

async fn process(options: &Options, config: &config::Config) -> Result<Tally, Failure> {
    let text = std::fs::read(&options.form).map_err(|error| not_readable(&options.form, error))?;
    let definition = FormDefinition::parse(&text).map_err(|error| definition_failure(&options.form, &error))?;
    let unknown = options
        .step
        .iter()
        .find(|name| !definition.pipeline.iter().any(|step| step.name == **name));
    if let Some(name) = unknown {
        let known: Vec<_> = definition.pipeline.iter().map(|step| step.name.as_str()).collect();
        return Err(Failure::NotFound(format!(
            "no step `{name}` in the form; it has {}",
            known.join(", ")
        )));
    }
    let machinery = Machinery::start(config).await?;
    let id = options
        .form
        .file_stem()
        .map_or_else(|| "form".into(), |stem| stem.to_string_lossy().into_owned());
    let pipeline = Arc::new(Pipeline::new(&id, 1, Arc::new(definition)));
    let threads = options
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    let lane = Lane::start(
        Pool::Default,
        &PoolOptions {
            threads,
            inbox: threads * LINES_PER_THREAD,
            ..PoolOptions::of(Pool::Default)
        },
    )?;
    let check = {
        let (pipeline, catalog) = (Arc::clone(&pipeline), machinery.catalog.clone());
        lane.spawn(move || async move { pipeline.check(&catalog, &context("check")).await })
            .await
    };
    check
        .map_err(Failure::failed)?
        .map_err(|error| definition_failure(&options.form, &error))?;

    let (input, bytes) = open_input(&options.input)?;
    let bar = progress_bar(bytes);
    let mut output: Box<dyn Write> = open_output(&options.output)?;
    let mut exports = Exports::open(options, &pipeline, &machinery, &lane).await?;
    let steps: Arc<[String]> = options.step.clone().into();
    let depth = config.http.json_depth;

    let batches =
        futures::stream::iter(Lines::new(input, config.http.body_limit_bytes)).chunks(pipeline.largest_batch());
    let runs = batches.map(|lines| {
        let (pipeline, catalog, lane) = (Arc::clone(&pipeline), machinery.catalog.clone(), lane.clone());
        let steps = Arc::clone(&steps);
        async move {
            let places: Vec<_> = lines.iter().map(|line| (line.number, line.bytes_read)).collect();
            let ran = lane.spawn(move || async move { run_lines(&pipeline, &catalog, lines, &steps, depth).await });
            let results = match ran.await {
                Ok(results) => results,
                Err(error) => places.iter().map(|_| Err(error.to_string())).collect(),
            };
            places.into_iter().zip(results)
        }
    });
    let runs = runs
        .buffered(threads * LINES_PER_THREAD)
        .map(futures::stream::iter)
        .flatten();
    let mut runs = std::pin::pin!(runs);
    let mut tally = Tally::default();
    while let Some(((number, read), result)) = runs.next().await {
        let line = match result {
            Ok(report) => {
                match report.status {
                    SubmissionStatus::Done => tally.done += 1,
                    SubmissionStatus::Rejected => tally.rejected += 1,
                    _ => tally.failed += 1,
                }
                exports.write(&report)?;
                shown(number, &report)
            }
            Err(message) => {
                tally.failed += 1;
                bar.suspend(|| eprintln!("line {number}: {message}"));
                json!({ "line": number, "status": "failed", "error": message })
            }
        };
        writeln!(output, "{line}")?;
        bar.inc(read);
    }
    output.flush()?;
    exports.finish(&pipeline, &machinery, &lane).await?;
    bar.finish_and_clear();
    lane.close();
    Ok(tally)
}

/// One result a line. A line that is no submission does not stop the others.
async fn run_lines(
    pipeline: &Pipeline,
    catalog: &formwork_pipeline::Catalog,
    lines: Vec<Line>,
    steps: &[String],
    depth: usize,
) -> Vec<Result<RunReport, String>> {
    let first = lines.first().map_or(0, |line| line.number);
    let read: Vec<_> = lines.into_iter().map(|line| submission(line, depth)).collect();
    let submissions: Vec<_> = read.iter().filter_map(|line| line.as_ref().ok()).cloned().collect();
    let context = context(&format!("line-{first}"));
    let wanted = |step: &StepDefinition| steps.is_empty() || steps.contains(&step.name);
    let reports = pipeline.run_all(catalog, &submissions, &context, wanted).await;
    let mut reports = reports.into_iter();
    let lost = || "its run was lost".to_owned();
    read.into_iter()
        .map(|line| line.and_then(|_| reports.next().ok_or_else(lost)))
        .collect()
}

fn submission(line: Line, depth: usize) -> Result<SubmissionInput, String> {
    let data = String::from_utf8(line.content?).map_err(|error| format!("not UTF-8: {error}"))?;
    json_body::check(&data, depth).map_err(|problem| problem.to_string())?;
    Ok(SubmissionInput {
        id: ulid::Ulid::generate().to_string(),
        submitted_at: clock::rfc3339(clock::now()),
        data,
        results: Vec::new(),
    })
}

fn context(correlation_id: &str) -> CallContext {
    CallContext {
        owner: "run".into(),
        correlation_id: correlation_id.into(),
        ..CallContext::default()
    }
}

/// One line of the output: as the API's answer, without what only a store knows.
fn shown(number: u64, report: &RunReport) -> Value {
    let steps: Vec<Value> = report.steps.iter().map(shown_step).collect();
    json!({ "line": number, "status": report.status, "steps": steps })
}

fn shown_step(run: &StepRun) -> Value {
    let report = &run.report.report;
    let models: Vec<Value> = report
        .models
        .iter()
        .map(|model| json!({ "name": model.name, "version": model.version, "sha256": model.sha256 }))
        .collect();
    let mut step = json!({
        "name": run.step,
        "plugin": run.report.plugin,
        "models": models,
        "cpu_ms": report.usage.cpu.as_secs_f64() * 1e3,
        "wall_ms": report.usage.wall.as_secs_f64() * 1e3,
    });
    match &report.result {
        Ok(output) => step["output"] = output.json.clone(),
        Err(error) => {
            step["error"] = json!({ "code": error.code(), "message": run.report.message() });
            if !run.report.refused.is_empty() {
                step["error"]["refused"] = json!(run.report.refused);
            }
        }
    }
    step
}

/// The files of export steps.
struct Exports(BTreeMap<String, BufWriter<File>>);

impl Exports {
    async fn open(
        options: &Options,
        pipeline: &Arc<Pipeline>,
        machinery: &Machinery,
        lane: &Lane,
    ) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        let Some(folder) = &options.exports else {
            return Ok(Self(files));
        };
        std::fs::create_dir_all(folder)?;
        for step in &pipeline.definition().pipeline {
            let wanted = options.step.is_empty() || options.step.contains(&step.name);
            if !wanted || !pipeline.is_kind(&machinery.catalog, step, Kind::Exporter) {
                continue;
            }
            let extension = step.settings.get("format").and_then(Value::as_str).unwrap_or("jsonl");
            let path = folder.join(format!("{}.{extension}", step.name));
            let mut file = BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?);
            file.write_all(&frame(pipeline, machinery, lane, &step.name, Frame::Begin).await?)?;
            files.insert(step.name.clone(), file);
        }
        Ok(Self(files))
    }

    fn write(&mut self, report: &RunReport) -> Result<(), Failure> {
        for run in &report.steps {
            if let (Some(file), Ok(output)) = (self.0.get_mut(&run.step), &run.report.report.result) {
                file.write_all(output.export.as_deref().unwrap_or_default())?;
            }
        }
        Ok(())
    }

    async fn finish(self, pipeline: &Arc<Pipeline>, machinery: &Machinery, lane: &Lane) -> Result<(), Failure> {
        for (step, mut file) in self.0 {
            file.write_all(&frame(pipeline, machinery, lane, &step, Frame::End).await?)?;
            file.flush()?;
        }
        Ok(())
    }
}

async fn frame(
    pipeline: &Arc<Pipeline>,
    machinery: &Machinery,
    lane: &Lane,
    step: &str,
    frame: Frame,
) -> Result<Vec<u8>, Failure> {
    let (pipeline, catalog, step) = (Arc::clone(pipeline), machinery.catalog.clone(), step.to_owned());
    lane.spawn(move || async move { pipeline.export_frame(&catalog, &step, frame, context("export")).await })
        .await
        .map_err(Failure::failed)?
        .map_err(Failure::failed)
}

fn open_output(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(std::io::stdout())));
    }
    Ok(Box::new(BufWriter::new(
        File::create(path).with_context(|| path.display().to_string())?,
    )))
}

fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:40} {bytes}/{total_bytes} {elapsed} (eta {eta})",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn definition_failure(path: &Path, error: &formwork_pipeline::DefinitionError) -> Failure {
    let problems: Vec<String> = error
        .problems
        .iter()
        .map(|problem| format!("  at `{}`: {} ({})", problem.pointer, problem.message, problem.code))
        .collect();
    Failure::Usage(format!(
        "{} is not a form definition:\n{}",
        path.display(),
        problems.join("\n")
    ))
}

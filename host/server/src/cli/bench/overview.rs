//! `formwork bench` without a subcommand: one row for each thing the product does, models included.
//!
//! Rows are measured one after another. Ratios between rows of one run carry further than the rows themselves; for those
//! that matter `formwork bench engine` has rows that take turns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use formwork_inference::{CallContext as InferenceContext, GenerationRequest};
use formwork_tasks::Pool;
use futures::StreamExt;
use serde_json::{Value, json};

use super::work::{Work, call_context};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{Table, print, print_json};
use crate::config;
use crate::serve::Server;

/// Clients that submit at once in the end-to-end row.
const CLIENTS: usize = 32;

/// Texts of a batch in the embeddings row.
const BATCH: usize = 32;

/// Tokens of the generation row.
const TOKENS: u32 = 128;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds for each row.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The configuration file.
    #[arg(long)]
    config: Option<std::path::PathBuf>,
}

/// A row of the report.
#[derive(Debug)]
struct Row {
    what: &'static str,
    per_second: f64,
    p50: Option<Duration>,
    p95: Option<Duration>,
    note: String,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let mut loaded =
        crate::cli::load_config(options.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))?;
    let scratch = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
    loaded.config.embed(&scratch.path().join("bench.db"));
    loaded.config.http.listen.set_port(0);
    loaded.config.log.filter = "warn".into();
    crate::logging::start_for_tools(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rows = runtime.block_on(measure(loaded.config, Duration::from_secs(options.seconds.max(1))))?;
    report(&rows, global)
}

async fn measure(config: config::Config, time: Duration) -> Result<Vec<Row>, Failure> {
    let server = Server::start(config).await?;
    let url = format!("http://{}", server.address());
    let work = Work::standard()?;
    let mut rows = vec![native(&work, time)?];
    rows.push(sandboxed(&work, &server, time).await?);
    rows.push(http_validation(&work, &url, time).await?);
    rows.push(end_to_end(&work, &url, time).await?);
    rows.push(embeddings(&server, time, 1).await?);
    rows.push(embeddings(&server, time, BATCH).await?);
    rows.push(generation(&server, time).await?);
    server.stop().await;
    Ok(rows)
}

/// The floor: the same schema and document with the same library, compiled into this program.
fn native(work: &Work, time: Duration) -> anyhow::Result<Row> {
    let validator = work.native_validator()?;
    let mut times = Times::new(time);
    while times.go_on() {
        times.one(|| {
            let data: Value = serde_json::from_str(black_box(&work.submission)).unwrap_or_default();
            black_box(validator.is_valid(&data));
        });
    }
    Ok(times.row("native validation", "schema compiled once, in this program"))
}

/// A fresh instance that prepares and validates, on a pool's thread.
async fn sandboxed(work: &Work, server: &Server, time: Duration) -> anyhow::Result<Row> {
    let (pipeline, step) = (work.pipeline(1), work.step.clone());
    let catalog = server.catalog().clone();
    let submission = work.input();
    let lane = server.lane(Pool::High);
    let times = lane
        .spawn(move || async move {
            let mut times = Times::new(time);
            while times.go_on() {
                let began = Instant::now();
                let report = pipeline
                    .run_step(&catalog, &step, &submission, call_context())
                    .await
                    .report;
                let output = report.result.map_err(anyhow::Error::new)?;
                anyhow::ensure!(!output.rejected, "the bench submission is not valid: {}", output.json);
                times.add(began.elapsed());
            }
            anyhow::Ok(times)
        })
        .await??;
    Ok(times.row("sandboxed validation", "fresh instance, prepare and validate"))
}

async fn http_validation(work: &Work, url: &str, time: Duration) -> anyhow::Result<Row> {
    let client = reqwest::Client::new();
    publish(&client, url, &work.form).await?;
    let mut times = Times::new(time);
    while times.go_on() {
        let began = Instant::now();
        let answer: Value = post(&client, &format!("{url}/v1/forms/bench/validate"), &work.submission).await?;
        anyhow::ensure!(answer["valid"] == true, "not valid: {answer}");
        times.add(began.elapsed());
    }
    Ok(times.row("validation over HTTP", "POST …/validate, one client, stores nothing"))
}

/// Submissions acknowledged after fsync, until all of them are done.
async fn end_to_end(work: &Work, url: &str, time: Duration) -> anyhow::Result<Row> {
    let client = reqwest::Client::new();
    let address = format!("{url}/v1/forms/bench/submissions");
    let began = Instant::now();
    let clients = futures::stream::iter(0..CLIENTS).map(|_| {
        let (client, address) = (client.clone(), address.clone());
        async move {
            let mut times = Times::new(time);
            let mut last = String::new();
            while times.go_on() {
                let sent = Instant::now();
                let answer = post(&client, &address, &work.submission).await?;
                times.add(sent.elapsed());
                last = answer["id"].as_str().context("no id")?.to_owned();
            }
            anyhow::Ok((times, last))
        }
    });
    let ended: Vec<_> = clients.buffer_unordered(CLIENTS).collect().await;
    let mut all = Times::new(time);
    for client_times in ended {
        all.samples.extend(client_times?.0.samples);
    }
    let acknowledged = began.elapsed();
    wait_until_idle(&client, url).await?;
    let settled = began.elapsed();
    let tasks = all.samples.len() as f64;
    let note = format!(
        "{CLIENTS} clients; acknowledged after fsync {:.0}/s, the column counts until the last was done",
        tasks / acknowledged.as_secs_f64()
    );
    let mut row = all.row("submissions end to end", &note);
    row.per_second = tasks / settled.as_secs_f64();
    Ok(row)
}

async fn wait_until_idle(client: &reqwest::Client, url: &str) -> anyhow::Result<()> {
    loop {
        let pools: Value = client.get(format!("{url}/v1/pools")).send().await?.json().await?;
        let list = pools
            .as_array()
            .or_else(|| pools["items"].as_array())
            .or_else(|| pools["pools"].as_array());
        let waiting: u64 = list
            .context("no list of pools")?
            .iter()
            .map(|pool| pool["available"].as_u64().unwrap_or(0) + pool["running"].as_u64().unwrap_or(0))
            .sum();
        if waiting == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn embeddings(server: &Server, time: Duration, batch: usize) -> anyhow::Result<Row> {
    let context = InferenceContext {
        owner: "bench".into(),
        ..InferenceContext::default()
    };
    let mut times = Times::new(time);
    let mut number = 0_u64;
    while times.go_on() {
        // Every text is new: the cache of results must not answer.
        let texts = (0..batch)
            .map(|_| {
                number += 1;
                format!("my parcel number {number} has not arrived and nobody answers my calls about it")
            })
            .collect();
        let began = Instant::now();
        server.inference().embed("encoder", texts, &context).await?;
        times.add(began.elapsed());
    }
    let (what, note) = match batch {
        1 => ("embeddings, one by one", "texts of 18 tokens"),
        _ => ("embeddings, batches of 32", "per text; p50 and p95 are a batch's"),
    };
    let mut row = times.row(what, note);
    row.per_second *= batch as f64;
    Ok(row)
}

async fn generation(server: &Server, time: Duration) -> anyhow::Result<Row> {
    let context = InferenceContext {
        owner: "bench".into(),
        ..InferenceContext::default()
    };
    let mut times = Times::new(time);
    let (mut tokens, mut seconds) = (0_u32, 0.0);
    while times.go_on() {
        let request = GenerationRequest {
            system: "You write long letters.".into(),
            prompt: "Write a letter to a customer whose order is late.".into(),
            max_tokens: TOKENS,
            temperature: 0.0,
            seed: 0,
            stop: Vec::new(),
            json_schema: None,
        };
        let began = Instant::now();
        let mut completion = server.inference().generate("generator", request, &context).await?;
        let mut first = None;
        while completion.next().await?.is_some() {
            first.get_or_insert_with(Instant::now);
        }
        let ended = Instant::now();
        times.add(began.elapsed());
        tokens += completion
            .summary()
            .map_or(0, |summary| summary.output_tokens.saturating_sub(1));
        seconds += first.map_or(0.0, |first| (ended - first).as_secs_f64());
    }
    let mut row = times.row(
        "generation",
        "tokens a second after the first; p50 and p95 are a whole letter's",
    );
    row.per_second = if seconds > 0.0 {
        f64::from(tokens) / seconds
    } else {
        0.0
    };
    Ok(row)
}

async fn publish(client: &reqwest::Client, url: &str, form: &str) -> anyhow::Result<()> {
    let response = client
        .put(format!("{url}/v1/forms/bench"))
        .header("content-type", "application/json")
        .body(form.to_owned())
        .send()
        .await?;
    let status = response.status();
    anyhow::ensure!(
        status.is_success(),
        "publishing the bench form: {}",
        response.text().await?
    );
    Ok(())
}

async fn post(client: &reqwest::Client, url: &str, body: &str) -> anyhow::Result<Value> {
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .body(body.to_owned())
        .send()
        .await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    anyhow::ensure!(status.is_success(), "{url}: {answer}");
    Ok(answer)
}

/// Durations of one row.
#[derive(Debug)]
struct Times {
    until: Instant,
    samples: Vec<Duration>,
}

impl Times {
    fn new(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            samples: Vec::new(),
        }
    }

    fn go_on(&self) -> bool {
        Instant::now() < self.until
    }

    fn one(&mut self, work: impl FnOnce()) {
        let began = Instant::now();
        work();
        self.add(began.elapsed());
    }

    fn add(&mut self, sample: Duration) {
        self.samples.push(sample);
    }

    fn row(mut self, what: &'static str, note: &str) -> Row {
        self.samples.sort_unstable();
        let total: Duration = self.samples.iter().sum();
        let count = self.samples.len();
        let percentile = |percent: usize| self.samples.get(count.saturating_sub(1) * percent / 100).copied();
        Row {
            what,
            per_second: if total.is_zero() {
                0.0
            } else {
                count as f64 / total.as_secs_f64()
            },
            p50: percentile(50),
            p95: percentile(95),
            note: note.to_owned(),
        }
    }
}

fn report(rows: &[Row], global: &Global) -> Result<(), Failure> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let micros = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    if global.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({ "what": row.what, "per_second": row.per_second, "p50_us": micros(row.p50),
                    "p95_us": micros(row.p95), "note": row.note })
            })
            .collect();
        print_json(&json!({ "cpus": cpus, "rows": rows }))?;
        return Ok(());
    }
    let mut table = Table::new(&["what", "a second", "p50 us", "p95 us", "note"]);
    for row in rows {
        let shown = |time| micros(time).map_or("-".into(), |micros| format!("{micros:.1}"));
        table.row([
            row.what.into(),
            format!("{:.0}", row.per_second),
            shown(row.p50),
            shown(row.p95),
            row.note.clone(),
        ]);
    }
    print(&format!("{cpus} CPUs\n{}", table.render()))?;
    Ok(())
}

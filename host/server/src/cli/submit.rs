//! `formwork submit`: a document, or a file of many, for a form of a running server.

use std::fmt;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::exit::Failure;
use super::lines::{Lines, open_input};
use super::output::{Table, cell, print, print_json, shown};
use super::{Global, read_input};

/// Lines of a request: an answer every few hundred milliseconds.
const PART_LINES: u64 = 1_000;

/// Bytes at which a request is long enough, and of the longest line; well below what servers take by default.
const PART_BYTES: usize = 4 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The form's id.
    form: String,
    /// The document; `-` reads standard input.
    file: PathBuf,
    /// The file has one document a line, each a submission of its own.
    #[arg(long, conflicts_with = "wait")]
    lines: bool,
    /// Wait up to this many seconds for the results.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Makes the command safe to repeat: the same key and document (and line) give the same submission.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Submit to this version; absent: the latest.
    #[arg(long)]
    version: Option<u32>,
}

pub(crate) async fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    if options.lines {
        return submit_lines(options, global, &client).await;
    }
    let version = ("version", options.version.map(|version| version.to_string()));
    let mut request = client.request(Method::POST, &["forms", &options.form, "submissions"], &[version]);
    if let Some(seconds) = options.wait {
        request = request.header("prefer", format!("wait={seconds}"));
    }
    if let Some(key) = &options.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let request = request
        .header("content-type", "application/json")
        .body(read_input(&options.file)?);
    let (_, answer) = client.send(request).await?;
    if global.json {
        print_json(&answer)?;
    } else {
        print(&described(&answer))?;
    }
    Ok(())
}

/// Lines of a file in one request, with empty lines for those that are not sent: the numbers stay the file's.
#[derive(Default)]
struct Part {
    first_line: u64,
    lines: u64,
    body: Vec<u8>,
}

impl Part {
    fn is_full(&self) -> bool {
        self.lines >= PART_LINES || self.body.len() >= PART_BYTES
    }

    /// Adds a line with a number above all others.
    fn push(&mut self, number: u64, text: &[u8]) {
        if self.lines == 0 {
            self.first_line = number;
        }
        while self.first_line + self.lines < number {
            self.lines += 1;
            self.body.push(b'\n');
        }
        self.lines += 1;
        self.body.extend_from_slice(text);
        self.body.push(b'\n');
    }
}

/// What became of all lines so far.
#[derive(Default)]
struct Tally {
    recorded: u64,
    replayed: u64,
    failed: u64,
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            recorded,
            replayed,
            failed,
        } = self;
        write!(
            formatter,
            "{recorded} recorded, {replayed} recorded before, {failed} failed"
        )
    }
}

async fn submit_lines(options: &Options, global: &Global, client: &Client) -> Result<(), Failure> {
    let (input, _) = open_input(&options.file)?;
    let mut tally = Tally::default();
    let mut part = Part::default();
    let result = async {
        for line in Lines::new(input, PART_BYTES) {
            match line.content {
                Ok(text) => {
                    if part.is_full() {
                        send(options, global, client, std::mem::take(&mut part), &mut tally).await?;
                    }
                    part.push(line.number, &text);
                }
                Err(why) => {
                    tally.failed += 1;
                    tell(
                        global,
                        &json!({ "line": line.number, "error": { "code": "unreadable", "detail": why } }),
                    )?;
                }
            }
        }
        send(options, global, client, part, &mut tally).await
    };
    if let Err(failure) = result.await {
        if tally.recorded + tally.replayed > 0 {
            eprintln!("broke off: {tally}; with the same --idempotency-key the command can be repeated as it is");
        }
        return Err(failure);
    }
    eprintln!("{tally}");
    match tally.failed {
        0 => Ok(()),
        failed => Err(Failure::Rejected(format!("lines that were not recorded: {failed}"))),
    }
}

async fn send(
    options: &Options,
    global: &Global,
    client: &Client,
    part: Part,
    tally: &mut Tally,
) -> Result<(), Failure> {
    if part.lines == 0 {
        return Ok(());
    }
    let query = [
        ("version", options.version.map(|version| version.to_string())),
        ("first_line", Some(part.first_line.to_string())),
    ];
    let mut request = client.request(Method::POST, &["forms", &options.form, "submit-lines"], &query);
    if let Some(key) = &options.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let request = request.header("content-type", "application/x-ndjson").body(part.body);
    let (_, answer) = client.send(request).await?;
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    tally.recorded += count("recorded");
    tally.replayed += count("replayed");
    tally.failed += count("failed");
    for item in answer["items"].as_array().into_iter().flatten() {
        tell(global, item)?;
    }
    Ok(())
}

/// Prints what became of a line: all of them as JSON, those that failed for people.
fn tell(global: &Global, item: &Value) -> Result<(), Failure> {
    if global.json {
        return print(&format!("{item}\n")).map_err(Failure::from);
    }
    let error = &item["error"];
    if !error.is_null() {
        let (line, detail, code) = (
            cell(item.get("line")),
            cell(error.get("detail")),
            cell(error.get("code")),
        );
        eprintln!("line {line}: {detail} ({code})");
    }
    Ok(())
}

/// A submission for people.
fn described(answer: &Value) -> String {
    let mut text = format!("{}  {}\n", cell(answer.get("id")), cell(answer.get("status")));
    let Some(steps) = answer.get("steps").and_then(Value::as_array) else {
        return text;
    };
    let mut table = Table::new(&["step", "state", "plugin", "cpu ms", "result"]);
    for step in steps {
        let plugin = step["plugin"].as_object().map_or("-".into(), |plugin| {
            format!("{} {}", cell(plugin.get("name")), cell(plugin.get("version")))
        });
        let cpu = step["cpu_ms"].as_f64().map_or("-".into(), |ms| format!("{ms:.1}"));
        let result = step["error"]["message"]
            .as_str()
            .map_or_else(|| cell(step.get("output")), str::to_owned);
        table.row([
            cell(step.get("name")),
            cell(step.get("state")),
            plugin,
            cpu,
            shown(&result),
        ]);
    }
    text.push_str(&table.render());
    text
}

//! `formwork submit`: a document for a form of a running server.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::Value;

use super::client::Client;
use super::exit::Failure;
use super::output::{Table, cell, print, print_json, shown};
use super::{Global, read_input};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The form's id.
    form: String,
    /// The document; `-` reads standard input.
    file: PathBuf,
    /// Wait up to this many seconds for the results.
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
    /// Makes the command safe to repeat: the same key and document give the same submission.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Submit to this version; absent: the latest.
    #[arg(long)]
    version: Option<u32>,
}

pub(crate) async fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
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

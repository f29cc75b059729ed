//! `formwork model …`: the models of a running server, files of models, and what models do on this machine.

use reqwest::Method;
use serde_json::Value;

use super::Global;
use super::bench::model as bench;
use super::client::Client;
use super::exit::Failure;
use super::model_file;
use super::output::{Table, cell, print, print_json};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Served(Served),
    /// Measure the configured models on this machine, without a server.
    Bench(bench::Options),
    /// Check a model's file, and print the lines that declare it; needs no server.
    Check(model_file::Check),
    /// Make a generator's file smaller, and compare what both write; needs no server.
    Quantize(model_file::Quantize),
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Served {
    /// List the models, their states and their memory.
    List,
    /// Show one model.
    Show {
        /// The name that plugins use.
        name: String,
    },
    /// Load a model and wait until it is ready.
    Load {
        /// The name that plugins use.
        name: String,
    },
    /// Free a model's memory; the next call loads it again.
    Unload {
        /// The name that plugins use.
        name: String,
    },
    /// Keep a model in memory when others need room, until the server stops.
    Pin {
        /// The name that plugins use.
        name: String,
    },
    /// Let a model go when others need room.
    Unpin {
        /// The name that plugins use.
        name: String,
    },
}

pub(crate) fn run(command: Command, global: &Global) -> Result<(), Failure> {
    match command {
        Command::Served(command) => super::block_on(ask(command, global)),
        Command::Bench(options) => bench::run(&options, global),
        Command::Check(options) => model_file::check(&options, global),
        Command::Quantize(options) => model_file::quantize(&options, global),
    }
}

async fn ask(command: Served, global: &Global) -> Result<(), Failure> {
    let client = Client::new(global)?;
    let post = async |name: &str, what: &str| {
        let request = client.request(Method::POST, &["models", name, what], &[]);
        client.send(request).await.map(|(_, answer)| answer)
    };
    let pin = async |name: &str, pinned: bool| {
        let request = client.request(Method::PATCH, &["models", name], &[]);
        let request = request.json(&serde_json::json!({ "pinned": pinned }));
        client.send(request).await.map(|(_, answer)| answer)
    };
    let model = match command {
        Served::List => return list(&client.get(&["models"], &[]).await?, global),
        Served::Show { name } => client.get(&["models", &name], &[]).await?,
        Served::Load { name } => post(&name, "load").await?,
        Served::Unload { name } => post(&name, "unload").await?,
        Served::Pin { name } => pin(&name, true).await?,
        Served::Unpin { name } => pin(&name, false).await?,
    };
    show(&model, global)
}

fn list(answer: &Value, global: &Global) -> Result<(), Failure> {
    if global.json {
        return Ok(print_json(answer)?);
    }
    let mut table = Table::new(&[
        "model", "version", "task", "state", "pinned", "memory", "in use", "waiting", "loads", "load ms", "reason",
    ]);
    for model in answer["items"].as_array().into_iter().flatten() {
        let member = |name: &str| cell(model.get(name));
        table.row([
            member("name"),
            member("version"),
            member("task"),
            member("state"),
            member("pinned"),
            mebibytes(&model["memory_bytes"]),
            member("in_use"),
            member("waiting"),
            member("loads"),
            model["load_ms"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}")),
            member("reason"),
        ]);
    }
    let memory = &answer["memory"];
    print(&format!(
        "{}\n{} of {} ({}); generators compute with llama.cpp for {}",
        table.render(),
        mebibytes(&memory["used_bytes"]),
        mebibytes(&memory["budget_bytes"]),
        cell(memory.get("reason")),
        cell(answer.get("cpu_variant"))
    ))?;
    Ok(())
}

fn show(model: &Value, global: &Global) -> Result<(), Failure> {
    if global.json {
        return Ok(print_json(model)?);
    }
    let mut text = String::new();
    for (name, value) in model.as_object().into_iter().flatten() {
        text.push_str(&format!("{name:<14} {}\n", cell(Some(value))));
    }
    print(text.trim_end())?;
    Ok(())
}

fn mebibytes(bytes: &Value) -> String {
    format!("{:.0} MiB", bytes.as_f64().unwrap_or(0.0) / f64::from(1 << 20))
}

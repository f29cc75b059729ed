//! `formwork demo`: the example forms at work, over HTTP as any client would use them.
//!
//! Starts the whole product on the embedded store, publishes every example form, submits every sample and prints each
//! step with its result, plugin, models and time. Succeeds only if every sample ended as its file says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Global;
use super::exit::Failure;
use super::output::{print, print_json};
use crate::examples::{self, Example, Sample};
use crate::serve::Server;

/// How long one sample may take: two generations on a slow machine.
const SAMPLE_SECONDS: u64 = 120;

/// How long one request waits for a submission to settle; below what proxies and the server allow.
const WAIT_SECONDS: u64 = 30;

/// Widest result shown, in characters; the whole is in `--json` and in the API.
const RESULT_WIDTH: usize = 110;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Keep serving afterwards, with the configured store and address.
    #[arg(long)]
    serve: bool,
    /// The folder of examples.
    #[arg(long, default_value = "examples")]
    examples: PathBuf,
    /// The configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let mut loaded =
        super::load_config(options.config.as_deref()).map_err(|error| Failure::Usage(error.to_string()))?;
    let examples = examples::load(&options.examples)
        .map_err(|error| Failure::NotFound(format!("{error:#}; name the folder with --examples")))?;
    let scratch = tempfile::tempdir()?;
    if !options.serve {
        loaded.config.embed(&scratch.path().join("demo.db"));
        loaded.config.http.listen.set_port(0);
    }
    crate::logging::start_for_tools(&loaded.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::start(loaded.config).await?;
        let url = format!("http://{}", server.address());
        let shown = show(&url, &examples, global).await;
        match shown {
            Ok(()) if options.serve => {
                print(&format!(
                    "\nServing on {url}  (store {}; OpenAPI at {url}/openapi.json; Ctrl-C stops)",
                    server.store_description()
                ))?;
                server.until_stopped().await.map_err(Failure::failed)
            }
            other => {
                server.stop().await;
                other
            }
        }
    })
}

/// Publishes and submits everything; an error when a sample did not end as expected.
async fn show(url: &str, examples: &[Example], global: &Global) -> Result<(), Failure> {
    let client = reqwest::Client::new();
    let (mut samples, mut unexpected) = (0, 0);
    let mut answers = Vec::new();
    for example in examples {
        let form: Value = publish(&client, url, example).await?;
        if !global.json {
            let title = form["title"]
                .as_str()
                .or_else(|| form["definition"]["title"].as_str())
                .unwrap_or_default();
            print(&format!("\n{}  version {}  {title}", example.id, form["version"]))?;
        }
        for sample in &example.samples {
            let submission = submit(&client, url, example, sample).await?;
            let differences = sample.content.expect.differences(&submission);
            samples += 1;
            unexpected += usize::from(!differences.is_empty());
            if global.json {
                answers.push(serde_json::json!({ "form": example.id, "sample": sample.name,
                    "as_expected": differences.is_empty(), "differences": differences, "submission": submission }));
            } else {
                print(&described(sample, &submission, &differences))?;
            }
        }
    }
    if global.json {
        print_json(&Value::Array(answers))?;
    } else {
        print(&format!(
            "\n{} forms, {samples} submissions, {} ended as expected",
            examples.len(),
            samples - unexpected
        ))?;
    }
    if unexpected == 0 {
        Ok(())
    } else {
        Err(Failure::failed(anyhow::anyhow!(
            "{unexpected} of {samples} samples did not end as expected"
        )))
    }
}

async fn publish(client: &reqwest::Client, url: &str, example: &Example) -> anyhow::Result<Value> {
    let response = client
        .put(format!("{url}/v1/forms/{}", example.id))
        .header("content-type", "application/json")
        .body(example.definition.clone())
        .send()
        .await?;
    let status = response.status();
    let answer: Value = response.json().await?;
    ensure!(status.is_success(), "publishing {}: {answer:#}", example.id);
    Ok(answer)
}

/// Submits a sample and waits until it has settled.
async fn submit(client: &reqwest::Client, url: &str, example: &Example, sample: &Sample) -> anyhow::Result<Value> {
    let prefer = format!("wait={WAIT_SECONDS}");
    let response = client
        .post(format!("{url}/v1/forms/{}/submissions", example.id))
        .header("prefer", &prefer)
        .json(&sample.content.data)
        .send()
        .await?;
    let status = response.status();
    let mut submission: Value = response.json().await?;
    ensure!(status.is_success(), "submitting {}: {submission:#}", sample.name);
    let id = submission["id"].as_str().context("the answer has no id")?.to_owned();
    let settled = async {
        while submission["status"] == "processing" {
            submission = client
                .get(format!("{url}/v1/submissions/{id}"))
                .header("prefer", &prefer)
                .send()
                .await?
                .json()
                .await?;
        }
        anyhow::Ok(submission)
    };
    tokio::time::timeout(Duration::from_secs(SAMPLE_SECONDS), settled)
        .await
        .with_context(|| format!("{} has not settled after {SAMPLE_SECONDS} s", sample.name))?
}

fn described(sample: &Sample, submission: &Value, differences: &[String]) -> String {
    let mut text = format!("\n  {}: {}\n", sample.name, sample.content.description);
    for step in submission["steps"].as_array().into_iter().flatten() {
        if step["plugin"].is_null() {
            text.push_str(&format!("    {:<10} {}\n", word(&step["name"]), word(&step["state"])));
            continue;
        }
        let plugin = format!("{} {}", word(&step["plugin"]["name"]), word(&step["plugin"]["version"]));
        let (cpu, wall) = (number(&step["cpu_ms"]), wall_ms(step));
        let head = format!(
            "    {:<10} {:<16} {:<10} {wall:>6} ms (cpu {cpu:>5.1})  ",
            word(&step["name"]),
            plugin,
            word(&step["state"]),
        );
        let models = step["models"].as_array().into_iter().flatten();
        let models = models.map(|model| format!("with {} {}", word(&model["name"]), word(&model["version"])));
        let indent = " ".repeat(head.chars().count());
        text.push_str(&head);
        text.push_str(
            &results(step)
                .into_iter()
                .chain(models)
                .collect::<Vec<_>>()
                .join(&format!("\n{indent}")),
        );
        text.push('\n');
    }
    text.push_str(&format!("    = {}", word(&submission["status"])));
    if differences.is_empty() {
        text.push_str(", as expected");
    }
    for difference in differences {
        text.push_str(&format!("\n    ! {difference}"));
    }
    text
}

/// A step's result in a few lines, and who of its fallback chain gave it.
fn results(step: &Value) -> Vec<String> {
    let fallback = &step["output"]["fallback"];
    let mut lines = match fallback["needs_review"] == true {
        // What was not sure enough to be the answer.
        true => {
            let suggestion = answer(&serde_json::json!({ "output": step["output"]["suggestion"] }));
            let lines = suggestion.into_iter().filter(|line| line != "null");
            lines.map(|line| format!("unsure: {line}")).collect()
        }
        false => answer(step),
    };
    lines.extend(chain(fallback));
    lines
}

/// Which rung answered, and why none above it did.
fn chain(fallback: &Value) -> Vec<String> {
    let Some(rung) = fallback["rung"].as_u64() else {
        return Vec::new();
    };
    let above = fallback["above"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    if above.is_empty() && fallback["needs_review"] != true {
        return Vec::new();
    }
    let mut lines: Vec<String> = above
        .iter()
        .map(|refused| {
            let (rung, reason) = (&refused["rung"], word(&refused["reason"]));
            cut(format!(
                "rung {rung} had no answer ({reason}): {}",
                word(&refused["message"])
            ))
        })
        .collect();
    lines.push(match fallback["needs_review"] == true {
        true => format!("rung {rung}: left to a person"),
        false => format!("rung {rung} answered"),
    });
    lines
}

/// What a step found, in a few lines.
fn answer(step: &Value) -> Vec<String> {
    let output = &step["output"];
    let each = |value: &Value, show: fn(&Value) -> String| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|item| cut(show(item)))
            .collect()
    };
    if let Some(message) = step["error"]["message"].as_str() {
        return vec![message.to_owned()];
    }
    if output["valid"] == true {
        return vec!["valid".into()];
    }
    if !output["findings"].is_null() {
        return each(&output["findings"], |finding| {
            format!(
                "{} {}: {}",
                word(&finding["pointer"]),
                word(&finding["code"]),
                word(&finding["message"])
            )
        });
    }
    if !output["label"].is_null() {
        let labels = each(&output["labels"], |label| {
            format!("{} {:.2}", word(&label["name"]), number(&label["score"]))
        });
        return if labels.is_empty() {
            vec![format!("none (best {})", best(output))]
        } else {
            labels
        };
    }
    if let Some(text) = output["response"]["text"].as_str() {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let how = match output["response"]["finish"] == "fixed" {
            true => "fixed text".to_owned(),
            false => format!("draft, {} tokens", output["response"]["tokens"]),
        };
        return vec![cut(format!("{how}: {text}"))];
    }
    if !output["fields"].is_null() {
        let mut lines = each(&output["fields"], |field| {
            let confidence = number(&field["confidence"]);
            format!(
                "{} = {}  {confidence:.2} {}",
                word(&field["name"]),
                field["value"],
                word(&field["method"])
            )
        });
        let missing = each(&output["missing"], |name| word(name).to_owned());
        if !missing.is_empty() {
            lines.push(format!("not found: {}", missing.join(", ")));
        }
        return lines;
    }
    if !output["records"].is_null() {
        return vec![format!("{} record, {} bytes", output["records"], output["bytes"])];
    }
    vec![cut(output.to_string())]
}

fn cut(text: String) -> String {
    if text.chars().count() <= RESULT_WIDTH {
        return text;
    }
    text.chars().take(RESULT_WIDTH - 1).chain(['…']).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn best(output: &Value) -> String {
    let best = &output["scores"][0];
    format!("{} {:.2}", word(&best["name"]), number(&best["score"]))
}

/// Milliseconds between a step's start and end.
fn wall_ms(step: &Value) -> i64 {
    let time = |key: &str| {
        step[key]
            .as_str()
            .and_then(crate::clock::parse_rfc3339)
            .unwrap_or_default()
            .0
    };
    time("finished_at") - time("started_at")
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

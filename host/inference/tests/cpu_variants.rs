//! Every build of llama.cpp's arithmetic that this CPU can run writes the same sense; others are refused by name.
//!
//! A process has one, so each runs in a process of its own: this test program, told to run [`write`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::process::Command;

use formwork_inference::{Error, Inference, Options};
use serde_json::{Value, json};
use support::{ask, call, generator, options};

const WANTED: &str = "FORMWORK_TEST_CPU_VARIANT";
const MARK: &str = "written: ";

fn with(cpu_variant: &str) -> Options {
    Options {
        cpu_variant: cpu_variant.to_owned(),
        ..options()
    }
}

/// Writes with the variant of the environment, twice, and prints what.
#[tokio::test]
#[ignore = "the part of the other tests that has a process of its own"]
async fn write() {
    let wanted = std::env::var(WANTED).unwrap_or_else(|_| "auto".to_owned());
    let inference = Inference::start(with(&wanted), vec![generator("smol")]).unwrap();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = ask("Name the capital of France in one short sentence.", 24);
        let mut completion = inference.generate("smol", request, &call()).await.unwrap();
        let mut chunks = Vec::new();
        while let Some(chunk) = completion.next().await.unwrap() {
            chunks.push(json!({ "text": chunk.text, "logprob": chunk.logprob }));
        }
        answers.push(chunks);
    }
    let used = inference.cpu_variant();
    let other = if used == "baseline" { "haswell" } else { "baseline" };
    let second = Inference::start(with(other), Vec::new()).map(drop).unwrap_err();
    println!(
        "\n{MARK}{}",
        json!({ "variant": used, "answers": answers, "second": second.to_string() })
    );
}

fn written_with(variant: &str) -> Value {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write", "--ignored", "--nocapture"])
        .env(WANTED, variant)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(MARK));
    let line = line.unwrap_or_else(|| panic!("{variant}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(line).unwrap()
}

fn text(answer: &Value) -> String {
    let chunks = answer.as_array().unwrap().iter();
    chunks.map(|chunk| chunk["text"].as_str().unwrap()).collect()
}

#[test]
fn every_variant_that_the_cpu_can_run_writes_what_the_baseline_writes() {
    let baseline = written_with("baseline");
    assert_eq!(baseline["variant"], "baseline");
    let runs = formwork_ggml_variants::all()
        .iter()
        .filter(|variant| variant.missing().is_empty());
    for variant in runs {
        let written = written_with(variant.name());
        assert_eq!(written["variant"], variant.name());
        let answers = &written["answers"];
        assert_eq!(answers[0], answers[1], "{}", variant.name());
        assert!(text(&answers[0]).contains("Paris"), "{written}");
        // Rounding differs: the first words and how sure the model is of them do not.
        for (ours, theirs) in answers[0]
            .as_array()
            .unwrap()
            .iter()
            .zip(baseline["answers"][0].as_array().unwrap())
            .take(4)
        {
            assert_eq!(ours["text"], theirs["text"], "{}", variant.name());
            let gap = ours["logprob"].as_f64().unwrap() - theirs["logprob"].as_f64().unwrap();
            assert!(gap.abs() < 0.1, "{}: {ours} {theirs}", variant.name());
        }
        assert!(
            written["second"]
                .as_str()
                .unwrap()
                .contains("in this process, not baseline"),
            "{written}"
        );
    }
}

#[test]
fn without_a_name_the_best_variant_runs() {
    let best = formwork_ggml_variants::all()
        .iter()
        .find(|variant| variant.missing().is_empty());
    assert_eq!(
        written_with("auto")["variant"],
        best.map_or("baseline", |variant| variant.name())
    );
}

#[test]
fn a_name_that_does_not_exist_or_that_the_cpu_cannot_run_is_refused_at_start() {
    let beyond = formwork_ggml_variants::all()
        .iter()
        .find(|variant| !variant.missing().is_empty());
    let mut refused = vec![("pentium", "none of that name")];
    refused.extend(beyond.map(|variant| (variant.name(), variant.missing()[0])));
    for (name, why) in refused {
        let error = Inference::start(with(name), Vec::new()).map(drop).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(name) && text.contains(why) && text.contains("baseline"),
            "{text}"
        );
    }
}

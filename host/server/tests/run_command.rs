//! `formwork run` as a person types it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn formwork(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_formwork"))
        .args(arguments)
        .output()
        .unwrap()
}

fn form(folder: &Path) -> String {
    batched_form(folder, 1)
}

fn batched_form(folder: &Path, batch: u32) -> String {
    let form = json!({
        "schema": { "type": "object", "required": ["number"], "properties": { "number": { "type": "integer", "minimum": 10 } } },
        "pipeline": [
            { "name": "check", "plugin": "validate", "batch": batch },
            { "name": "archive", "plugin": "export", "batch": batch, "settings": { "format": "csv", "columns": [{ "name": "number", "pointer": "/number" }] } }
        ]
    });
    let path = folder.join("form.json");
    std::fs::write(&path, form.to_string()).unwrap();
    path.display().to_string()
}

fn lines(path: &str) -> Vec<Value> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn ten_thousand_lines_keep_their_order_and_bad_ones_stop_nothing() {
    // 1: a sandbox for each line.
    for batch in [1, 16] {
        ten_thousand_lines(batch);
    }
}

fn ten_thousand_lines(batch: u32) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut input = String::new();
    for number in 0..10_000 {
        match number {
            5_000 => input.push_str("{ not json\n"),
            7_000 => input.push_str(&"[".repeat(10_000)),
            _ => writeln!(input, "{{\"number\":{number}}}").unwrap(),
        }
        if number == 7_000 {
            input.push('\n');
        }
    }
    std::fs::write(at("in.jsonl"), input).unwrap();
    let form = batched_form(folder.path(), batch);
    let output = formwork(&[
        "run",
        "--form",
        &form,
        "--input",
        &at("in.jsonl"),
        "--output",
        &at("out.jsonl"),
        "--exports",
        &at("exports"),
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("10000 lines: 9988 done, 10 rejected, 2 failed"), "{said}");
    assert!(said.contains("line 5001") && said.contains("line 7001"), "{said}");
    let results = lines(&at("out.jsonl"));
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["line"], index + 1);
    }
    assert_eq!(results.len(), 10_000);
    assert_eq!(results[3]["status"], "rejected");
    assert_eq!(results[3]["steps"][0]["output"]["findings"][0]["pointer"], "/number");
    assert_eq!(results[5_000]["status"], "failed");
    assert_eq!(results[20]["steps"][1]["plugin"]["name"], "export");
    let exported = std::fs::read_to_string(folder.path().join("exports/archive.csv")).unwrap();
    let mut exported = exported.lines();
    assert_eq!(exported.next(), Some("number"));
    assert_eq!(exported.next(), Some("10"));
    assert_eq!(exported.count(), 9_987);
}

#[test]
fn what_is_wrong_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("in.jsonl"), "{}\n").unwrap();
    let good = form(folder.path());
    let broken = json!({ "schema": { "type": "strang" }, "pipeline": [{ "name": "check", "plugin": "validate" }] });
    std::fs::write(at("broken.json"), broken.to_string()).unwrap();
    let cases: [(&[&str], i32, &str); 4] = [
        (
            &["--form", "nowhere.json", "--input", &at("in.jsonl")],
            3,
            "no such file",
        ),
        (
            &["--form", &at("broken.json"), "--input", &at("in.jsonl")],
            2,
            "/schema/type",
        ),
        (&["--form", &good, "--input", &at("nothing.jsonl")], 3, "no such file"),
        (
            &["--form", &good, "--input", &at("in.jsonl"), "--step", "nothing"],
            3,
            "it has check, archive",
        ),
    ];
    for (arguments, code, expected) in cases {
        let output = formwork(&[&["run", "--output", &at("out.jsonl")], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn one_step_alone_runs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("in.jsonl"), "{\"number\":1}\n\n{\"number\":12}\n").unwrap();
    let form = form(folder.path());
    let output = formwork(&[
        "run",
        "--form",
        &form,
        "--input",
        &at("in.jsonl"),
        "--output",
        &at("out.jsonl"),
        "--step",
        "archive",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results = lines(&at("out.jsonl"));
    assert_eq!(results.len(), 2);
    assert_eq!(results[0]["steps"].as_array().unwrap().len(), 1);
    assert_eq!(results[1]["line"], 3);
}

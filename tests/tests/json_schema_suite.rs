//! The official JSON Schema test suite through the real plugin in the sandbox: every required test must pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formwork_engine::{CallContext, Plugin, Setup};
use formwork_tests::{form, install, submission, test_data};
use serde_json::{Value, json};

/// Where the suite's references expect its remote documents.
const REMOTES: &str = "http://localhost:1234/";

/// Optional format tests that do not pass, and why.
const KNOWN_FORMAT_FAILURES: [&str; 0] = [];

struct Draft {
    folder: &'static str,
    schema: &'static str,
    required: usize,
}

const DRAFTS: [Draft; 4] = [
    Draft {
        folder: "draft2020-12",
        schema: "https://json-schema.org/draft/2020-12/schema",
        required: 1_299,
    },
    Draft {
        folder: "draft2019-09",
        schema: "https://json-schema.org/draft/2019-09/schema",
        required: 1_259,
    },
    Draft {
        folder: "draft7",
        schema: "http://json-schema.org/draft-07/schema#",
        required: 927,
    },
    Draft {
        folder: "draft4",
        schema: "http://json-schema.org/draft-04/schema#",
        required: 618,
    },
];

/// The outcome of a folder of test files.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    walls: Vec<Duration>,
}

#[tokio::test]
async fn required_tests_of_all_drafts_pass() {
    let Some(suite) = test_data("json-schema-test-suite") else {
        return;
    };
    let plugin = install("validate").await;
    let mut failed = Vec::new();
    for draft in &DRAFTS {
        let folder = suite.join("tests").join(draft.folder);
        // The required suites assert that formats are annotations.
        let mut tally = run(&plugin, &suite, draft, &files(&folder, false), "annotate").await;
        tally.walls.sort();
        let p50 = tally.walls.get(tally.walls.len() / 2).copied().unwrap_or_default();
        println!(
            "{}: {} passed, {} failed, p50 {p50:.0?} a call",
            draft.folder,
            tally.passed,
            tally.failed.len()
        );
        assert_eq!(
            tally.passed + tally.failed.len(),
            draft.required,
            "{} lost tests",
            draft.folder
        );
        failed.extend(tally.failed);
    }
    assert!(
        failed.is_empty(),
        "{} required tests failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[tokio::test]
async fn optional_format_tests_pass_but_for_the_known_ones() {
    let Some(suite) = test_data("json-schema-test-suite") else {
        return;
    };
    let plugin = install("validate").await;
    let mut failed = BTreeSet::new();
    for draft in &DRAFTS {
        let folder = suite.join("tests").join(draft.folder).join("optional/format");
        let tally = run(&plugin, &suite, draft, &files(&folder, true), "assert").await;
        println!(
            "{} optional formats: {} passed, {} failed",
            draft.folder,
            tally.passed,
            tally.failed.len()
        );
        failed.extend(tally.failed);
    }
    let known = KNOWN_FORMAT_FAILURES.map(str::to_owned).into();
    let unknown: Vec<&String> = failed.difference(&known).collect();
    assert!(unknown.is_empty(), "optional format tests failed: {unknown:#?}");
    let cured: Vec<&String> = known.difference(&failed).collect();
    assert!(cured.is_empty(), "these pass now, take them off the list: {cured:#?}");
}

async fn run(plugin: &Plugin, suite: &Path, draft: &Draft, files: &[PathBuf], formats: &str) -> Tally {
    let remotes = remotes(&suite.join("remotes"), draft.folder);
    let settings = json!({ "formats": formats }).to_string();
    let mut tally = Tally::default();
    for file in files {
        let groups = read(file);
        for group in groups.as_array().expect("a file holds groups") {
            let schema = with_draft(group["schema"].clone(), draft.schema);
            let mut input = form(&schema);
            if input.schema.contains(REMOTES) {
                input.schemas = remotes
                    .iter()
                    .map(|(uri, schema)| (uri.clone(), schema.clone()))
                    .collect();
            }
            let setup = Setup::new(input, settings.as_str());
            plugin
                .snapshot(&setup)
                .await
                .expect("every schema of the suite can be prepared");
            for test in group["tests"].as_array().expect("a group holds tests") {
                let context = CallContext {
                    owner: "test".into(),
                    ..CallContext::default()
                };
                let report = plugin.work(&setup, &submission(&test["data"]), context).await;
                tally.walls.push(report.usage.wall);
                let name = format!(
                    "{}/{}: {} / {}",
                    draft.folder,
                    file.file_stem().unwrap_or_default().display(),
                    group["description"].as_str().unwrap_or_default(),
                    test["description"].as_str().unwrap_or_default()
                );
                match report.result {
                    Ok(output) if output.json["valid"] == test["valid"] => tally.passed += 1,
                    Ok(_) => tally.failed.push(name),
                    Err(error) => tally.failed.push(format!("{name}: {error}")),
                }
            }
        }
    }
    tally
}

/// Older drafts' tests do not say which draft they are of; the folder does.
fn with_draft(mut schema: Value, draft: &str) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.entry("$schema").or_insert_with(|| draft.into());
    }
    schema
}

/// The suite's remote documents that a draft's tests may reach, by URI.
fn remotes(folder: &Path, draft: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in all_files(folder) {
        let path = file
            .strip_prefix(folder)
            .expect("it is below")
            .to_str()
            .expect("names are ASCII")
            .replace('\\', "/");
        let of_another = path.starts_with("draft") || path.starts_with("v1");
        if !of_another || path.starts_with(&format!("{draft}/")) {
            found.insert(
                format!("{REMOTES}{path}"),
                fs::read_to_string(&file).expect("a remote can be read"),
            );
        }
    }
    found
}

fn files(folder: &Path, deep: bool) -> Vec<PathBuf> {
    let mut files = if deep { all_files(folder) } else { entries(folder) };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    entries(folder)
        .into_iter()
        .flat_map(|path| if path.is_dir() { all_files(&path) } else { vec![path] })
        .collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("an entry can be read").path())
        .collect()
}

fn read(file: &Path) -> Value {
    let text = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

//! The example forms: reading them, and telling whether a submission ended as its sample says.
//!
//! Used by `formwork demo` and by the tests, so that what a newcomer sees is what is tested.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value};

/// An example form with its samples.
#[derive(Debug)]
pub struct Example {
    /// The form's identifier: its folder's name.
    pub id: String,
    /// The form definition, as `PUT /v1/forms/{form}` takes it.
    pub definition: String,
    /// Its samples in the order of their file names.
    pub samples: Vec<Sample>,
}

/// A submission and how it must end.
#[derive(Debug)]
pub struct Sample {
    /// Its file's name without the extension.
    pub name: String,
    /// What the file says.
    pub content: SampleFile,
}

/// The content of a sample's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleFile {
    /// For people.
    pub description: String,
    /// The submission's data.
    pub data: Value,
    /// How it must end.
    pub expect: Expected,
}

/// How a sample must end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The submission's status.
    pub status: String,
    /// Findings that must be among those of the validator.
    #[serde(default)]
    pub findings: Vec<ExpectedFinding>,
    /// What steps must have found, by their names.
    #[serde(default)]
    pub steps: std::collections::BTreeMap<String, ExpectedStep>,
}

/// A finding that must be there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFinding {
    /// Its place.
    pub pointer: String,
    /// Its code.
    pub code: String,
}

/// What a step must have found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedStep {
    /// The best label, or `none`.
    #[serde(default)]
    pub label: Option<String>,
    /// Labels that must be among those found.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Values of extracted fields.
    #[serde(default)]
    pub fields: Map<String, Value>,
    /// Which rung of the fallback chain must have answered; 0 is the step's own plugin.
    #[serde(default)]
    pub rung: Option<u64>,
    /// Whether it must have been left to a person.
    #[serde(default)]
    pub needs_review: Option<bool>,
    /// A drafted response must be there; this text, or any if it is empty.
    #[serde(default)]
    pub response: Option<String>,
}

/// Reads every example below `folder`/forms.
///
/// # Errors
/// Files that cannot be read or have another shape, with their names.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Example>> {
    let forms = folder.join("forms");
    let mut examples = Vec::new();
    for path in sorted(&forms)? {
        let file = path.join("form.json");
        if !file.is_file() {
            continue;
        }
        let mut samples = Vec::new();
        for path in sorted(&path.join("samples"))? {
            let text = read(&path)?;
            let content = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
            samples.push(Sample {
                name: stem(&path),
                content,
            });
        }
        examples.push(Example {
            id: stem(&path),
            definition: read(&file)?,
            samples,
        });
    }
    anyhow::ensure!(!examples.is_empty(), "no example forms in {}", forms.display());
    Ok(examples)
}

impl Expected {
    /// How an answer of `GET /v1/submissions/{id}` differs from what must be; empty when it does not.
    #[must_use]
    pub fn differences(&self, submission: &Value) -> Vec<String> {
        let mut differences = Vec::new();
        let status = submission["status"].as_str().unwrap_or("none");
        if status != self.status {
            differences.push(format!("status is {status}, expected {}", self.status));
        }
        for expected in &self.findings {
            let found = steps(submission)
                .flat_map(|step| items(&step["output"]["findings"]))
                .any(|finding| {
                    finding["pointer"] == expected.pointer.as_str() && finding["code"] == expected.code.as_str()
                });
            if !found {
                differences.push(format!("no finding `{}` at `{}`", expected.code, expected.pointer));
            }
        }
        for (name, expected) in &self.steps {
            match steps(submission).find(|step| step["name"] == name.as_str()) {
                Some(step) => expected.compare(name, &step["output"], &mut differences),
                None => differences.push(format!("step {name} did not run")),
            }
        }
        differences
    }
}

impl ExpectedStep {
    fn compare(&self, step: &str, output: &Value, differences: &mut Vec<String>) {
        if let Some(label) = &self.label
            && output["label"] != label.as_str()
        {
            differences.push(format!("{step}: label is {}, expected {label}", output["label"]));
        }
        for label in &self.labels {
            if !items(&output["labels"]).any(|found| found["name"] == label.as_str()) {
                differences.push(format!("{step}: label {label} is not among {}", output["labels"]));
            }
        }
        let fallback = &output["fallback"];
        if let Some(rung) = self.rung
            && fallback["rung"] != rung
        {
            differences.push(format!("{step}: rung {} answered, expected {rung}", fallback["rung"]));
        }
        if let Some(needed) = self.needs_review
            && fallback["needs_review"] != needed
        {
            differences.push(format!(
                "{step}: needs_review is {}, expected {needed}",
                fallback["needs_review"]
            ));
        }
        if let Some(expected) = &self.response {
            let text = output["response"]["text"].as_str().unwrap_or_default();
            if text.is_empty() || (!expected.is_empty() && text != expected) {
                differences.push(format!("{step}: the response is {text:?}, expected {expected:?}"));
            }
        }
        for (name, value) in &self.fields {
            let found: Vec<&Value> = items(&output["fields"])
                .filter(|field| field["name"] == name.as_str())
                .map(|field| &field["value"])
                .collect();
            if !found.contains(&value) {
                differences.push(format!("{step}: {name} is {found:?}, expected {value}"));
            }
        }
    }
}

fn steps(submission: &Value) -> impl Iterator<Item = &Value> {
    items(&submission["steps"])
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn sorted(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

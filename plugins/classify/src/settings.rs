//! The step's settings, checked.

use std::collections::HashSet;

use formwork_plugin::{Error, Problem, is_pointer, parse_settings};
use serde::Deserialize;

use crate::limits;

/// What the answer calls "no label applies"; a label of this name could not be told from it.
pub(crate) const NONE: &str = "none";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabel {
    name: String,
    description: Option<String>,
    #[serde(default)]
    examples: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    #[serde(default)]
    fields: Vec<String>,
    labels: Vec<RawLabel>,
    #[serde(default)]
    multiple: bool,
    #[serde(default = "default_threshold")]
    threshold: f32,
    #[serde(default = "default_model")]
    model: String,
}

fn default_threshold() -> f32 {
    0.5
}

fn default_model() -> String {
    "encoder".to_owned()
}

/// A label as it is compared with a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) name: String,
    /// The description; without one, the name in words.
    pub(crate) description: String,
    pub(crate) examples: Vec<String>,
}

/// What the form asks for.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) fields: Vec<String>,
    pub(crate) labels: Vec<Label>,
    pub(crate) multiple: bool,
    pub(crate) threshold: f32,
    pub(crate) model: String,
}

impl Settings {
    /// Parses and checks; answers all problems at once.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        let raw: RawSettings = parse_settings(settings)?;
        let mut problems = Problems(Vec::new());
        problems.fields(&raw.fields);
        problems.labels(&raw.labels);
        if !(raw.threshold > 0.0 && raw.threshold < 1.0) {
            problems.add(
                "/threshold".into(),
                "range",
                "must be above 0 and below 1: it is a probability".into(),
            );
        }
        if raw.model.trim().is_empty() {
            problems.add(
                "/model".into(),
                "empty",
                "must name an encoder that the host has, for example `encoder`".into(),
            );
        }
        if !problems.0.is_empty() {
            return Err(Error::InvalidSettings(problems.0));
        }
        let labels = raw.labels.into_iter().map(|label| Label {
            description: label.description.unwrap_or_else(|| in_words(&label.name)),
            name: label.name,
            examples: label.examples,
        });
        Ok(Self {
            fields: raw.fields,
            labels: labels.collect(),
            multiple: raw.multiple,
            threshold: raw.threshold,
            model: raw.model,
        })
    }
}

/// `account_access` is one unknown word to an encoder, `account access` are two known ones.
fn in_words(name: &str) -> String {
    name.replace(['_', '-', '.', '/'], " ")
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, pointer: String, code: &str, message: String) {
        self.0.push(Problem::new(pointer, code, message));
    }

    fn fields(&mut self, fields: &[String]) {
        if fields.len() > limits::MAX_FIELDS {
            self.add(
                "/fields".into(),
                "too-many",
                format!("at most {} pointers", limits::MAX_FIELDS),
            );
        }
        let mut seen = HashSet::new();
        for (index, pointer) in fields.iter().enumerate() {
            if !is_pointer(pointer) {
                let hint = "must be a JSON Pointer into the submission's data, for example `/message`";
                self.add(format!("/fields/{index}"), "pointer", hint.into());
            } else if !seen.insert(pointer) {
                self.add(
                    format!("/fields/{index}"),
                    "duplicate",
                    format!("`{pointer}` is listed twice"),
                );
            }
        }
    }

    fn labels(&mut self, labels: &[RawLabel]) {
        if labels.is_empty() {
            self.add("/labels".into(), "empty", "must describe at least one label".into());
        }
        if labels.len() > limits::MAX_LABELS {
            self.add(
                "/labels".into(),
                "too-many",
                format!("at most {} labels", limits::MAX_LABELS),
            );
        }
        let examples: usize = labels.iter().map(|label| label.examples.len()).sum();
        if examples > limits::MAX_ALL_EXAMPLES {
            let limit = limits::MAX_ALL_EXAMPLES;
            self.add(
                "/labels".into(),
                "too-many",
                format!("at most {limit} examples together, these are {examples}"),
            );
        }
        let mut names = HashSet::new();
        for (index, label) in labels.iter().enumerate() {
            self.label(&format!("/labels/{index}"), label);
            if !names.insert(label.name.trim()) {
                let message = format!("another label is called `{}`", label.name.trim());
                self.add(format!("/labels/{index}/name"), "duplicate", message);
            }
        }
    }

    fn label(&mut self, at: &str, label: &RawLabel) {
        let name = label.name.trim();
        if name.is_empty() {
            self.add(format!("{at}/name"), "empty", "must not be empty".into());
        } else if name == NONE {
            let message = "`none` is what the answer says when no label applies; choose another name";
            self.add(format!("{at}/name"), "reserved", message.into());
        } else if name.chars().count() > limits::MAX_NAME {
            self.add(
                format!("{at}/name"),
                "too-long",
                format!("at most {} characters", limits::MAX_NAME),
            );
        }
        if let Some(description) = &label.description {
            self.text(format!("{at}/description"), description);
        }
        if label.examples.len() > limits::MAX_EXAMPLES {
            self.add(
                format!("{at}/examples"),
                "too-many",
                format!("at most {} examples", limits::MAX_EXAMPLES),
            );
        }
        let mut seen = HashSet::new();
        for (index, example) in label.examples.iter().enumerate() {
            let place = format!("{at}/examples/{index}");
            if !seen.insert(example.trim().to_lowercase()) {
                self.add(place.clone(), "duplicate", "this example is listed twice".into());
            }
            self.text(place, example);
        }
    }

    fn text(&mut self, at: String, text: &str) {
        if text.trim().is_empty() {
            self.add(at, "empty", "must not be empty".into());
        } else if text.chars().count() > limits::MAX_LABEL_TEXT {
            self.add(at, "too-long", format!("at most {} characters", limits::MAX_LABEL_TEXT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(settings: &str) -> Vec<String> {
        match Settings::parse(settings) {
            Err(Error::InvalidSettings(problems)) => problems.into_iter().map(|problem| problem.pointer).collect(),
            other => panic!("{settings}: {other:?}"),
        }
    }

    #[test]
    fn a_name_stands_in_for_a_missing_description() {
        let settings = Settings::parse(r#"{"labels":[{"name":"account_access"}]}"#).unwrap();
        assert_eq!(settings.labels[0].description, "account access");
        assert_eq!(
            (settings.threshold, settings.multiple, settings.model.as_str()),
            (0.5, false, "encoder")
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        assert_eq!(pointers(r#"{"labels":[]}"#), ["/labels"]);
        assert_eq!(
            pointers(r#"{"labels":[{"name":"a"},{"name":"a"}]}"#),
            ["/labels/1/name"]
        );
        assert_eq!(pointers(r#"{"labels":[{"name":"none"}]}"#), ["/labels/0/name"]);
        assert_eq!(
            pointers(
                r#"{"labels":[{"name":" ","description":"","examples":["x","X",""]}],"fields":["m","/a","/a","/~2"],"threshold":1}"#
            ),
            [
                "/fields/0",
                "/fields/2",
                "/fields/3",
                "/labels/0/name",
                "/labels/0/description",
                "/labels/0/examples/1",
                "/labels/0/examples/2",
                "/threshold"
            ]
        );
        assert_eq!(
            pointers(r#"{"labels":[{"name":"a","colour":1}]}"#),
            ["/labels/0/colour"]
        );
        assert_eq!(pointers(r#"{"labels":[{"name":5}]}"#), ["/labels/0/name"]);
        let many: Vec<String> = (0..65).map(|index| format!(r#"{{"name":"l{index}"}}"#)).collect();
        assert_eq!(pointers(&format!(r#"{{"labels":[{}]}}"#, many.join(","))), ["/labels"]);
    }
}

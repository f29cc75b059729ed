//! The document that `PUT /v1/forms/{form}` takes.

use std::collections::{BTreeMap, HashSet};

use formwork_tasks::{OnReject, Pool};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{DefinitionError, PluginReference, Problem};

/// Most submissions of one batch. 256: beyond some tens the sandbox's start is no longer what costs.
pub(crate) const MAX_BATCH: u32 = 256;

/// A form: what is asked, and what happens with the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormDefinition {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of a submission's data; its `$schema` chooses the draft, 2020-12 without one.
    pub schema: Value,
    /// How a client may show the form; kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ui: Option<Value>,
    /// Further schemas by absolute URI, for `$ref`. Nothing is fetched from a network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, Value>,
    /// The steps.
    pub pipeline: Vec<StepDefinition>,
}

/// One step of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDefinition {
    /// Unique in the form: letters, digits, `-` and `_`.
    pub name: String,
    /// `NAME`, `NAME@VERSION` or `NAME@ALIAS`.
    pub plugin: String,
    /// What the plugin's `prepare` gets.
    #[serde(default = "no_settings")]
    pub settings: Value,
    /// The steps it waits for; absent: the step before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// What happens when it finds the submission invalid.
    #[serde(default)]
    pub on_reject: OnReject,
    /// At most this many submissions are worked on in one sandbox, one after another, where many are at hand. It gives
    /// up the promise that no submission's data is in memory another one sees, and is for validators and exporters.
    /// Absent: each submission has a sandbox of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// Its pool; absent: what fits the plugin's kind and grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
}

fn no_settings() -> Value {
    Value::Object(serde_json::Map::new())
}

impl FormDefinition {
    /// Parses a definition and checks what needs no plugin.
    ///
    /// # Errors
    /// Every problem found, with its JSON Pointer: syntax, unknown keys, wrong types, names, references, registered URIs.
    pub fn parse(text: &[u8]) -> Result<Self, DefinitionError> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let definition: Self = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            DefinitionError::one(Problem::new(
                pointer(error.path()),
                "definition",
                error.inner().to_string(),
            ))
        })?;
        deserializer
            .end()
            .map_err(|error| DefinitionError::one(Problem::new("", "definition", error.to_string())))?;
        definition.check()?;
        Ok(definition)
    }

    /// One line of JSON with the members in order.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// `sha256:…` of [`Self::to_json`]: equal definitions make no new version.
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(Sha256::digest(self.to_json())))
    }

    fn check(&self) -> Result<(), DefinitionError> {
        let mut problems = Vec::new();
        if !self.schema.is_object() && !self.schema.is_boolean() {
            problems.push(Problem::new(
                "/schema",
                "schema",
                "must be a JSON Schema: an object or a boolean",
            ));
        }
        if self.pipeline.is_empty() {
            problems.push(Problem::new("/pipeline", "pipeline", "must have at least one step"));
        }
        for uri in self.schemas.keys() {
            let absolute = uri.split_once(':').is_some_and(|(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
                    && !rest.is_empty()
            });
            if !absolute {
                problems.push(Problem::new(
                    format!("/schemas/{}", escape(uri)),
                    "schema-uri",
                    "must be an absolute URI, for example `https://example.org/address.json`",
                ));
            }
        }
        let mut names = HashSet::new();
        for (index, step) in self.pipeline.iter().enumerate() {
            if !names.insert(&step.name) {
                let message = format!("the step name `{}` is used twice", step.name);
                problems.push(Problem::new(format!("/pipeline/{index}/name"), "step-name", message));
            }
            if step.batch.is_some_and(|batch| !(1..=MAX_BATCH).contains(&batch)) {
                problems.push(Problem::new(
                    format!("/pipeline/{index}/batch"),
                    "batch",
                    format!("must be 1 to {MAX_BATCH} submissions"),
                ));
            }
            if let Err(error) = step.plugin.parse::<PluginReference>() {
                problems.push(Problem::new(
                    format!("/pipeline/{index}/plugin"),
                    "plugin-reference",
                    error,
                ));
            }
        }
        DefinitionError::unless_empty(problems)
    }
}

/// serde's path as a JSON Pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// A member's name as a JSON Pointer token.
pub(crate) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

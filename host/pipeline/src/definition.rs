//! The document that `PUT /v1/forms/{form}` takes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use formwork_tasks::{OnReject, Pool, RetryRules, StepMaxima, TimeLimits};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::fallback::{self, Fallback, settings_over};
use crate::{DefinitionError, PluginReference, Problem, step_rules};

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
    /// Below this, from 0 to 1, an answer does not stand: the next rung of `fallback` is asked, and without one the step
    /// fails. For classifiers and extractors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f64>,
    /// Most milliseconds the step's own plugin may take before the next rung is asked; absent: half of the step's time when
    /// there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When its failed runs are tried again; where it says nothing, its pool's policy holds.
    #[serde(default, skip_serializing_if = "RetryRules::is_empty")]
    pub retry: RetryRules,
    /// How long a run of it may take; where it says nothing, its pool's limits hold.
    #[serde(default, skip_serializing_if = "TimeLimits::is_empty")]
    pub limits: TimeLimits,
    /// Who answers when the step's own plugin cannot, in order. For classifiers and extractors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Fallback>,
}

/// One of those that may answer a step: its own plugin, or an alternative.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rung {
    pub(crate) plugin: String,
    pub(crate) settings: Value,
    pub(crate) min_confidence: Option<f64>,
    pub(crate) timeout: Option<Duration>,
    /// Its place in the definition.
    pub(crate) pointer: String,
    /// The members of its settings that are the step's, and where those stand.
    inherited: Option<(String, Vec<String>)>,
}

impl Rung {
    /// The place in the definition of something in its settings.
    pub(crate) fn settings_pointer(&self, pointer: &str) -> String {
        let first = pointer.split('/').nth(1).unwrap_or_default();
        match &self.inherited {
            Some((step, members)) if members.iter().any(|member| escape(member) == first) => {
                format!("{step}/settings{pointer}")
            }
            _ => format!("{}/settings{pointer}", self.pointer),
        }
    }
}

impl StepDefinition {
    /// Whether what answers is more than a plain call of its plugin.
    pub(crate) fn has_chain(&self) -> bool {
        !self.fallback.is_empty() || self.min_confidence.is_some() || self.timeout_ms.is_some()
    }

    /// The step's own plugin, then its alternatives.
    pub(crate) fn rungs(&self, index: usize) -> Vec<Rung> {
        let name = |reference: &str| reference.parse::<PluginReference>().ok().map(|plugin| plugin.name);
        let timeout = |ms: Option<u64>| ms.map(Duration::from_millis);
        let mut rungs = vec![Rung {
            plugin: self.plugin.clone(),
            settings: self.settings.clone(),
            min_confidence: self.min_confidence,
            timeout: timeout(self.timeout_ms),
            pointer: format!("/pipeline/{index}"),
            inherited: None,
        }];
        for (at, alternative) in self.fallback.iter().enumerate() {
            let Some(alternative) = alternative.alternative() else {
                continue;
            };
            let plugin = alternative.plugin.as_ref().unwrap_or(&self.plugin);
            let same = name(plugin) == name(&self.plugin);
            let own = alternative.settings.as_ref();
            let inherited = self.settings.as_object().filter(|_| same).map(|step| {
                let members = step.keys().filter(|key| own.is_none_or(|own| own.get(key).is_none()));
                (format!("/pipeline/{index}"), members.cloned().collect())
            });
            rungs.push(Rung {
                plugin: plugin.clone(),
                inherited,
                settings: settings_over(&self.settings, same, own),
                min_confidence: alternative.min_confidence.or(self.min_confidence),
                timeout: timeout(alternative.timeout_ms),
                pointer: format!("/pipeline/{index}/fallback/{at}"),
            });
        }
        rungs
    }
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
            check_chain(index, step, &mut problems);
            problems.extend(step_rules::senseless(index, step));
        }
        DefinitionError::unless_empty(problems)
    }

    /// Checks that no step asks for more than an operator allows.
    ///
    /// # Errors
    /// Every place that does.
    pub fn check_within(&self, most: &StepMaxima) -> Result<(), DefinitionError> {
        let steps = self.pipeline.iter().enumerate();
        let problems = steps.flat_map(|(index, step)| step_rules::beyond(index, step, most));
        DefinitionError::unless_empty(problems.collect())
    }
}

/// Checks the plugins' references and what says when which of them answers.
fn check_chain(index: usize, step: &StepDefinition, problems: &mut Vec<Problem>) {
    let here = format!("/pipeline/{index}");
    if step.fallback.len() > fallback::MAX_RUNGS {
        let message = format!("at most {} alternatives", fallback::MAX_RUNGS);
        problems.push(Problem::new(format!("{here}/fallback"), "fallback", message));
    }
    let mut check = |at: &str, plugin: Option<&str>, min_confidence: Option<f64>, timeout_ms: Option<u64>| {
        if let Some(Err(error)) = plugin.map(str::parse::<PluginReference>) {
            problems.push(Problem::new(format!("{at}/plugin"), "plugin-reference", error));
        }
        if min_confidence.is_some_and(|confidence| !(0.0..=1.0).contains(&confidence)) {
            let message = "must be 0 to 1: it is a probability";
            problems.push(Problem::new(format!("{at}/min_confidence"), "min-confidence", message));
        }
        if timeout_ms == Some(0) {
            let message = "must be at least 1 millisecond";
            problems.push(Problem::new(format!("{at}/timeout_ms"), "timeout", message));
        }
    };
    check(&here, Some(&step.plugin), step.min_confidence, step.timeout_ms);
    for (at, rung) in step.fallback.iter().enumerate() {
        let place = format!("{here}/fallback/{at}");
        if let Some(rung) = rung.alternative() {
            check(&place, rung.plugin.as_deref(), rung.min_confidence, rung.timeout_ms);
        }
    }
    for (at, rung) in step.fallback.iter().enumerate() {
        let place = format!("{here}/fallback/{at}");
        match rung {
            Fallback::NeedsReview if at + 1 < step.fallback.len() => problems.push(Problem::new(
                place,
                "fallback",
                "must be the last: it always answers, so nothing below it is ever asked",
            )),
            Fallback::Alternative(rung) if rung.on.as_ref().is_some_and(Vec::is_empty) => {
                let message = "must name at least one reason; leave it out for every reason";
                problems.push(Problem::new(format!("{place}/on"), "fallback", message));
            }
            _ => {}
        }
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

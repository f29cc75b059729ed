//! A step's fallback chain: who answers when the step's own plugin cannot.
//!
//! **Problem.** A generator may be missing, evicted, busy, slow or unsure, and a form must not stand still for it.
//! **Promise.** A step may name alternatives, tried in order; the output says which rung answered and why none above it
//! did; a rung has a part of the step's time, so a slow one leaves time for those below. **Cost.** What moves on to another
//! rung is not retried first; a form that wants the retry leaves that reason out of `on`. **Rejected.** Alternatives as steps
//! of their own: each would be queued, and steps after them would have to ask which of them has the answer.

use std::fmt;
use std::time::{Duration, Instant};

use formwork_engine::{CallError, Kind, Limit, ModelId, Output, Report};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::PluginIdentity;

/// Most alternatives of a step: each is prepared and snapshotted with every form version.
pub(crate) const MAX_RUNGS: usize = 8;
/// Kept back of the step's time, so that an answer of the last rung is recorded before the step is stopped: this part of
/// it, and at most [`MAX_RESERVE`].
const RESERVE_PART: u32 = 20;
const MAX_RESERVE: Duration = Duration::from_secs(1);

/// The last rung that asks no plugin.
const NEEDS_REVIEW: &str = "needs-review";

/// Why a rung has no answer that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// A model or a plugin is missing, evicted, loading or broken.
    Unavailable,
    /// A model's queue is full.
    Busy,
    /// The rung's time, or the plugin's own limit, is over.
    Deadline,
    /// The answer breaks the contract or a size limit.
    InvalidOutput,
    /// The answer is less sure than `min_confidence`.
    LowConfidence,
    /// The plugin crashed, hit another limit or answered an error.
    Error,
}

impl Reason {
    /// As definitions and outputs write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Deadline => "deadline",
            Self::InvalidOutput => "invalid-output",
            Self::LowConfidence => "low-confidence",
            Self::Error => "error",
        }
    }

    /// What kind of failure a call's error is; nothing for a cancellation, which ends the whole chain.
    fn of(error: &CallError, inference_error: Option<&str>) -> Option<Self> {
        Some(match error {
            CallError::Cancelled => return None,
            CallError::DeadlineExceeded => Self::Deadline,
            CallError::Limit(exceeded) => match exceeded.limit {
                Limit::WallMs => Self::Deadline,
                Limit::OutputBytes => Self::InvalidOutput,
                _ => Self::Error,
            },
            CallError::BadAnswer(_) => Self::InvalidOutput,
            CallError::Host(_) => Self::Unavailable,
            // What inference refused lies behind these two, whatever words the plugin found for it.
            CallError::Plugin(plugin) if matches!(plugin.case, "unavailable" | "internal") => match inference_error {
                Some("busy") => Self::Busy,
                Some("deadline-exceeded") => Self::Deadline,
                Some("invalid-argument" | "too-large" | "wrong-task") => Self::Error,
                Some(_) => Self::Unavailable,
                None if plugin.case == "unavailable" => Self::Unavailable,
                None => Self::Error,
            },
            _ => Self::Error,
        })
    }
}

/// One rung below a step's own plugin.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fallback {
    /// Another plugin or other settings.
    Alternative(Alternative),
    /// `"needs-review"`: the step is done with an output that says that a person must look.
    NeedsReview,
}

/// What is tried when the rung above has no answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// `NAME`, `NAME@VERSION` or `NAME@ALIAS`; absent: the step's plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Its settings. For the step's own plugin they stand over the step's settings, member by member; for another plugin
    /// they are all it gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// The reasons of the rung above that lead here; absent: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<Reason>>,
    /// Below this its answer does not stand; absent: the step's `min_confidence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f64>,
    /// Most milliseconds it may take; absent: half of what is left of the step's time, all of it for the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Fallback {
    pub(crate) fn alternative(&self) -> Option<&Alternative> {
        match self {
            Self::Alternative(alternative) => Some(alternative),
            Self::NeedsReview => None,
        }
    }

    /// Whether a reason leads here.
    pub(crate) fn takes(&self, reason: Reason) -> bool {
        let on = self.alternative().and_then(|alternative| alternative.on.as_ref());
        on.is_none_or(|on| on.contains(&reason))
    }
}

impl Serialize for Fallback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Alternative(alternative) => alternative.serialize(serializer),
            Self::NeedsReview => serializer.serialize_str(NEEDS_REVIEW),
        }
    }
}

impl<'de> Deserialize<'de> for Fallback {
    // By hand, because serde's untagged enums forget where in the document they are.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rung;
        impl<'de> Visitor<'de> for Rung {
            type Value = Fallback;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "an alternative such as {{\"settings\": {{…}}}}, or \"{NEEDS_REVIEW}\""
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Fallback, E> {
                if text == NEEDS_REVIEW {
                    Ok(Fallback::NeedsReview)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(text), &self))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Fallback, A::Error> {
                Alternative::deserialize(MapAccessDeserializer::new(map)).map(Fallback::Alternative)
            }
        }
        deserializer.deserialize_any(Rung)
    }
}

/// An alternative's settings, over those of the step when the plugin is the same.
pub(crate) fn settings_over(step: &Value, same_plugin: bool, own: Option<&Value>) -> Value {
    match (own, same_plugin) {
        (None, true) => step.clone(),
        (None, false) => json!({}),
        (Some(own), false) => own.clone(),
        (Some(own), true) => match (step, own) {
            (Value::Object(step), Value::Object(own)) => {
                let mut merged = step.clone();
                merged.extend(own.clone());
                Value::Object(merged)
            }
            _ => own.clone(),
        },
    }
}

/// How sure an answer is: a classifier's best label; an extractor's own `confidence`, else its least sure field. No label,
/// no field: 0.
pub(crate) fn confidence(kind: Kind, output: &Output) -> f64 {
    let scores = |list: &str, member: &str| -> Vec<f64> {
        let list = output.json[list].as_array().into_iter().flatten();
        list.filter_map(|item| item[member].as_f64()).collect()
    };
    match kind {
        Kind::Classifier => scores("labels", "score").into_iter().fold(0.0, f64::max),
        // One that answers no fields, such as a draft, may say by itself how sure it is.
        Kind::Extractor if output.json["confidence"].is_number() => output.json["confidence"].as_f64().unwrap_or(0.0),
        Kind::Extractor => scores("fields", "confidence")
            .into_iter()
            .reduce(f64::min)
            .unwrap_or(0.0),
        _ => 1.0,
    }
}

/// When a rung must have its answer.
pub(crate) fn deadline(until: Option<Instant>, timeout: Option<Duration>, last: bool) -> Option<Instant> {
    let now = Instant::now();
    let share = until.map(|until| {
        let left = until.saturating_duration_since(now);
        now + match (timeout, last) {
            (Some(timeout), _) => timeout.min(left),
            (None, true) => left,
            (None, false) => left / 2,
        }
    });
    share.or_else(|| timeout.map(|timeout| now + timeout))
}

/// When the chain must be through, given when the step is stopped.
pub(crate) fn until(deadline: Option<Instant>) -> Option<Instant> {
    deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        deadline
            .checked_sub((left / RESERVE_PART).min(MAX_RESERVE))
            .unwrap_or(deadline)
    })
}

/// A rung that was asked and has no answer that stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refused {
    /// 0 is the step's own plugin, 1 its first alternative.
    pub rung: usize,
    /// The plugin that was asked, unless none fits the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginIdentity>,
    /// The models that it used.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "names")]
    pub models: Vec<ModelId>,
    /// What led to the next rung.
    pub reason: Reason,
    /// The stable code of the error, or `low-confidence`.
    pub code: &'static str,
    /// The stable code of what inference refused the plugin, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference: Option<&'static str>,
    /// For people.
    pub message: String,
    /// How sure the answer was, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// What the attempt took.
    pub wall_ms: f64,
    #[serde(skip)]
    pub(crate) error: CallError,
}

fn names<S: Serializer>(models: &[ModelId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(
        models
            .iter()
            .map(|model| json!({ "name": model.name, "version": model.version })),
    )
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rung {
            0 => f.write_str("the step's own plugin")?,
            rung => write!(f, "fallback {}", rung - 1)?,
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a rung's report does not stand; nothing when it does, or when nothing may follow.
pub(crate) fn refusal(
    rung: usize,
    plugin: Option<PluginIdentity>,
    kind: Option<Kind>,
    min_confidence: Option<f64>,
    report: &Report<Output>,
) -> Option<Refused> {
    let (reason, error, confidence) = match &report.result {
        Ok(output) => {
            let confidence = confidence(kind?, output);
            let wanted = min_confidence.filter(|wanted| confidence < *wanted)?;
            let error = CallError::LowConfidence(format!(
                "the answer's confidence of {confidence} is below the {wanted} that the form asks for"
            ));
            (Reason::LowConfidence, error, Some(confidence))
        }
        Err(error) => (Reason::of(error, report.inference_error)?, error.clone(), None),
    };
    Some(Refused {
        rung,
        plugin,
        models: report.models.clone(),
        reason,
        code: error.code(),
        inference: report.inference_error,
        message: error.to_string(),
        error,
        confidence,
        wall_ms: (report.usage.wall.as_secs_f64() * 1e6).round() / 1e3,
    })
}

/// Writes into an answer which rung gave it.
pub(crate) fn answered(output: &mut Output, rung: usize, kind: Kind, above: &[Refused]) {
    let confidence = confidence(kind, output);
    if let Value::Object(members) = &mut output.json {
        let said = json!({ "rung": rung, "needs_review": false, "confidence": confidence, "above": above });
        members.insert("fallback".into(), said);
    }
}

/// The output of the rung `needs-review`. An answer that was too unsure is shown, and not in the place of an answer.
pub(crate) fn needs_review(rung: usize, above: &[Refused], suggestion: Option<Value>) -> Output {
    let mut json = json!({ "fallback": { "rung": rung, "needs_review": true, "above": above } });
    if let Some(suggestion) = suggestion {
        json["suggestion"] = suggestion;
    }
    Output {
        json,
        rejected: false,
        export: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formwork_engine::PluginError;

    fn plugin(case: &'static str) -> CallError {
        CallError::Plugin(PluginError {
            case,
            message: String::new(),
            problems: Vec::new(),
        })
    }

    #[test]
    fn reasons_follow_from_what_lies_behind_the_plugins_words() {
        let cases = [
            (plugin("unavailable"), None, Some(Reason::Unavailable)),
            (plugin("unavailable"), Some("busy"), Some(Reason::Busy)),
            (plugin("unavailable"), Some("deadline-exceeded"), Some(Reason::Deadline)),
            (plugin("internal"), Some("native"), Some(Reason::Unavailable)),
            (plugin("internal"), Some("too-large"), Some(Reason::Error)),
            (plugin("internal"), None, Some(Reason::Error)),
            (plugin("invalid-input"), Some("busy"), Some(Reason::Error)),
            (CallError::DeadlineExceeded, None, Some(Reason::Deadline)),
            (CallError::BadAnswer("span".into()), None, Some(Reason::InvalidOutput)),
            (CallError::Trap("unreachable".into()), None, Some(Reason::Error)),
            (CallError::Cancelled, Some("cancelled"), None),
        ];
        for (error, inference, wanted) in cases {
            assert_eq!(Reason::of(&error, inference), wanted, "{error} {inference:?}");
        }
    }

    #[test]
    fn a_rung_leaves_time_for_those_below_it() {
        let now = Instant::now();
        let until = Some(now + Duration::from_secs(100));
        let seconds = |at: Option<Instant>| at.map(|at| (at - now).as_secs_f64().round());
        assert_eq!(seconds(deadline(until, None, false)), Some(50.0));
        assert_eq!(seconds(deadline(until, None, true)), Some(100.0));
        assert_eq!(seconds(deadline(until, Some(Duration::from_secs(3)), false)), Some(3.0));
        assert_eq!(
            seconds(deadline(until, Some(Duration::from_secs(300)), true)),
            Some(100.0)
        );
        assert_eq!(seconds(deadline(None, Some(Duration::from_secs(3)), true)), Some(3.0));
        assert_eq!(deadline(None, None, false), None);
        assert!(super::until(until) < until);
    }

    #[test]
    fn settings_of_the_same_plugin_stand_over_the_steps() {
        let step = json!({ "entities": { "a": 1 }, "model": "large" });
        assert_eq!(
            settings_over(&step, true, Some(&json!({ "model": null }))),
            json!({ "entities": { "a": 1 }, "model": null })
        );
        assert_eq!(settings_over(&step, true, None), step);
        assert_eq!(settings_over(&step, false, Some(&json!({ "x": 1 }))), json!({ "x": 1 }));
        assert_eq!(settings_over(&step, false, None), json!({}));
    }
}

//! The manifest's keys, their meaning and what is checked of each.

use std::collections::BTreeMap;
use std::fmt;

use semver::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::error::shown;

/// The version of the WIT contract this crate knows.
pub const CONTRACT: &str = "1.0.0";

/// Largest manifest in bytes. Self-test vectors carry whole forms; more than this is not a self-test but a data set.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;

/// Most self-test vectors in one manifest: they run at every install.
pub const MAX_SELF_TESTS: usize = 64;

/// Longest plugin name.
const MAX_NAME: usize = 64;

/// Which of the four worlds a plugin implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Decides whether a submission is acceptable.
    Validator,
    /// Gives a submission labels.
    Classifier,
    /// Finds values in a submission's texts.
    Extractor,
    /// Writes submissions in a format for other programs.
    Exporter,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Validator => "validator",
            Self::Classifier => "classifier",
            Self::Extractor => "extractor",
            Self::Exporter => "exporter",
        })
    }
}

/// A capability that a plugin asks for and an operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// Sentence embeddings by an encoder.
    Embeddings,
    /// Text generation by an instruct model.
    Generation,
    /// Running any ONNX graph.
    Tensors,
    /// Writing to a sink the host opens (exporters).
    Sink,
}

impl Grant {
    /// Every grant there is.
    pub const ALL: [Self; 4] = [Self::Embeddings, Self::Generation, Self::Tensors, Self::Sink];
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embeddings => "embeddings",
            Self::Generation => "generation",
            Self::Tensors => "tensors",
            Self::Sink => "sink",
        })
    }
}

/// What a plugin asks for per call; the operator's configuration caps it. Absent: the host's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRequest {
    /// Guest CPU time, milliseconds. Time spent in host inference is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Time from call to answer, milliseconds; waiting for a turn on the pool's CPU is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// All linear memories and tables together, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The answer plus what is written to a sink, KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_kib: Option<u64>,
    /// Calls of host functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_calls: Option<u64>,
    /// Bytes given to host functions, KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_call_kib: Option<u64>,
    /// Live resource handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<u64>,
    /// Bytes of log lines, KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_kib: Option<u64>,
}

/// The form of a self-test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTestForm {
    /// JSON Schema of the data.
    pub schema: Value,
    /// Further schemas by URI.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: BTreeMap<String, Value>,
}

/// The typed error a self-test expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedError {
    /// The case of the WIT variant `error`, for example `invalid-settings`.
    pub case: String,
    /// Pointer of the first problem, when it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
}

/// What a self-test expects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// The output contains this: objects may have more keys, arrays have the same length, the rest is equal.
    Output(Value),
    /// The call answers this error.
    Error(ExpectedError),
}

/// One vector that must pass before the plugin can serve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// A name for the report.
    pub name: String,
    /// The form given to `prepare`.
    pub form: SelfTestForm,
    /// The settings given to `prepare`.
    #[serde(default)]
    pub settings: Value,
    /// The submission's data given to the work function.
    pub data: Value,
    /// What must come out.
    pub expect: Expectation,
}

/// What a plugin says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Lower-case letters, digits and hyphens, starting with a letter; at most 64.
    pub name: String,
    /// Semantic version. The same name and version never name two digests.
    pub version: Version,
    /// Which world it implements.
    pub kind: Kind,
    /// One sentence for a person.
    pub description: String,
    /// SPDX expression.
    pub licence: String,
    /// Version of `formwork:plugin` it was built against.
    pub contract: Version,
    /// What it asks for, each with a reason the operator reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grants: BTreeMap<Grant, String>,
    /// What it asks for per call.
    #[serde(default)]
    pub limits: LimitRequest,
    /// JSON Schema of its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_schema: Option<Value>,
    /// Vectors that must pass at install.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub self_tests: Vec<SelfTest>,
}

impl Manifest {
    /// Parses the JSON that a component carries and checks it.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Syntax`] with the key path, [`Error::Invalid`].
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        if json.len() > MAX_MANIFEST_BYTES {
            return Err(Error::TooLarge {
                got: json.len(),
                limit: MAX_MANIFEST_BYTES,
            });
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let manifest: Self = with_path(&mut deserializer)?;
        deserializer.end().map_err(|error| Error::Syntax {
            at: ".".into(),
            message: error.to_string(),
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key.
    pub fn check(&self) -> Result<(), Error> {
        let starts_with_letter = self.name.starts_with(|c: char| c.is_ascii_lowercase());
        let plain = self
            .name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !starts_with_letter || !plain || self.name.len() > MAX_NAME {
            return Err(Error::invalid(
                "name",
                format!(
                    "must be 1 to {MAX_NAME} lower-case letters, digits or hyphens and start with a letter, not `{}`",
                    self.name.escape_debug()
                ),
            ));
        }
        if self.description.trim().is_empty() {
            return Err(Error::invalid(
                "description",
                "must say in a sentence what the plugin does",
            ));
        }
        if self.licence.trim().is_empty() {
            return Err(Error::invalid(
                "licence",
                "must be an SPDX expression, for example `Apache-2.0`",
            ));
        }
        let host = Version::parse(CONTRACT).map_err(|error| Error::invalid("contract", error.to_string()))?;
        if self.contract.major != host.major || self.contract > host || !self.contract.pre.is_empty() {
            return Err(Error::invalid(
                "contract",
                format!(
                    "version {} of formwork:plugin is not served by this host, which knows {}.0.0 to {CONTRACT}",
                    self.contract, host.major
                ),
            ));
        }
        for (grant, reason) in &self.grants {
            if reason.trim().is_empty() {
                return Err(Error::invalid(
                    format!("grants.{grant}"),
                    "must say why the plugin needs it",
                ));
            }
        }
        let limits = [
            ("cpu_ms", self.limits.cpu_ms),
            ("wall_ms", self.limits.wall_ms),
            ("memory_mib", self.limits.memory_mib),
            ("output_kib", self.limits.output_kib),
            ("host_calls", self.limits.host_calls),
            ("host_call_kib", self.limits.host_call_kib),
            ("handles", self.limits.handles),
            ("log_kib", self.limits.log_kib),
        ];
        if let Some((name, _)) = limits.iter().find(|(_, value)| *value == Some(0)) {
            return Err(Error::invalid(format!("limits.{name}"), "must be at least 1"));
        }
        if self
            .settings_schema
            .as_ref()
            .is_some_and(|schema| !schema.is_object() && !schema.is_boolean())
        {
            return Err(Error::invalid(
                "settings_schema",
                "must be a JSON Schema: an object or a boolean",
            ));
        }
        if self.self_tests.len() > MAX_SELF_TESTS {
            return Err(Error::invalid(
                "self_tests",
                format!("at most {MAX_SELF_TESTS} vectors"),
            ));
        }
        Ok(())
    }
}

fn with_path<'de, D, T>(deserializer: D) -> Result<T, Error>
where
    D: serde::Deserializer<'de>,
    D::Error: fmt::Display,
    T: DeserializeOwned,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| Error::Syntax {
        at: shown(error.path().to_string()),
        message: shown(error.inner().to_string()),
    })
}

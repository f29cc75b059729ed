//! What a model is called, where it lies, what it does. A model is a file with a sha256, whatever
//! brought it; declarations are read straight from configuration (`[[models]]`).

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits;

/// A file and the digest it must have.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Where the file lies.
    pub path: PathBuf,
    /// sha256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// One declared model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The name calls use; unique.
    pub name: String,
    /// The version, recorded as provenance.
    pub version: String,
    /// What it does, and how.
    pub task: ModelTask,
    /// The weights: ONNX for an encoder or graph, GGUF for a generator.
    pub file: FileSpec,
    /// When it is loaded. Default: on demand.
    #[serde(default)]
    pub load: Load,
    /// Whether it stays in memory when others need room. Default false.
    #[serde(default)]
    pub pin: bool,
    /// Bytes it takes when loaded, if you know better than what is reckoned from its file. 0, the default: reckoned.
    #[serde(default)]
    pub memory_bytes: u64,
    /// It is unloaded when nobody called it for so many seconds. 0, the default: it stays until others need room.
    #[serde(default)]
    pub idle_unload_seconds: u64,
}

/// When a model is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// By the first call that needs it.
    #[default]
    Demand,
    /// Before the service starts, which fails if this does.
    Start,
}

/// What a model does. In configuration: `task = { kind = "encoder", … }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ModelTask {
    /// Turns texts into vectors (`embed`); its graph can also be `run`. Takes `input_ids`,
    /// `attention_mask` and perhaps `token_type_ids`, gives `last_hidden_state`.
    Encoder {
        /// The tokenizer, in the `tokenizer.json` format.
        tokenizer: FileSpec,
        /// Tokens of a text that are read; the rest is cut. Default 256, what all-MiniLM-L6-v2 is
        /// used with.
        #[serde(default = "default_encoder_tokens")]
        max_tokens: usize,
    },
    /// Writes text (`generate`).
    Generator {
        /// Tokens that prompt and output may have together. Default 2,048.
        #[serde(default = "default_context_tokens")]
        context_tokens: u32,
        /// Evaluated prompts kept for their common prefix, one per form that uses the model at the
        /// same time is ideal. Default 2. Each costs `context_tokens` of cache memory
        /// (47 MB for SmolLM2-135M at 2,048).
        #[serde(default = "default_prefix_slots")]
        prefix_slots: u32,
    },
    /// Any ONNX graph (`run`).
    Graph {},
}

fn default_encoder_tokens() -> usize {
    256
}

fn default_context_tokens() -> u32 {
    2_048
}

fn default_prefix_slots() -> u32 {
    2
}

impl ModelTask {
    /// `encoder`, `generator` or `graph`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Encoder { .. } => "encoder",
            Self::Generator { .. } => "generator",
            Self::Graph {} => "graph",
        }
    }
}

impl ModelSpec {
    /// A model that is loaded on demand and may be unloaded.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>, task: ModelTask, file: FileSpec) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            task,
            file,
            load: Load::default(),
            pin: false,
            memory_bytes: 0,
            idle_unload_seconds: 0,
        }
    }

    /// The same, loaded before the service starts.
    #[must_use]
    pub fn at_start(self) -> Self {
        Self {
            load: Load::Start,
            ..self
        }
    }

    /// Checks what can be checked without opening a file.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let name = &self.name;
        let named = |what: &str, text: &str| -> Result<(), Error> {
            let fine = !text.is_empty()
                && text.len() <= 128
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b));
            if fine {
                Ok(())
            } else {
                Err(Error::InvalidArgument(format!(
                    "model {name:?}: {what} must be 1 to 128 of a-z A-Z 0-9 - _ . +, got {text:?}"
                )))
            }
        };
        named("name", name)?;
        named("version", &self.version)?;
        let bounded = |what: &str, got: u64, low: u64, high: u64| -> Result<(), Error> {
            if (low..=high).contains(&got) {
                Ok(())
            } else {
                Err(Error::InvalidArgument(format!(
                    "model {name}: {what} must be {low} to {high}, got {got}"
                )))
            }
        };
        match &self.task {
            ModelTask::Encoder { max_tokens, .. } => {
                bounded("max_tokens", *max_tokens as u64, 8, limits::MAX_ENCODER_TOKENS as u64)
            }
            ModelTask::Generator {
                context_tokens,
                prefix_slots,
            } => {
                bounded(
                    "context_tokens",
                    u64::from(*context_tokens),
                    u64::from(limits::MIN_CONTEXT_TOKENS),
                    u64::from(limits::MAX_CONTEXT_TOKENS),
                )?;
                bounded(
                    "prefix_slots",
                    u64::from(*prefix_slots),
                    1,
                    u64::from(limits::MAX_PREFIX_SLOTS),
                )
            }
            ModelTask::Graph {} => Ok(()),
        }
    }

    pub(crate) fn id(&self) -> ModelId {
        ModelId {
            name: self.name.clone(),
            version: self.version.clone(),
            sha256: self.file.sha256.to_ascii_lowercase(),
        }
    }
}

/// Which model answered; goes into a result's provenance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct ModelId {
    /// The declared name.
    pub name: String,
    /// The declared version.
    pub version: String,
    /// sha256 of the weights, lowercase hex, verified at load.
    pub sha256: String,
}

/// Whether a model answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ModelState {
    /// Being loaded, or waiting for memory to be loaded into; calls wait.
    Loading,
    /// Loaded, warmed up and answering.
    Ready,
    /// Not in memory; the next call loads it.
    Evicted,
    /// The last load failed, or its worker died; calls hear why until it is time to try again.
    Failed,
    /// The service was shut down.
    Stopped,
}

impl ModelState {
    /// The state in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Evicted => "evicted",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// A model as it is now.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// Which model.
    pub id: ModelId,
    /// `encoder`, `generator` or `graph`.
    pub task: &'static str,
    /// Whether it answers.
    pub state: ModelState,
    /// Why, if it does not.
    pub reason: Option<String>,
    /// When it is loaded.
    pub load: Load,
    /// Whether it stays in memory when others need room.
    pub pinned: bool,
    /// Bytes of the weights' file; 0 while it was never read.
    pub file_bytes: u64,
    /// Bytes it is reckoned with against the budget while it is loaded: weights, contexts and what runs need.
    pub memory_bytes: u64,
    /// Bytes by which the process grew when it was last loaded: a measurement that sees everything else that grew or shrank
    /// at the same time, and not what was free in the process before.
    pub measured_bytes: u64,
    /// Time the last load took, from opening the file to the end of the warm-up, checksum included.
    pub load_time: Option<Duration>,
    /// When the last call ended.
    pub last_used: Option<SystemTime>,
    /// Calls that it is working on or has queued.
    pub in_use: usize,
    /// Calls that wait until it is loaded.
    pub waiting: usize,
    /// How often it was loaded.
    pub loads: u64,
    /// How often it was unloaded.
    pub evictions: u64,
}

/// The memory of all models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Bytes that models may take.
    pub budget_bytes: u64,
    /// Where the budget comes from.
    pub reason: &'static str,
    /// Bytes that loaded models are reckoned with.
    pub used_bytes: u64,
    /// The most that ever was.
    pub peak_bytes: u64,
}

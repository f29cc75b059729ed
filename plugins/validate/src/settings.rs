//! The step's settings.

use formwork_plugin::{Error, parse_settings};
use serde::Deserialize;

/// Findings reported by default: more than anybody corrects in one go.
const DEFAULT_MAX_FINDINGS: usize = 100;

/// Most findings a form may ask for: each takes about 300 bytes of the answer.
const LARGEST_MAX_FINDINGS: usize = 1_000;

/// What `format` means.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Formats {
    #[default]
    Assert,
    Annotate,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    formats: Formats,
    #[serde(default = "default_max_findings")]
    max_findings: usize,
}

fn default_max_findings() -> usize {
    DEFAULT_MAX_FINDINGS
}

impl Settings {
    /// Parses and checks.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        let settings: Self = parse_settings(settings)?;
        if !(1..=LARGEST_MAX_FINDINGS).contains(&settings.max_findings) {
            let message = format!("must be 1 to {LARGEST_MAX_FINDINGS}, got {}", settings.max_findings);
            return Err(Error::settings("/max_findings", "range", message));
        }
        Ok(settings)
    }

    pub(crate) fn asserts_formats(&self) -> bool {
        self.formats == Formats::Assert
    }

    pub(crate) fn max_findings(&self) -> usize {
        self.max_findings
    }
}

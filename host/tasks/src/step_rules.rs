//! What a step of a form says about its own retries and time, and how far an operator lets it go.

use crate::{InvalidRetryPolicy, RetryPolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a step says about its retries; where it says nothing, its pool's policy holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRules {
    /// Runs in all, the first one included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The longest first wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ms: Option<u64>,
    /// The longest wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_ms: Option<u64>,
    /// For errors of one code, by that code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, ErrorRule>,
}

/// What a step says about errors of one code; where it says nothing, what it says about every error holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// Whether trying again may help; absent: what the error says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    /// Runs in all, those that ended with other errors included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The longest first wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ms: Option<u64>,
    /// The longest wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap_ms: Option<u64>,
}

/// The parts of a [`RetryPolicy`] that somebody sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryWords {
    /// Runs in all.
    pub max_attempts: Option<u32>,
    /// The longest first wait, in milliseconds.
    pub base_ms: Option<u64>,
    /// The longest wait, in milliseconds.
    pub cap_ms: Option<u64>,
}

impl ErrorRule {
    /// How often and how late.
    #[must_use]
    pub const fn words(&self) -> RetryWords {
        RetryWords {
            max_attempts: self.max_attempts,
            base_ms: self.base_ms,
            cap_ms: self.cap_ms,
        }
    }
}

impl RetryWords {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These words, and others where they say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            max_attempts: self.max_attempts.or(other.max_attempts),
            base_ms: self.base_ms.or(other.base_ms),
            cap_ms: self.cap_ms.or(other.cap_ms),
        }
    }
}

/// How much time a step gives a run of itself, in milliseconds; where it says nothing, its pool's limits hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeLimits {
    /// From then on inference is refused, so that an answer without it can still be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_ms: Option<u64>,
    /// At this time the run is stopped; it has failed with `deadline-exceeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_ms: Option<u64>,
}

impl TimeLimits {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The most that a step may ask for. A form that asks for more is refused; one that was published when more was allowed gets
/// this much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StepMaxima {
    /// Runs of one task. 100: a service that is away for a day, asked every quarter of an hour.
    pub max_attempts: u32,
    /// The longest wait between two runs, in milliseconds. 86,400,000: a day.
    pub cap_ms: u64,
    /// The hard limit of a run, in milliseconds. 3,600,000: an hour holds a permit long enough.
    pub hard_ms: u64,
}

impl Default for StepMaxima {
    fn default() -> Self {
        Self {
            max_attempts: 100,
            cap_ms: 86_400_000,
            hard_ms: 3_600_000,
        }
    }
}

impl RetryRules {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How often and how late, for every error.
    #[must_use]
    pub const fn words(&self) -> RetryWords {
        RetryWords {
            max_attempts: self.max_attempts,
            base_ms: self.base_ms,
            cap_ms: self.cap_ms,
        }
    }

    /// The policy after an error with this code, which says of itself whether it is `curable`; nothing: it is not tried again.
    #[must_use]
    pub fn after(&self, code: &str, curable: bool, pool: &RetryPolicy, most: &StepMaxima) -> Option<RetryPolicy> {
        let rule = self.errors.get(code);
        if !rule.and_then(|rule| rule.retry).unwrap_or(curable) {
            return None;
        }
        let words = rule.map_or(self.words(), |rule| rule.words().or(self.words()));
        Some(overlaid(words, pool, most).unwrap_or(*pool))
    }
}

fn overlaid(words: RetryWords, pool: &RetryPolicy, most: &StepMaxima) -> Result<RetryPolicy, InvalidRetryPolicy> {
    if words.is_empty() {
        return Ok(*pool);
    }
    // A pool's own policy is the operator's and may go beyond what steps may ask for.
    let attempts = words
        .max_attempts
        .map_or(pool.max_attempts(), |attempts| attempts.min(most.max_attempts).max(1));
    let base = words.base_ms.map_or(pool.base_ms(), |base| base.min(most.cap_ms));
    let cap = words.cap_ms.map_or(pool.cap_ms(), |cap| cap.min(most.cap_ms));
    // What is set goes before what is not.
    match words.cap_ms {
        Some(_) => RetryPolicy::try_new(attempts, base.min(cap), cap),
        None => RetryPolicy::try_new(attempts, base, cap.max(base)),
    }
}

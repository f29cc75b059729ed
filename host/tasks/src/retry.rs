//! When to try again: exponential backoff with full jitter.
//!
//! Full jitter (a uniform pick between nothing and the whole backoff) spreads a burst of failures best; a
//! fixed share of jitter keeps a retry storm together. The random number is an argument, so that the
//! policy stays pure.

use crate::{DeadReason, Disposition, Millis};
use serde::{Deserialize, Serialize};

/// How often and how late a failed task is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Unchecked")]
pub struct RetryPolicy {
    max_attempts: u32,
    base_ms: u64,
    cap_ms: u64,
}

/// A retry policy that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRetryPolicy {
    /// Nothing would ever run.
    #[error("max_attempts must be at least 1")]
    NoAttempts,
    /// The longest wait is shorter than the first.
    #[error("cap_ms ({cap_ms}) must not be less than base_ms ({base_ms})")]
    CapBelowBase {
        /// The first wait, in milliseconds.
        base_ms: u64,
        /// The longest wait, in milliseconds.
        cap_ms: u64,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    max_attempts: u32,
    base_ms: u64,
    cap_ms: u64,
}

impl TryFrom<Unchecked> for RetryPolicy {
    type Error = InvalidRetryPolicy;

    fn try_from(unchecked: Unchecked) -> Result<Self, InvalidRetryPolicy> {
        Self::try_new(unchecked.max_attempts, unchecked.base_ms, unchecked.cap_ms)
    }
}

impl Default for RetryPolicy {
    /// 5 attempts, first wait up to 1 s, longest up to 5 minutes: a model that is being reloaded or a full
    /// disk that is being cleared is waited for, a person is not kept waiting for hours.
    fn default() -> Self {
        Self {
            max_attempts: 5,
            base_ms: 1_000,
            cap_ms: 300_000,
        }
    }
}

impl RetryPolicy {
    /// A checked policy.
    ///
    /// # Errors
    /// [`InvalidRetryPolicy`] when there is no attempt, or the cap is below the base.
    pub const fn try_new(max_attempts: u32, base_ms: u64, cap_ms: u64) -> Result<Self, InvalidRetryPolicy> {
        if max_attempts == 0 {
            return Err(InvalidRetryPolicy::NoAttempts);
        }
        if cap_ms < base_ms {
            return Err(InvalidRetryPolicy::CapBelowBase { base_ms, cap_ms });
        }
        Ok(Self {
            max_attempts,
            base_ms,
            cap_ms,
        })
    }

    /// Runs a task gets in all.
    #[must_use]
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// The longest first wait, in milliseconds.
    #[must_use]
    pub const fn base_ms(&self) -> u64 {
        self.base_ms
    }

    /// The longest wait, in milliseconds.
    #[must_use]
    pub const fn cap_ms(&self) -> u64 {
        self.cap_ms
    }

    /// The longest wait after the given attempt (counted from 1), in milliseconds.
    #[must_use]
    pub fn ceiling_ms(&self, attempt: u32) -> u64 {
        let doublings = attempt.saturating_sub(1).min(63);
        self.base_ms.saturating_mul(1_u64 << doublings).min(self.cap_ms)
    }

    /// What becomes of a task whose attempt number `attempt` (counted from 1) failed with a curable error.
    /// `random` is uniform over all `u64`; `at_least_ms` is what the failing side asked for (`Retry-After`), or 0.
    #[must_use]
    pub fn after_failure(&self, attempt: u32, now: Millis, random: u64, at_least_ms: u64) -> Disposition {
        if attempt >= self.max_attempts {
            return Disposition::Dead(DeadReason::Exhausted);
        }
        let ceiling = u128::from(self.ceiling_ms(attempt)) + 1;
        let wait = (u128::from(random) * ceiling) >> 64;
        let wait = u64::try_from(wait).unwrap_or(self.cap_ms);
        Disposition::RetryAt(now.plus(wait.max(at_least_ms)))
    }
}

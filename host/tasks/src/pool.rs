//! The pools tasks wait in, and the order inside one pool.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A CPU-limited set of workers and the queue they serve. The names are part of the public surface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Validation: short, somebody is waiting for the answer.
    High,
    /// Rules and exports.
    #[default]
    Default,
    /// Native inference, where batches pay.
    Batched,
}

impl Pool {
    /// Every pool, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::High, Self::Default, Self::Batched];

    /// The name used in APIs, configuration, metrics and storage.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Default => "default",
            Self::Batched => "batched",
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A pool name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown pool: {0:?}, expected one of high, default, batched")]
pub struct UnknownPool(pub String);

impl FromStr for Pool {
    type Err = UnknownPool;

    fn from_str(text: &str) -> Result<Self, UnknownPool> {
        Self::ALL
            .into_iter()
            .find(|pool| pool.as_str() == text)
            .ok_or_else(|| UnknownPool(text.to_owned()))
    }
}

/// The order inside one pool, 0 (last) to 9 (first); 5 when nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// Served after everything else.
    pub const LOWEST: Self = Self(0);
    /// Served before everything else.
    pub const HIGHEST: Self = Self(9);

    /// A priority from its number.
    ///
    /// # Errors
    /// [`UnknownPriority`] when the number is above 9.
    pub const fn try_new(level: u8) -> Result<Self, UnknownPriority> {
        if level > Self::HIGHEST.0 {
            Err(UnknownPriority(level))
        } else {
            Ok(Self(level))
        }
    }

    /// The number, 0 to 9.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// A priority outside 0 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown priority: {0}, expected 0 to 9")]
pub struct UnknownPriority(pub u8);

impl TryFrom<u8> for Priority {
    type Error = UnknownPriority;

    fn try_from(level: u8) -> Result<Self, UnknownPriority> {
        Self::try_new(level)
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

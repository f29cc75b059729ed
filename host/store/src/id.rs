//! Identifiers that cannot be mixed up.
//!
//! A task is one step of one submission, so its identifier is exactly that pair: two transactions that both
//! want to make the same task meet at the same key, and no second unique index is needed.

use formwork_tasks::Millis;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};
use ulid::Ulid;

/// Makes the ids of this process.
static IDS: Mutex<ulid::Generator> = Mutex::new(ulid::Generator::new());

/// A submission's identifier: a ULID, so that they sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmissionId(pub Ulid);

/// A task's identifier: its submission and the index of its step, written `01J…-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The submission.
    pub submission: SubmissionId,
    /// The step's index in the form version's pipeline.
    pub step: u16,
}

/// A text that is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} id: {text:?}, expected {expected}")]
pub struct InvalidId {
    kind: &'static str,
    expected: &'static str,
    text: String,
}

impl SubmissionId {
    /// A new one, after all that this process made before: those of one millisecond too sort in the order they came, and
    /// a database that keeps them sorted only ever adds to its end.
    #[must_use]
    pub fn generate() -> Self {
        let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
        Self(ids.generate().unwrap_or_else(ulid::Overflow::commit_overflow_increment))
    }

    /// When it was made, by the clock of who made it.
    #[must_use]
    pub fn made_at(self) -> Millis {
        Millis(i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for SubmissionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for SubmissionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            kind: "submission",
            expected: "a ULID of 26 characters",
            text: text.chars().take(64).collect(),
        };
        let id = Self(Ulid::from_string(text).map_err(|_| invalid())?);
        // One submission has one spelling: lower case and look-alikes decode too, but must not pass as equal.
        if id.to_string() == text { Ok(id) } else { Err(invalid()) }
    }
}

impl TaskId {
    /// The task of the given step of the given submission.
    #[must_use]
    pub const fn new(submission: SubmissionId, step: u16) -> Self {
        Self { submission, step }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.submission, self.step)
    }
}

impl FromStr for TaskId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId {
            kind: "task",
            expected: "a submission id, '-' and the step's index",
            text: text.chars().take(64).collect(),
        };
        let (submission, step) = text.split_once('-').ok_or_else(invalid)?;
        let id = Self {
            submission: submission.parse().map_err(|_| invalid())?,
            step: step.parse().map_err(|_| invalid())?,
        };
        if id.to_string() == text { Ok(id) } else { Err(invalid()) }
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(SubmissionId, TaskId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_millisecond_sort_in_the_order_they_were_made() {
        let ids: Vec<_> = (0..10_000).map(|_| SubmissionId::generate()).collect();
        assert!(ids.is_sorted_by(|before, after| before < after));
        assert!(ids.windows(2).any(|pair| pair[0].made_at() == pair[1].made_at()));
    }
}

//! How to open a [`ClusterStore`](super::ClusterStore).

use crate::{Error, Result, limits};
use std::fmt;

/// A connection string that keeps its password to itself: `Debug` and `Display` show it masked.
#[derive(Clone, PartialEq, Eq)]
pub struct Uri(String);

impl Uri {
    /// A connection string, such as `mongodb://user:password@host/?replicaSet=rs0` or `rediss://:password@host`.
    #[must_use]
    pub fn new(uri: impl Into<String>) -> Self {
        Self(uri.into())
    }

    /// The string with its password.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uri {
    /// Everything between the scheme and the host is masked, and so are options, where secrets may be too.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        // A password may hold any character but must not be shown whatever it holds: the last '@' counts.
        let (secret, rest) = rest.rsplit_once('@').map_or((false, rest), |(_, rest)| (true, rest));
        let hosts = rest.split(['/', '?']).next().unwrap_or("");
        let mask = if secret { "***@" } else { "" };
        write!(formatter, "{scheme}://{mask}{hosts}")
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// When an acknowledged write is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged: on the journals of a majority of the replica set (`w: "majority", j: true`).
    #[default]
    Sync,
    /// Some 100 ms (the primary's journal interval) after it was acknowledged, and lost if the primary fails
    /// before it has copied it (`w: 1`).
    Interval,
}

/// Whose time decides leases and due times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeSource {
    /// The MongoDB primary's, so that the clocks of the nodes need not agree. The `now` of callers is not used.
    #[default]
    Server,
    /// The `now` of every call. For tests that drive the time, of one node or of nodes that share one clock;
    /// what the store does by itself (making due retries available) is then left to calls.
    Caller,
}

/// How to open a [`ClusterStore`](super::ClusterStore).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The replica set (or sharded cluster) that holds the truth.
    pub mongodb: Uri,
    /// The database in it.
    pub database: String,
    /// The Redis that holds the dispatch index; it may lose everything at any moment.
    pub redis: Uri,
    /// Begins every key and channel in Redis, so that several installations can share one.
    pub namespace: String,
    /// When an acknowledged write is safe.
    pub durability: Durability,
    /// Whose time decides.
    pub time: TimeSource,
}

impl Options {
    /// The given servers, with database and namespace `formwork` and class `sync`.
    #[must_use]
    pub fn new(mongodb: Uri, redis: Uri) -> Self {
        Self {
            mongodb,
            database: "formwork".to_owned(),
            redis,
            namespace: "formwork".to_owned(),
            durability: Durability::default(),
            time: TimeSource::default(),
        }
    }

    /// Refuses names that would not work as parts of keys.
    pub(super) fn check(&self) -> Result<()> {
        for (what, name) in [("database", &self.database), ("namespace", &self.namespace)] {
            let good = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
            if name.is_empty() || name.len() > limits::CLUSTER_NAME_BYTES || !name.chars().all(good) {
                return Err(Error::Invalid {
                    what,
                    why: format!(
                        "{name:?} must be 1 to {} letters, digits, '-' or '_'",
                        limits::CLUSTER_NAME_BYTES
                    ),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Uri;

    #[test]
    fn no_form_of_a_uri_shows_its_secrets() {
        for (uri, shown) in [
            ("mongodb://u:p@ss/w@a:1,b:2/db?authSource=x", "mongodb://***@a:1,b:2"),
            ("redis://:secret@host:6379/0", "redis://***@host:6379"),
            ("redis://host", "redis://host"),
            ("secret", "://secret"),
        ] {
            let uri = Uri::new(uri);
            assert_eq!(uri.to_string(), shown);
            assert_eq!(format!("{uri:?}"), shown);
        }
    }
}

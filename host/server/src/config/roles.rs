//! What a process does: the whole product, or one container of it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use formwork_tasks::Pool;
use serde::{Deserialize, Deserializer, Serialize};

/// One thing a process can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serve `/v1`. Without it only probes and metrics are served.
    Api,
    /// Work on tasks of pool `high`.
    High,
    /// Work on tasks of pool `default`.
    Default,
    /// Work on tasks of pool `batched`: the process that loads models.
    Batched,
}

impl Role {
    /// Every role, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Api, Self::High, Self::Default, Self::Batched];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::High => Pool::High.as_str(),
            Self::Default => Pool::Default.as_str(),
            Self::Batched => Pool::Batched.as_str(),
        }
    }

    const fn pool(self) -> Option<Pool> {
        match self {
            Self::Api => None,
            Self::High => Some(Pool::High),
            Self::Default => Some(Pool::Default),
            Self::Batched => Some(Pool::Batched),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("unknown role `{text}`, expected some of api, high, default, batched"))
    }
}

/// The roles of a process; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// One process that does everything.
    #[must_use]
    pub fn all() -> Self {
        Self(Role::ALL.into())
    }

    /// Whether the process has this role.
    #[must_use]
    pub fn has(&self, role: Role) -> bool {
        self.0.contains(&role)
    }

    /// Whether one process is the whole product.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.len() == Role::ALL.len()
    }

    /// What that means for the pools. Without claiming their tasks, the API needs the threads of `high` for synchronous
    /// validations and those of `default` for the first and last lines of exports.
    #[must_use]
    pub fn in_pools(&self) -> formwork_scheduler::Roles {
        formwork_scheduler::Roles {
            claims: self.0.iter().filter_map(|role| role.pool()).collect(),
            calls: match self.has(Role::Api) {
                true => [Pool::High, Pool::Default].into(),
                false => BTreeSet::new(),
            },
        }
    }

    fn of(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, String> {
        let roles = names
            .into_iter()
            .map(|name| name.as_ref().trim().parse())
            .collect::<Result<BTreeSet<Role>, _>>()?;
        if roles.is_empty() {
            return Err("a process needs at least one role of api, high, default, batched".into());
        }
        Ok(Self(roles))
    }
}

impl FromStr for Roles {
    type Err = String;

    /// Reads `api,high,default,batched` or a part of it.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::of(text.split(',').filter(|name| !name.trim().is_empty()))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|role| role.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

impl<'de> Deserialize<'de> for Roles {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        Self::of(Vec::<String>::deserialize(source)?).map_err(serde::de::Error::custom)
    }
}

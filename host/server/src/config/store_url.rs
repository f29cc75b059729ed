//! What `store` and `redis` say: one file on this machine, or servers that many nodes share.

use std::path::PathBuf;

use formwork_store::cluster::{Options, Uri};

use super::defaults;

/// Where forms, submissions and tasks are kept.
#[derive(Clone, Debug)]
pub enum StoreUrl {
    /// One SQLite file, one process.
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Acknowledge before the fsync (class `interval`).
        interval: bool,
    },
    /// MongoDB holds the truth, Redis the dispatch index; any number of processes.
    Cluster(Options),
}

impl StoreUrl {
    /// Reads `store` and `redis`; `redis` is empty for an embedded store.
    ///
    /// # Errors
    /// Which key is wrong and why, for a person; never with a password.
    pub fn parse(store: &str, redis: &str) -> Result<Self, (&'static str, String)> {
        let wrong = |message: String| Err(("store", message));
        if let Some(rest) = store.strip_prefix("sqlite:") {
            if !redis.is_empty() {
                return Err(("redis", "is only used with `store = \"mongodb://…\"`".into()));
            }
            return sqlite(store, rest).map_err(|message| ("store", message));
        }
        if !["mongodb://", "mongodb+srv://"]
            .iter()
            .any(|scheme| store.starts_with(scheme))
        {
            return wrong(format!(
                "`{}` must be `sqlite:PATH`, for example `{}`, or `mongodb://HOST/DATABASE?replicaSet=NAME`",
                masked(store),
                defaults::STORE
            ));
        }
        if !["redis://", "rediss://"].iter().any(|scheme| redis.starts_with(scheme)) {
            return Err((
                "redis",
                match redis {
                    "" => {
                        "must name the dispatch index, for example `redis://127.0.0.1:6379`: many nodes share it".into()
                    }
                    other => format!("`{}` must be `redis://HOST:PORT` or `rediss://…`", masked(other)),
                },
            ));
        }
        let mut options = Options::new(Uri::new(store), Uri::new(redis));
        if let Some(database) = database(store) {
            // Installations that share a Redis as they share a MongoDB are told apart by the same name.
            options.database = database.to_owned();
            options.namespace = database.to_owned();
        }
        Ok(Self::Cluster(options))
    }
}

/// The database a connection string names as its path.
fn database(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest).split_once('/')?;
    path.split('?').next().filter(|name| !name.is_empty())
}

fn sqlite(text: &str, rest: &str) -> Result<StoreUrl, String> {
    let (path, query) = rest
        .split_once('?')
        .map_or((rest, None), |(path, query)| (path, Some(query)));
    if path.is_empty() {
        return Err(format!("`{text}` names no file"));
    }
    let interval = match query {
        None | Some("durability=sync") => false,
        Some("durability=interval") => true,
        Some(other) => {
            return Err(format!(
                "unknown option `{other}`, expected durability=sync or durability=interval"
            ));
        }
    };
    Ok(StoreUrl::Sqlite {
        path: path.into(),
        interval,
    })
}

/// A URL without what may be secret in it.
#[must_use]
pub fn masked(url: &str) -> String {
    if url.contains("://") {
        Uri::new(url).to_string()
    } else {
        url.to_owned()
    }
}

//! Configuration: one file, every key also from the environment, nothing silently ignored.
//!
//! **Problem.** A misspelt key that is ignored is a limit that is not there. **Promise.** Every value comes from one of
//! three layers, later ones win: [defaults](defaults), `formwork.toml`, `FORMWORK_…` variables. An unknown key is an error
//! that names it and the nearest known one; a wrong type names the key. `formwork serve --print-config` shows what came
//! out, secrets masked. **Cost.** Layers are merged as TOML and typed once at the end, so an error names the key, not the
//! line, once the file is syntactically right. **Rejected.** A general configuration crate: none says which key was meant.

pub mod defaults;
mod layers;
mod roles;
mod store_url;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formwork_engine::EngineOptions;
use formwork_inference::ModelSpec;
use formwork_manifest::Grant;
use formwork_scheduler::SchedulerOptions;
use serde::{Deserialize, Serialize};

use crate::retention::RetentionDays;

pub use roles::{Role, Roles};
pub use store_url::{StoreUrl, masked};

/// Names the configuration file.
pub const FILE_VARIABLE: &str = "FORMWORK_CONFIG";

/// The configuration file that is used when it exists and no other is named.
pub const FILE: &str = "formwork.toml";

/// Deepest JSON that `http.json_depth` may allow: what the parsers further in take with room to spare.
pub const MAX_JSON_DEPTH: usize = 100;

/// What stands for a secret in the printed configuration.
const MASKED: &str = "********";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not TOML: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A key that does not exist.
    #[error("{from}: unknown key `{key}`{}", nearest.as_ref().map(|near| format!(", did you mean `{near}`?")).unwrap_or_default())]
    UnknownKey {
        /// The file or the variable.
        from: String,
        /// The key.
        key: String,
        /// The known key that is spelt most like it.
        nearest: Option<String>,
    },
    /// A value that cannot be right.
    #[error("{from}: key `{key}`: {message}")]
    Value {
        /// The file, the variable, or `configuration` when it shows only at the end.
        from: String,
        /// The key.
        key: String,
        /// What is wrong.
        message: String,
    },
}

/// Everything an operator can set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What this process does: all of it, or one container's part.
    pub roles: Roles,
    /// Where forms, submissions and tasks are kept: `sqlite:PATH`, and `?durability=interval` behind it to acknowledge
    /// before the fsync; or `mongodb://HOST/DATABASE?replicaSet=NAME` for many nodes.
    pub store: String,
    /// A file that holds `store`; empty: none.
    pub store_file: PathBuf,
    /// The dispatch index of many nodes, `redis://HOST:PORT`; empty with an embedded store.
    pub redis: String,
    /// A file that holds `redis`; empty: none.
    pub redis_file: PathBuf,
    /// How long submissions and exports are kept.
    pub retention: RetentionDays,
    /// The HTTP API.
    pub http: Http,
    /// What is logged, and how.
    pub log: Log,
    /// The pools (`[pools.high]`, `[pools.default]`, `[pools.batched]`) and what concerns all of them.
    pub pools: SchedulerOptions,
    /// Sandboxes.
    pub engine: EngineOptions,
    /// Native inference.
    pub inference: formwork_inference::Options,
    /// The models: what may be called, and when each is loaded.
    pub models: Vec<ModelSpec>,
    /// The plugins that are loaded at start.
    pub plugins: Plugins,
}

impl Config {
    /// Makes it one process with an embedded store in this file, for commands that bring the product up for a moment.
    pub fn embed(&mut self, store: &Path) {
        self.store = format!("sqlite:{}", store.display());
        self.redis.clear();
        self.roles = Roles::all();
    }
}

/// The HTTP API. Sizes are bytes unless the name says otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address and port.
    pub listen: SocketAddr,
    /// Bearer token that `/v1` asks for; empty: none.
    pub token: String,
    /// A file that holds the token; empty: none.
    pub token_file: PathBuf,
    /// Largest submission.
    pub body_limit_bytes: usize,
    /// Largest request of many documents, one a line.
    pub lines_limit_bytes: usize,
    /// Largest form definition.
    pub definition_limit_bytes: usize,
    /// Largest plugin that may be pushed.
    pub component_limit_bytes: usize,
    /// Deepest nesting of a JSON body.
    pub json_depth: usize,
    /// Longest time for a request, its body included, without what it waits for by `Prefer: wait`.
    pub request_timeout_ms: u64,
    /// Longest `Prefer: wait`.
    pub max_wait_seconds: u64,
    /// Connections that are open at once; later ones wait to be accepted.
    pub max_connections: usize,
    /// Event streams of tasks that are open at once; each holds a connection.
    pub max_event_streams: usize,
    /// Threads of the HTTP runtime; they never run plugins.
    pub threads: usize,
    /// Longest time to finish what runs after SIGTERM.
    pub drain_timeout_ms: u64,
}

impl Http {
    /// Longest time for a request.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

/// Logging.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// `json` (one object a line) or `text`.
    pub format: LogFormat,
    /// Which events, in the syntax of `tracing_subscriber::EnvFilter`; `FORMWORK_LOG` sets it too.
    pub filter: String,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The plugins.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugins {
    /// The folder with the component files.
    pub folder: PathBuf,
    /// What each plugin may use, by its name; what is not named gets nothing.
    pub grants: BTreeMap<String, BTreeSet<Grant>>,
}

/// A configuration, and how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed values.
    pub config: Config,
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// Variables of the environment that look like settings and are none.
    not_taken: Vec<String>,
    /// All keys with their effective values.
    effective: toml::Table,
}

impl Loaded {
    /// Replaces the roles, as `serve --roles` does.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when the store does not allow them.
    pub fn set_roles(&mut self, roles: Roles) -> Result<(), ConfigError> {
        self.config.roles = roles;
        check(&self.config)
    }

    /// What an operator should know, for the log.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let http = &self.config.http;
        let open = self.config.roles.has(Role::Api) && !http.listen.ip().is_loopback() && http.token.is_empty();
        let open = open.then(|| {
            format!(
                "the API listens on {} without a token: set http.token_file, or put a proxy that authenticates before it",
                http.listen
            )
        });
        self.not_taken.iter().cloned().chain(open).collect()
    }

    /// All keys with their effective values as TOML, secrets masked.
    #[must_use]
    pub fn printed(&self) -> String {
        let mut table = self.effective.clone();
        for key in ["store", "redis"] {
            if let Some(url) = table.get_mut(key)
                && let Some(text) = url.as_str()
            {
                *url = masked(text).into();
            }
        }
        if let Some(token) = table.get_mut("http").and_then(|http| http.get_mut("token"))
            && token.as_str() != Some("")
        {
            *token = MASKED.into();
        }
        let from = self
            .file
            .as_ref()
            .map_or("defaults and environment".to_owned(), |file| file.display().to_string());
        let text = toml::to_string_pretty(&table).unwrap_or_else(|error| format!("# not printable: {error}\n"));
        format!("# effective configuration, from {from}\n{text}")
    }
}

/// Reads the configuration: `file`, else `FORMWORK_CONFIG`, else `formwork.toml` here if there is one, else defaults; and
/// the environment above it.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    load_with(
        file,
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
    )
}

/// [`load`] with another environment.
///
/// # Errors
/// See [`ConfigError`].
pub fn load_with(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let cache = defaults::cache_folder(&environment);
    let mut effective = defaults::table(&cache)?;
    let file = file
        .map(Path::to_owned)
        .or_else(|| environment.get(FILE_VARIABLE).map(PathBuf::from));
    let file = file.or_else(|| Path::new(FILE).is_file().then(|| PathBuf::from(FILE)));
    if let Some(path) = &file {
        layers::merge_file(&mut effective, path)?;
    }
    let not_taken = layers::merge_environment(&mut effective, &environment)?;
    read_secrets(&mut effective)?;
    let config = typed(&effective)?;
    check(&config)?;
    Ok(Loaded {
        config,
        file,
        not_taken,
        effective,
    })
}

/// A configuration of defaults and these changes, for programs that wire the product themselves.
///
/// # Errors
/// See [`ConfigError`].
pub fn from_toml(changes: &str) -> Result<Config, ConfigError> {
    let environment: BTreeMap<String, String> = std::env::vars()
        .filter(|(key, _)| key == defaults::CACHE_VARIABLE || key == "HOME")
        .collect();
    let mut effective = defaults::table(&defaults::cache_folder(&environment))?;
    layers::merge_text(&mut effective, changes, Path::new("changes"))?;
    let config = typed(&effective)?;
    check(&config)?;
    Ok(config)
}

fn typed(effective: &toml::Table) -> Result<Config, ConfigError> {
    let mut table = effective.clone();
    // TOML has no null: an empty path says "none".
    if let Some(toml::Value::Table(engine)) = table.get_mut("engine")
        && engine.get("cache_folder").and_then(toml::Value::as_str) == Some("")
    {
        engine.remove("cache_folder");
    }
    serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| ConfigError::Value {
        from: "configuration".into(),
        key: error.path().to_string(),
        message: error.inner().to_string().trim().replace('\n', " "),
    })
}

/// Secrets that may come from a file instead, so that they are in no environment and no printed configuration: the
/// table, the key, its default.
const SECRETS: [(&str, &str, &str); 3] = [("http", "token", ""), ("", "store", defaults::STORE), ("", "redis", "")];

fn read_secrets(effective: &mut toml::Table) -> Result<(), ConfigError> {
    for (at, key, default) in SECRETS {
        let table = match at {
            "" => Some(&mut *effective),
            at => effective.get_mut(at).and_then(toml::Value::as_table_mut),
        };
        let Some(table) = table else { continue };
        let text = |key: &str| table.get(key).and_then(toml::Value::as_str).unwrap_or("").to_owned();
        let file = text(&format!("{key}_file"));
        if file.is_empty() {
            continue;
        }
        let dotted = if at.is_empty() {
            key.to_owned()
        } else {
            format!("{at}.{key}")
        };
        let wrong = |message: String| ConfigError::Value {
            from: "configuration".into(),
            key: format!("{dotted}_file"),
            message,
        };
        if text(key) != default {
            return Err(wrong(format!("{dotted} is set too, keep one of them")));
        }
        let secret = std::fs::read_to_string(&file).map_err(|error| wrong(format!("reading {file}: {error}")))?;
        if secret.trim().is_empty() {
            return Err(wrong(format!("{file} is empty")));
        }
        table.insert(key.into(), secret.trim().into());
    }
    Ok(())
}

/// Checks what types cannot say.
fn check(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: &str, message: String| {
        Err(ConfigError::Value {
            from: "configuration".into(),
            key: key.into(),
            message,
        })
    };
    if !(1..=MAX_JSON_DEPTH).contains(&config.http.json_depth) {
        return wrong(
            "http.json_depth",
            format!("must be 1 to {MAX_JSON_DEPTH}, got {}", config.http.json_depth),
        );
    }
    let positive = [
        ("http.body_limit_bytes", config.http.body_limit_bytes),
        ("http.lines_limit_bytes", config.http.lines_limit_bytes),
        ("http.definition_limit_bytes", config.http.definition_limit_bytes),
        ("http.component_limit_bytes", config.http.component_limit_bytes),
        ("http.max_connections", config.http.max_connections),
        ("http.max_event_streams", config.http.max_event_streams),
        ("http.threads", config.http.threads),
    ];
    if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return wrong(key, "must be at least 1".into());
    }
    if config.http.request_timeout_ms == 0 {
        return wrong("http.request_timeout_ms", "must be at least 1".into());
    }
    if let Err(error) = config.pools.check() {
        return wrong(
            &format!("pools.{}", error.option),
            format!("must be {}, got {}", error.expected, error.value),
        );
    }
    match StoreUrl::parse(&config.store, &config.redis) {
        Err((key, message)) => return wrong(key, message),
        Ok(StoreUrl::Sqlite { .. }) if !config.roles.are_all() => {
            return wrong(
                "roles",
                format!(
                    "`{}` leaves work undone: an embedded store has one process, which does everything; \
                     use `store = \"mongodb://…\"` for several",
                    config.roles
                ),
            );
        }
        Ok(_) => {}
    }
    Ok(())
}

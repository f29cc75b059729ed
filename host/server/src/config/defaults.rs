//! Every default, in one place, with its reason. Engine, inference and pools keep theirs beside their
//! options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{ConfigError, Role};
use crate::retention::RetentionDays;

/// Names the folder of models, libraries and built plugins.
pub const CACHE_VARIABLE: &str = "FORMWORK_CACHE";

/// One file beside where the server is started: an evaluation needs no database server.
pub const STORE: &str = "sqlite:data/formwork.db";

/// Only this machine: whoever opens the API to others shall have decided to.
pub const LISTEN: &str = "127.0.0.1:8080";

/// 1 MiB: a form of a thousand long answers; files are not answers.
pub const BODY_LIMIT_BYTES: usize = 1 << 20;

/// 16 MiB: ten thousand submissions of 1.6 kB in one request.
pub const LINES_LIMIT_BYTES: usize = 16 << 20;

/// 4 MiB: the largest public form schemas have 700 kB.
pub const DEFINITION_LIMIT_BYTES: usize = 4 << 20;

/// 64 MiB: three times a Python plugin, which brings its interpreter.
pub const COMPONENT_LIMIT_BYTES: usize = 64 << 20;

/// Real forms nest below 12; 64 leaves room, and every parser behind it takes twice that.
pub const JSON_DEPTH: usize = 64;

/// 30 s: longer than any validation may take (`engine.defaults.wall_ms`), shorter than proxies give up (60 s).
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;

/// 50 s: below the 60 s after which common proxies give up.
pub const MAX_WAIT_SECONDS: u64 = 50;

/// 1,024: the file descriptors a service gets without being configured, less what the store needs.
pub const MAX_CONNECTIONS: usize = 900;

/// 128: a seventh of the connections, so that watchers never keep clients with submissions out.
pub const MAX_EVENT_STREAMS: usize = 128;

/// 20 s: orchestrators kill after 30.
pub const DRAIN_TIMEOUT_MS: u64 = 20_000;

/// Everything from `info` up. wasmtime and hyper say nothing of interest below `warn`.
pub const LOG_FILTER: &str = "info,wasmtime=warn,cranelift=warn,hyper=warn";

/// The encoder and the instruct model that `make setup` fetches: name, version, file, sha256.
const ENCODER: [&str; 4] = [
    "encoder",
    "all-MiniLM-L6-v2-int8",
    "models/all-MiniLM-L6-v2-int8.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
];
const ENCODER_TOKENIZER: [&str; 2] = [
    "models/all-MiniLM-L6-v2-tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
];
const GENERATOR: [&str; 4] = [
    "generator",
    "SmolLM2-135M-Instruct-Q4_1",
    "models/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
];

/// `FORMWORK_CACHE`, else `.cache/formwork` at home, else here.
#[must_use]
pub fn cache_folder(environment: &BTreeMap<String, String>) -> PathBuf {
    let named = environment
        .get(CACHE_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from);
    let home = || environment.get("HOME").map_or_else(PathBuf::new, PathBuf::from);
    named.unwrap_or_else(|| home().join(".cache/formwork"))
}

/// The table of all keys with their defaults. A key that is not in it does not exist, except in the open tables
/// (`plugins.grants`) and inside `[[models]]`.
pub(super) fn table(cache: &Path) -> Result<toml::Table, ConfigError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let in_cache = |path: &str| cache.join(path).display().to_string();
    let inference = formwork_inference::Options::default();
    let engine = formwork_engine::EngineOptions {
        cache_folder: Some(cache.join("compiled")),
        ..formwork_engine::EngineOptions::default()
    };
    let file = |path: &str, sha256: &str| json!({ "path": in_cache(path), "sha256": sha256 });
    let [tokenizer, tokenizer_sha256] = ENCODER_TOKENIZER;
    let tree = json!({
        "roles": Role::ALL,
        "store": STORE, "store_file": "", "redis": "", "redis_file": "",
        // For ever: what is deleted is the operator's decision.
        "retention": RetentionDays::default(),
        "http": {
            "listen": LISTEN, "token": "", "token_file": "",
            "body_limit_bytes": BODY_LIMIT_BYTES, "lines_limit_bytes": LINES_LIMIT_BYTES,
            "definition_limit_bytes": DEFINITION_LIMIT_BYTES, "component_limit_bytes": COMPONENT_LIMIT_BYTES,
            "json_depth": JSON_DEPTH, "request_timeout_ms": REQUEST_TIMEOUT_MS, "max_wait_seconds": MAX_WAIT_SECONDS,
            "max_connections": MAX_CONNECTIONS, "max_event_streams": MAX_EVENT_STREAMS,
            // Two even on one core: a slow handler does not hold up `/livez`.
            "threads": cores.clamp(2, 8),
            "drain_timeout_ms": DRAIN_TIMEOUT_MS,
        },
        "log": { "format": "json", "filter": LOG_FILTER },
        "pools": formwork_scheduler::SchedulerOptions::default(),
        "engine": engine,
        "inference": {
            "onnxruntime": in_cache("lib/libonnxruntime.so"),
            "threads": inference.threads, "concurrency": inference.concurrency, "queue": inference.queue,
            "embedding_cache_bytes": inference.embedding_cache_bytes, "memory_bytes": inference.memory_bytes,
            "batch_tokens": inference.batch_tokens, "integer_arithmetic": inference.integer_arithmetic,
            "cpu_variant": inference.cpu_variant,
            "tensor_bytes": inference.tensor_bytes,
            "prefix_memory_bytes": inference.prefix_memory_bytes, "prefix_folder": in_cache("prefixes"),
            "prefix_disk_bytes": inference.prefix_disk_bytes,
        },
        "models": [
            { "name": ENCODER[0], "version": ENCODER[1], "file": file(ENCODER[2], ENCODER[3]),
              "task": { "kind": "encoder", "tokenizer": file(tokenizer, tokenizer_sha256) } },
            { "name": GENERATOR[0], "version": GENERATOR[1], "file": file(GENERATOR[2], GENERATOR[3]),
              "task": { "kind": "generator" } },
        ],
        "plugins": {
            "folder": in_cache("plugins"),
            // What each first-party plugin needs and no more.
            "grants": { "validate": [], "classify": ["embeddings"], "extract": ["generation"], "respond": ["generation"], "export": ["sink"] },
        },
    });
    toml::Table::try_from(tree).map_err(|error| ConfigError::Value {
        from: "defaults".into(),
        key: ".".into(),
        message: error.to_string(),
    })
}

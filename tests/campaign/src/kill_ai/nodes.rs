//! The two processes, and what is asked of each.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use serde_json::json;

use crate::api;
use crate::cluster::{ClusterFile, ProcessSpec};

/// The form whose drafts the AI process writes.
pub(super) const DRAFTS: &str = "kill-ai-drafts";
/// The form of the probes, which needs no AI.
pub(super) const PLAIN: &str = "kill-ai-plain";

/// The AI process's place in the cluster.
pub(super) const AI: usize = 1;

/// How long a task stays a killed worker's, milliseconds: as short as a heartbeat allows, or a hundred kills take hours.
const LEASE_MS: u64 = 2_000;
const HEARTBEAT_MS: u64 = 500;

/// The servers that both processes share.
#[derive(Clone, Debug)]
pub struct Servers {
    /// A MongoDB connection string with a database of its own.
    pub mongodb: String,
    /// A Redis connection string.
    pub redis: String,
}

impl Servers {
    /// Those that tests share, with a database and a namespace of their own for each process and name.
    #[must_use]
    pub fn for_tests(name: &str) -> Self {
        let shared = formwork_test_servers::shared();
        let (server, query) = shared.mongodb.split_once('?').unwrap_or((&shared.mongodb, ""));
        let (scheme, rest) = server.split_once("://").unwrap_or(("mongodb", server));
        let host = rest.split('/').next().unwrap_or(rest);
        // One server is asked, not the set it says it belongs to.
        let mut options: Vec<&str> = query.split('&').filter(|option| !option.is_empty()).collect();
        if !options.iter().any(|option| option.starts_with("directConnection=")) {
            options.push("directConnection=true");
        }
        let (database, options) = (format!("{name}-{}", std::process::id()), options.join("&"));
        Self {
            mongodb: format!("{scheme}://{host}/{database}?{options}"),
            redis: shared.redis.clone(),
        }
    }
}

/// What is started.
pub(super) struct Nodes {
    pub(super) file: ClusterFile,
    pub(super) api: String,
    pub(super) ai: String,
}

/// Writes the configurations.
pub(super) fn describe(formwork: &Path, servers: &Servers, folder: &Path) -> anyhow::Result<Nodes> {
    let mut processes = Vec::new();
    let mut urls = Vec::new();
    for (name, roles) in [("api", r#"["api", "high", "default"]"#), ("ai", r#"["batched"]"#)] {
        // A fixed one, so that it is found again after a kill; free a moment ago.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let config = folder.join(format!("{name}.toml"));
        let text = format!(
            "roles = {roles}\nstore = \"{}\"\nredis = \"{}\"\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\n\
             [log]\nfilter = \"warn\"\n\
             [pools]\nlease_ms = {LEASE_MS}\nheartbeat_ms = {HEARTBEAT_MS}\n\
             # A task that was hit five times is dead by default: here the kills are not the tasks' fault.\n\
             max_crashes = 1000000\n",
            servers.mongodb, servers.redis,
        );
        std::fs::write(&config, text)?;
        let command = ["serve", "--config"].map(str::to_owned);
        processes.push(ProcessSpec {
            name: name.into(),
            command: [
                vec![formwork.display().to_string()],
                command.into(),
                vec![config.display().to_string()],
            ]
            .concat(),
            environment: BTreeMap::new(),
            ready: format!("{url}/readyz"),
            weight: u32::from(processes.len() == AI),
        });
        urls.push(url);
    }
    let [api, ai] = <[String; 2]>::try_from(urls).map_err(|_| anyhow::anyhow!("two processes are described"))?;
    Ok(Nodes {
        file: ClusterFile {
            endpoints: vec![api.clone()],
            // The lease, and the sweep that finds that it has ended.
            orphan_ms: 4 * LEASE_MS,
            process: processes,
        },
        api,
        ai,
    })
}

/// Publishes both forms.
pub(super) async fn publish(api: &str) -> anyhow::Result<()> {
    let schema = json!({ "type": "object", "required": ["message"],
        "properties": { "message": { "type": "string", "minLength": 1 } } });
    let drafts = json!({ "title": "Drafts", "schema": schema, "pipeline": [
        { "name": "check", "plugin": "validate" },
        { "name": "answer", "plugin": "respond", "settings": {
            "instruction": "Write a long and friendly letter to this customer.", "fields": ["/message"], "max_tokens": 96 } },
        { "name": "archive", "plugin": "export", "settings": { "format": "jsonl" } } ] });
    let plain = json!({ "title": "Plain", "schema": schema, "pipeline": [{ "name": "check", "plugin": "validate" }] });
    let client = api::client()?;
    for (form, definition) in [(DRAFTS, drafts), (PLAIN, plain)] {
        let put = client.put(format!("{api}/v1/forms/{form}")).json(&definition);
        let response = put.send().await?;
        let status = response.status();
        anyhow::ensure!(
            status.is_success(),
            "publishing {form}: {status} {}",
            response.text().await?
        );
    }
    Ok(())
}

/// Whether a process has written tokens since it started and has a text under way; a process that does not answer has not.
pub(super) async fn is_writing(client: &reqwest::Client, ai: &str) -> bool {
    let metrics = async { client.get(format!("{ai}/metrics")).send().await?.text().await };
    let Ok(metrics) = metrics.await else {
        return false;
    };
    let value = |name: &str, label: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name) && line.contains(label));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    value("formwork_inference_tokens_total{", "kind=\"output\"") > 0.0
        && value("formwork_inference_generations{", "state=\"running\"") > 0.0
}

/// How many models a process has loaded since it started.
pub(super) async fn models_loaded(api: &str) -> anyhow::Result<u64> {
    let models = api::get(&api::client()?, &format!("{api}/v1/models")).await?;
    let items = models["items"].as_array().map_or(&[] as &[_], Vec::as_slice);
    anyhow::ensure!(!items.is_empty(), "no models are declared: {models}");
    Ok(items.iter().filter_map(|model| model["loads"].as_u64()).sum())
}

//! What operators and their tools read: the autoscaling signal, the metrics and what is said about them, the alert rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use formwork_tasks::Pool;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::{Running, good, start};

async fn of_high(server: &Running) -> Value {
    server.get("/v1/autoscale").await.body["items"][0].clone()
}

/// The value of a series in the text format.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

async fn metrics(server: &Running) -> String {
    let answer = server.request(Method::GET, "/metrics").send().await.unwrap();
    answer.text().await.unwrap()
}

#[tokio::test]
async fn the_autoscaling_signal_says_what_a_pool_could_use() {
    let server = start("pools.high.permits = 7\npools.high.target_wait_ms = 1").await;
    server.contact().await;
    assert_eq!(of_high(&server).await["wanted_workers"], 0);
    server.pause_high(true).await;
    for _ in 0..10 {
        server.post("/v1/forms/contact/submissions", &good()).await;
    }
    let signal = of_high(&server).await;
    assert_eq!(
        (&signal["pool"], &signal["waiting"], &signal["running"]),
        (&json!("high"), &json!(10), &json!(0))
    );
    assert_eq!(
        (&signal["permits"], &signal["target_wait_seconds"]),
        (&json!(7), &json!(0.001))
    );
    assert_eq!(
        (&signal["paused"], &signal["wanted_workers"]),
        (&json!(true), &json!(0))
    );

    // Another worker takes eight: that is more than one like this one holds.
    let (store, now) = (server.server().store(), formwork_server::clock::now());
    let taken = store.claim(Pool::High, "elsewhere", 8, 30_000, now).await.unwrap();
    assert_eq!(taken.len(), 8);
    let signal = of_high(&server).await;
    assert_eq!((&signal["waiting"], &signal["running"]), (&json!(2), &json!(8)));
    assert_eq!(signal["wanted_workers"], 2);

    let metrics = metrics(&server).await;
    assert_eq!(
        value(&metrics, "formwork_queue_tasks{pool=\"high\",state=\"available\"}"),
        2.0
    );
    assert!(value(&metrics, "formwork_queue_oldest_wait_seconds{pool=\"high\"}") > 0.0);
    assert_eq!(value(&metrics, "formwork_autoscale_wanted_workers{pool=\"high\"}"), 2.0);
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Names of metrics that stand in the sources of the host.
fn names_in_sources() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(repository().join("host"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("src"))
        .filter(|path| path.is_dir())
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                names.extend(text.split('"').filter(|piece| is_name(piece)).map(str::to_owned));
            }
        }
    }
    names
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.starts_with("formwork_") && text.chars().all(plain)
}

/// What is known of a metric: its kind, its labels (without `le`), its help.
#[derive(Debug, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    help: String,
}

/// The table of `docs/metrics.md`.
fn documented() -> BTreeMap<String, Metric> {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `formwork_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, help] = cells[..] else {
            panic!("not four cells: {row}");
        };
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let metric = Metric {
            kind: kind.to_owned(),
            labels: labels.map(|label| label.trim_matches('`').to_owned()).collect(),
            help: help.to_owned(),
        };
        (name.trim_matches('`').to_owned(), metric)
    })
    .collect()
}

/// What `/metrics` exports.
fn exported(text: &str) -> BTreeMap<String, Metric> {
    let mut found: BTreeMap<String, Metric> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            let metric = Metric {
                kind: String::new(),
                labels: BTreeSet::new(),
                help: help.to_owned(),
            };
            found.insert(current.clone(), metric);
        } else if let Some(kind) = line.strip_prefix(&format!("# TYPE {current} ")) {
            found.get_mut(&current).unwrap().kind = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            let metric = found.get_mut(&current).unwrap();
            let labels = labels
                .split("=\"")
                .map(|piece| piece.rsplit(['"', ',', '{']).next().unwrap());
            metric.labels.extend(
                labels
                    .filter(|label| is_name(&format!("formwork_{label}")) && *label != "le" && !label.is_empty())
                    .map(str::to_owned),
            );
        }
    }
    found.retain(|name, _| name.starts_with("formwork_"));
    found
}

#[tokio::test]
async fn every_metric_is_documented_as_it_is_exported() {
    let (documented, sources) = (documented(), names_in_sources());
    let names: BTreeSet<String> = documented.keys().cloned().collect();
    let missing: Vec<_> = sources.difference(&names).collect();
    assert!(missing.is_empty(), "rows missing in docs/metrics.md: {missing:?}");
    let gone: Vec<_> = names.difference(&sources).collect();
    assert!(gone.is_empty(), "rows of docs/metrics.md that no source has: {gone:?}");

    let server = start("").await;
    server.contact().await;
    let request = server.request(Method::POST, "/v1/forms/contact/submissions");
    let done = crate::support::read(request.header("prefer", "wait=30").json(&good())).await;
    assert_eq!(done.body["status"], "done");
    let exported = exported(&metrics(&server).await);
    assert!(exported.len() > 20, "{exported:#?}");
    for (name, metric) in exported {
        assert_eq!(metric, documented[&name], "{name}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    _lasting: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Exported only where there is a Redis; `host/store` has it.
const ONLY_WITH_REDIS: &str = "formwork_store_index_up";

#[tokio::test]
async fn every_metric_of_the_alert_rules_is_exported() {
    let path = repository().join("deploy/prometheus/formwork.rules.yml");
    let rules: Rules = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let server = start("").await;
    // The first scrape counts requests, the second shows them.
    metrics(&server).await;
    let exported = exported(&metrics(&server).await);
    let (mut alerts, mut named) = (BTreeSet::new(), 0);
    for rule in rules.groups.iter().flat_map(|group| &group.rules) {
        assert!(alerts.insert(&rule.alert), "{} is there twice", rule.alert);
        assert!(
            ["page", "ticket"].contains(&rule.labels["severity"].as_str()),
            "{}",
            rule.alert
        );
        assert!(rule.annotations.contains_key("summary") && rule.annotations.contains_key("description"));
        let words = rule.expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| is_name(word)) {
            let series = |name: &&str| exported.contains_key(*name);
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|part| word.strip_suffix(part));
            let known = word == ONLY_WITH_REDIS || series(&word) || family.as_ref().is_some_and(series);
            assert!(known, "{}: /metrics has no {word}", rule.alert);
            named += 1;
        }
    }
    assert!(rules.groups.iter().all(|group| !group.name.is_empty()) && named >= alerts.len());
}

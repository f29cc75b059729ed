//! `formwork bench publish`: what new form versions take, and the memory that many of them hold.
//!
//! Publishing itself is the request a client waits for; the snapshot of the version is made behind it. Memory is read
//! where the system keeps it, after all versions were published and again after each was used once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};

use super::figures::{Figures, cpus};
use super::work::{FORM_ID, Work, scratch_and_runtime};
use super::{Shared, http};
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{Table, print, print_json};
use crate::serve::Server;

/// The first version of those that are only snapshotted: far from the published ones, whose snapshots may exist.
const FIRST_SNAPSHOT: u32 = 1_000_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    shared: Shared,
    /// Form versions to publish.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    versions: u32,
    /// Snapshots to time.
    #[arg(long, default_value_t = 20)]
    snapshots: u32,
}

/// Resident memory of this process, kibibytes. Snapshots are files in memory (`shared`), compiled code is mapped files.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Memory {
    pub(super) resident_kib: u64,
    anonymous_kib: u64,
    files_kib: u64,
    shared_kib: u64,
}

impl Memory {
    pub(super) fn read() -> anyhow::Result<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?)
    }

    fn parse(status: &str) -> anyhow::Result<Self> {
        let value = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            number.with_context(|| format!("no `{key}` in /proc/self/status"))
        };
        Ok(Self {
            resident_kib: value("VmRSS:")?,
            anonymous_kib: value("RssAnon:")?,
            files_kib: value("RssFile:")?,
            shared_kib: value("RssShmem:")?,
        })
    }
}

struct Measured {
    publishing: Figures,
    first_validation: Figures,
    snapshots: Option<Figures>,
    memory: Vec<(&'static str, Memory)>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let (scratch, runtime) = scratch_and_runtime(&options.shared)?;
    let config = scratch.config.clone();
    let measured = runtime.block_on(async {
        let server = Server::start(config).await?;
        let measured = measure(&server, &scratch.work, options).await;
        server.stop().await;
        measured
    })?;
    report(options, &measured, global)
}

async fn measure(server: &Server, work: &Work, options: &Options) -> anyhow::Result<Measured> {
    let mut memory = vec![("started", Memory::read()?)];
    // Everything that comes with the first version and is not a version.
    publish(server.address(), work, 0).await?;
    validate(server.address(), work, 1).await?;
    memory.push(("one version published and used", Memory::read()?));
    let began = Instant::now();
    let mut samples = Vec::new();
    for number in 1..options.versions {
        samples.push(publish(server.address(), work, number).await?);
    }
    let publishing = Figures::of(samples, began.elapsed());
    memory.push(("all versions published", Memory::read()?));
    let began = Instant::now();
    let mut samples = Vec::new();
    for version in 1..=options.versions {
        samples.push(validate(server.address(), work, version).await?);
    }
    let first_validation = Figures::of(samples, began.elapsed());
    memory.push(("each version used once", Memory::read()?));
    let snapshots = snapshots(server, work, options.snapshots).await?;
    Ok(Measured {
        publishing,
        first_validation,
        snapshots,
        memory,
    })
}

/// Publishes the bench form under another title: a new version.
async fn publish(address: SocketAddr, work: &Work, number: u32) -> anyhow::Result<Duration> {
    let mut form: Value = serde_json::from_str(&work.form)?;
    form["title"] = json!(format!("Bench {number}"));
    let began = Instant::now();
    http::publish(address, &form.to_string()).await?;
    Ok(began.elapsed())
}

async fn validate(address: SocketAddr, work: &Work, version: u32) -> anyhow::Result<Duration> {
    let url = format!("http://{address}/v1/forms/{FORM_ID}/validate?version={version}");
    let request = reqwest::Client::new()
        .post(url)
        .header("content-type", "application/json")
        .body(work.submission.clone());
    let began = Instant::now();
    let answer: Value = request.send().await?.json().await?;
    anyhow::ensure!(answer["valid"] == true, "version {version}: {answer}");
    Ok(began.elapsed())
}

/// Makes snapshots of versions that nobody has published, each of which must be prepared, saved and compiled.
async fn snapshots(server: &Server, work: &Work, count: u32) -> anyhow::Result<Option<Figures>> {
    let plugin = server.catalog().resolve(&work.plugin)?;
    let began = Instant::now();
    let mut samples = Vec::new();
    for number in 0..count {
        let setup = work.setup(FIRST_SNAPSHOT + number)?;
        let began = Instant::now();
        if plugin.snapshot(&setup).await.is_err() {
            return Ok(None);
        }
        samples.push(began.elapsed());
    }
    Ok((count > 0).then(|| Figures::of(samples, began.elapsed())))
}

fn report(options: &Options, measured: &Measured, global: &Global) -> Result<(), Failure> {
    let mut rows = vec![
        ("publishing a version", Some(measured.publishing)),
        ("first validation of a version", Some(measured.first_validation)),
        ("snapshot and compile", measured.snapshots),
    ];
    if options.versions < 2 {
        rows.remove(0);
    }
    if global.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(name, figures)| json!({ "name": name, "figures": figures }))
            .collect();
        let memory: Vec<Value> = measured
            .memory
            .iter()
            .map(|(when, memory)| json!({ "when": when, "memory": memory }))
            .collect();
        print_json(&json!({ "cpus": cpus(), "versions": options.versions, "rows": rows, "memory": memory }))?;
        return Ok(());
    }
    let mut times = Table::new(&["what", "a second", "p50 ms", "p95 ms", "p99 ms"]);
    for (name, figures) in rows {
        let millis = |micros: fn(&Figures) -> f64| {
            figures.map_or("-".to_owned(), |figures| format!("{:.2}", micros(&figures) / 1e3))
        };
        times.row([
            name.into(),
            figures.map_or("-".into(), |figures| format!("{:.0}", figures.per_second)),
            millis(|figures| figures.p50_us),
            millis(|figures| figures.p95_us),
            millis(|figures| figures.p99_us),
        ]);
    }
    let mut memory = Table::new(&["resident MiB", "all", "anonymous", "mapped files", "in-memory files"]);
    for (when, kib) in &measured.memory {
        let mebi = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        memory.row([
            (*when).into(),
            mebi(kib.resident_kib),
            mebi(kib.anonymous_kib),
            mebi(kib.files_kib),
            mebi(kib.shared_kib),
        ]);
    }
    print(&format!(
        "{} CPUs, {} versions\n{}\n{}",
        cpus(),
        options.versions,
        times.render(),
        memory.render()
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_where_the_system_keeps_it() {
        let status = "Name:\tx\nVmRSS:\t   1000 kB\nRssAnon:\t600 kB\nRssFile:\t 300 kB\nRssShmem:\t100 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!((memory.resident_kib, memory.shared_kib), (1000, 100));
        assert!(Memory::parse("VmRSS: 1 kB").is_err());
    }
}

//! The cluster under test: processes that may be killed, and where clients find it.
//!
//! One server on an embedded store is [`Cluster::embedded`]; anything else (several servers, workers, Redis, MongoDB) is
//! described by a file: the campaign knows commands and addresses, not roles.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;

/// How often a starting process is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Longest start of a process.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A cluster as a TOML file describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Base URLs of the servers; clients take turns.
    pub endpoints: Vec<String>,
    /// The longest a task of a killed worker may stay `running`: lease and sweep together.
    pub orphan_ms: u64,
    /// Started in this order.
    pub process: Vec<ProcessSpec>,
}

/// One process of the cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    /// What the report calls it.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to the environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// When it is up: `http://…` answers with success, or `HOST:PORT` accepts a connection.
    pub ready: String,
    /// How often it is chosen against the others; 0: never killed.
    #[serde(default = "one")]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}

/// Processes that run.
pub struct Cluster {
    /// Base URLs of the servers.
    pub endpoints: Vec<String>,
    /// The longest a task of a killed worker may stay `running`.
    pub orphan: Duration,
    processes: Vec<Process>,
}

struct Process {
    spec: ProcessSpec,
    log: std::path::PathBuf,
    child: Option<Child>,
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Already dead is as good.
            let _killed = child.kill();
            let _waited = child.wait();
        }
    }
}

impl Cluster {
    /// Starts what the file describes; logs go to `folder`.
    ///
    /// # Errors
    /// A process that does not start.
    pub async fn start(file: ClusterFile, folder: &Path) -> anyhow::Result<Self> {
        let mut cluster = Self {
            endpoints: file.endpoints,
            orphan: Duration::from_millis(file.orphan_ms),
            processes: Vec::new(),
        };
        for spec in file.process {
            let log = folder.join(format!("{}.log", spec.name));
            cluster.processes.push(Process { spec, log, child: None });
            let last = cluster.processes.len() - 1;
            cluster.processes[last].spawn()?;
            cluster.processes[last].ready().await?;
        }
        Ok(cluster)
    }

    /// One server with an embedded store in `folder`, without models, with the plugins of `plugins`.
    ///
    /// # Errors
    /// No free port.
    pub fn embedded(formwork: &Path, plugins: &Path, folder: &Path) -> anyhow::Result<ClusterFile> {
        // A fixed one, so that clients find it again; free a moment ago.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.join("formwork.toml");
        let text = format!(
            "store = \"sqlite:{}\"\nmodels = []\n\
             [http]\nlisten = \"{address}\"\n\
             [plugins]\nfolder = \"{}\"\n\
             [log]\nfilter = \"warn\"\n\
             # A task that was hit five times is dead by default: here the kills are not the tasks' fault.\n\
             [pools]\nmax_crashes = 1000000\n",
            folder.join("formwork.db").display(),
            plugins.display(),
        );
        std::fs::write(&config, text)?;
        let command = [
            formwork.display().to_string(),
            "serve".into(),
            "--config".into(),
            config.display().to_string(),
        ];
        Ok(ClusterFile {
            endpoints: vec![format!("http://{address}")],
            // An embedded store takes the tasks of its dead predecessor back when it starts; this is the lease.
            orphan_ms: 40_000,
            process: vec![ProcessSpec {
                name: "server".into(),
                command: command.into(),
                environment: BTreeMap::new(),
                ready: format!("http://{address}/readyz"),
                weight: 1,
            }],
        })
    }

    /// One of the processes that may be killed, by weight.
    pub(crate) fn choose(&self, random: u32) -> anyhow::Result<usize> {
        let total: u32 = self.processes.iter().map(|process| process.spec.weight).sum();
        anyhow::ensure!(total > 0, "no process of the cluster may be killed");
        let mut left = random % total;
        for (index, process) in self.processes.iter().enumerate() {
            match left.checked_sub(process.spec.weight) {
                Some(rest) => left = rest,
                None => return Ok(index),
            }
        }
        anyhow::bail!("no process was chosen")
    }

    /// A process's name.
    pub(crate) fn name(&self, index: usize) -> &str {
        &self.processes[index].spec.name
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        let process = &mut self.processes[index];
        let child = process.child.as_mut().context("a process that was not started")?;
        if let Some(status) = child.try_wait()? {
            anyhow::bail!(
                "{} had ended by itself with {status}, see {}",
                process.spec.name,
                process.log.display()
            );
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again and waits until it is ready.
    pub(crate) async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        self.processes[index].spawn()?;
        self.processes[index].ready().await
    }
}

impl Process {
    fn spawn(&mut self) -> anyhow::Result<()> {
        let (program, arguments) = self.spec.command.split_first().context("a process without a command")?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(&self.spec.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let client = reqwest::Client::new();
        loop {
            let up = if self.spec.ready.starts_with("http") {
                let answer = client.get(&self.spec.ready).timeout(START_PATIENCE).send().await;
                answer.is_ok_and(|response| response.status().is_success())
            } else {
                tokio::net::TcpStream::connect(&self.spec.ready).await.is_ok()
            };
            if up {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            anyhow::ensure!(
                ended.is_none() && began.elapsed() < START_PATIENCE,
                "{} did not become ready, see {}",
                self.spec.name,
                self.log.display()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

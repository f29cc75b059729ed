//! The cluster under test: processes that may be killed, and where clients find it.
//!
//! One server on an embedded store is [`Cluster::embedded`], several nodes on servers of their own [`Cluster::many_nodes`];
//! anything else is described by a file: the campaign itself knows commands and addresses, not roles.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use formwork_test_servers::{free_port, mongodb_command, redis_command};
use serde::Deserialize;

/// How often a starting process is asked whether it is ready.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Longest start of a process.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The lease of tasks in [`Cluster::many_nodes`].
const LEASE_MS: u64 = 3_000;

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

/// A database server as a process of the cluster.
fn server(name: &str, command: &Command, port: u16) -> anyhow::Result<ProcessSpec> {
    let text = |part: &OsStr| part.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let mut environment = BTreeMap::new();
    for (key, value) in command.get_envs() {
        environment.insert(text(key)?, text(value.unwrap_or_default())?);
    }
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    Ok(ProcessSpec {
        name: name.to_owned(),
        command: parts.map(text).collect::<anyhow::Result<_>>()?,
        environment,
        ready: format!("127.0.0.1:{port}"),
        weight: 1,
    })
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
    /// The configuration cannot be written.
    pub fn embedded(formwork: &Path, plugins: &Path, folder: &Path) -> anyhow::Result<ClusterFile> {
        // A fixed one, so that clients find it again; free a moment ago.
        let address = format!("127.0.0.1:{}", free_port());
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

    /// Four nodes on a Redis and a MongoDB-protocol server of their own, all of which may be killed: two that serve the API,
    /// one of which also validates, and two that work.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn many_nodes(formwork: &Path, plugins: &Path, folder: &Path) -> anyhow::Result<ClusterFile> {
        let (redis, mongodb) = (free_port(), free_port());
        let config = folder.join("formwork.toml");
        let text = format!(
            "store = \"mongodb://127.0.0.1:{mongodb}/campaign?directConnection=true\"\n\
             redis = \"redis://127.0.0.1:{redis}\"\nmodels = []\n\
             [plugins]\nfolder = \"{}\"\n\
             [log]\nfilter = \"warn\"\n\
             # Short, so that what a kill ended is soon another's.\n\
             [pools]\nmax_crashes = 1000000\nlease_ms = {LEASE_MS}\nheartbeat_ms = 500\n",
            plugins.display(),
        );
        std::fs::write(&config, text)?;
        let mut process = vec![
            server("redis", &redis_command(redis, folder), redis)?,
            server("mongodb", &mongodb_command(mongodb, &folder.join("mongodb")), mongodb)?,
        ];
        let mut endpoints = Vec::new();
        for (name, roles) in [
            ("api-1", "api"),
            ("api-2", "api,high"),
            ("worker-1", "high,default"),
            ("worker-2", "high,default"),
        ] {
            let address = format!("127.0.0.1:{}", free_port());
            let mut command = vec![formwork.display().to_string(), "serve".to_owned()];
            command.extend(["--config".to_owned(), config.display().to_string()]);
            command.extend(["--roles", roles, "--listen", &address].map(str::to_owned));
            if name.starts_with("api") {
                endpoints.push(format!("http://{address}"));
            }
            process.push(ProcessSpec {
                name: name.to_owned(),
                command,
                environment: BTreeMap::new(),
                ready: format!("http://{address}/readyz"),
                weight: 1,
            });
        }
        Ok(ClusterFile {
            endpoints,
            orphan_ms: 2 * LEASE_MS,
            process,
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
            // The log may be gone with its folder when somebody reads this.
            let log = std::fs::read_to_string(&process.log).unwrap_or_default();
            anyhow::bail!(
                "{} had ended by itself with {status}, see {}; its last words: {}",
                process.spec.name,
                process.log.display(),
                log.lines().next_back().unwrap_or_default()
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

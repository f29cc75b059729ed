//! The programs that are measured beside this one: started, asked, and stopped with this one.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::Options;
use crate::report::Figures;

/// How long a server may take until it answers: compiling a guest takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const START_PAUSE: Duration = Duration::from_millis(50);

/// The id under which the form is published.
const FORM_ID: &str = "bench";

/// A child that does not outlive its handle.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port nobody listens on. Somebody else may take it before the server does, which then says so.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn wait_for(port: u16, child: &mut Guard) -> anyhow::Result<()> {
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Some(status) = child.0.try_wait()? {
            anyhow::bail!("the server ended before it listened: {status}");
        }
        anyhow::ensure!(began.elapsed() < START_TIMEOUT, "the server did not listen in time");
        std::thread::sleep(START_PAUSE);
    }
    Ok(())
}

/// `formwork serve` as it comes, with a store of its own and the bench form published.
pub struct FormworkServe {
    port: u16,
    _child: Guard,
}

impl FormworkServe {
    pub fn start(program: &Path, work: &Path, scratch: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        // `wasmtime serve` writes no line for each request either.
        let config = "[log]\nfilter = \"error\"\n";
        std::fs::write(scratch.join("formwork.toml"), config)?;
        let child = Command::new(program)
            .args([
                "serve",
                "--config",
                "formwork.toml",
                "--listen",
                &format!("127.0.0.1:{port}"),
            ])
            .current_dir(scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut child = Guard(child);
        wait_for(port, &mut child)?;
        let form = work.join("form.json").canonicalize()?;
        let published = Command::new(program)
            .args([
                "--server",
                &format!("http://127.0.0.1:{port}"),
                "form",
                "apply",
                "--id",
                FORM_ID,
            ])
            .arg(form)
            .stdout(Stdio::null())
            .status()?;
        anyhow::ensure!(published.success(), "the bench form was not published: {published}");
        Ok(Self { port, _child: child })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/forms/{FORM_ID}/validate", self.port)
    }
}

/// `wasmtime serve` of one component.
pub struct WasmtimeServe {
    port: u16,
    _child: Guard,
}

impl WasmtimeServe {
    pub fn start(program: &Path, component: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let child = Command::new(program)
            .arg("serve")
            .args(flags)
            .args(["--addr", &format!("127.0.0.1:{port}")])
            .arg(component)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut child = Guard(child);
        wait_for(port, &mut child)?;
        Ok(Self { port, _child: child })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

/// `formwork bench engine --lockstep`: runs a round when it is told to.
pub struct Lockstep {
    child: Guard,
    rounds: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    addresses: Value,
}

impl Lockstep {
    pub fn start(program: &Path, slice_ms: u64, scratch: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["bench", "engine", "--lockstep", "--slice-ms", &slice_ms.to_string()])
            .current_dir(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let (rounds, lines) = (child.stdin.take(), child.stdout.take());
        let mut lockstep = Self {
            child: Guard(child),
            rounds: rounds.context("no standard input")?,
            lines: BufReader::new(lines.context("no standard output")?).lines(),
            addresses: Value::Null,
        };
        lockstep.addresses = lockstep.line()?;
        Ok(lockstep)
    }

    /// Where one of its servers is.
    pub fn address(&self, name: &str) -> anyhow::Result<String> {
        let address = self.addresses[name].as_str();
        Ok(address.with_context(|| format!("no server `{name}`"))?.to_owned())
    }

    /// A round, by row.
    pub fn round(&mut self) -> anyhow::Result<Vec<(String, Figures)>> {
        self.rounds.write_all(b"\n")?;
        let round = self.line()?;
        let rows = round["rows"].as_object().context("a round without rows")?;
        rows.iter()
            .map(|(name, figures)| Ok((name.clone(), serde_json::from_value(figures.clone())?)))
            .collect()
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        match self.lines.next() {
            Some(line) => Ok(serde_json::from_str(&line?)?),
            None => anyhow::bail!("`formwork bench engine` ended: {}", self.child.0.wait()?),
        }
    }
}

/// Sends requests to a server for a while, by the client of Formwork's own HTTP rows.
pub fn load(options: &Options, url: &str) -> anyhow::Result<Figures> {
    let output = Command::new(&options.formwork)
        .args(["--json", "bench", "load", "--expect", "\"valid\":true", "--url", url])
        .args(["--connections", &options.connections.to_string()])
        .args(["--time-ms", &options.http_ms.to_string()])
        .arg("--body")
        .arg(options.work.join("submission.json"))
        .stderr(Stdio::inherit())
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "`formwork bench load` failed: {}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What ran, for the report.
pub fn versions(options: &Options) -> anyhow::Result<Vec<String>> {
    let mut versions = vec![format!("Extism {}", extism::extism_version().trim_end_matches('\0'))];
    for program in [&options.formwork, &options.wasmtime] {
        let output = Command::new(program).arg("--version").output()?;
        versions.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Ok(versions)
}

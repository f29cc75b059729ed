//! The other end of a [`super::worker`]: starts it, asks it, keeps what it says.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use serde_json::Value;

use super::worker::{Generation, Route, Work};

/// A process with one model.
pub(super) struct Driver {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(super) model: String,
    pub(super) threads: usize,
    /// What the worker said of its model when it was loaded.
    pub(super) loaded: Value,
}

/// A generation to ask for; greedy.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub(super) system: String,
    pub(super) prompt: String,
    pub(super) max_tokens: u32,
    pub(super) schema: Option<String>,
    pub(super) temperature: f32,
    pub(super) seed: u64,
}

impl Driver {
    pub(super) fn start(config: Option<&Path>, model: &str, threads: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["model", "bench", "--worker", model, "--threads", &threads.to_string()]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("the worker has no output")?);
        let mut driver = Self {
            process,
            input,
            output,
            model: model.to_owned(),
            threads,
            loaded: Value::Null,
        };
        let mut ready = driver.hear()?;
        driver.loaded = ready["models"][0].take();
        Ok(driver)
    }

    /// Milliseconds of each call.
    pub(super) fn embed(&mut self, route: Route, calls: Vec<Vec<String>>) -> anyhow::Result<Vec<f64>> {
        let answer = self.ask(&Work::Embed {
            route,
            model: self.model.clone(),
            calls,
            vectors: false,
        })?;
        Ok(serde_json::from_value(answer["ms"].clone())?)
    }

    pub(super) fn generate(&mut self, route: Route, ask: Ask) -> anyhow::Result<Generation> {
        let answer = self.ask(&Work::Generate {
            route,
            model: self.model.clone(),
            system: ask.system,
            prompt: ask.prompt,
            max_tokens: ask.max_tokens,
            schema: ask.schema,
            temperature: ask.temperature,
            seed: ask.seed,
        })?;
        Ok(serde_json::from_value(answer)?)
    }

    pub(super) fn resident_bytes(&mut self) -> anyhow::Result<f64> {
        let answer = self.ask(&Work::Memory)?;
        answer["resident_bytes"].as_f64().context("no memory")
    }

    fn ask(&mut self, work: &Work) -> anyhow::Result<Value> {
        let mut line = serde_json::to_vec(work)?;
        line.push(b'\n');
        let input = self.input.as_mut().context("the worker has no input")?;
        input.write_all(&line).context("the worker ended")?;
        self.hear()
    }

    fn hear(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        anyhow::ensure!(
            self.output.read_line(&mut line)? > 0,
            "the worker of model `{}` ended; it says why above",
            self.model
        );
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.input.take());
        if let Err(error) = self.process.wait() {
            tracing::warn!(%error, "a worker of the bench cannot be waited for");
        }
    }
}

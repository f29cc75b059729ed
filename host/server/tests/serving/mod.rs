//! `formwork serve` as a process of its own.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod partition;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A server on a free port; killed when it is dropped.
pub(crate) struct Serving {
    process: Child,
    pub(crate) url: String,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Serving {
    /// Starts it with its store in `folder`; ready when its log says where it serves.
    pub(crate) fn start(folder: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_under(&[], folder, environment)
    }

    /// The same as the last argument of a program that runs programs.
    pub(crate) fn start_under(wrapper: &[&str], folder: &Path, environment: &[(&str, &str)]) -> Self {
        let store = format!("sqlite:{}", folder.join("formwork.db").display());
        let mut program = wrapper.to_vec();
        program.push(env!("CARGO_BIN_EXE_formwork"));
        let mut process = Command::new(program[0])
            .args(&program[1..])
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("FORMWORK_STORE", store)
            .env("FORMWORK_LOG", "info")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let url = loop {
            let line = lines.next().expect("the server ended before it served").unwrap();
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = event["address"].as_str() {
                break format!("http://{address}");
            }
        };
        let kept = Arc::clone(&log);
        // The pipe must not fill up.
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            process,
            url,
            log,
            reader: Some(reader),
        }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.process.wait().unwrap()
    }

    /// Stops it where it is (`SIGSTOP`): it keeps its connections and does nothing.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on (`SIGCONT`).
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(self.process.id().try_into().unwrap());
        kill(process, signal).unwrap();
    }

    /// Waits until it has ended by itself; how, and what it logged since it served.
    pub(crate) fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.process.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        (status, log)
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Already dead is as good.
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

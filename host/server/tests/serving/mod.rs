//! `formwork serve` as a process of its own.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod partition;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A server on a free port; killed when it is dropped.
pub(crate) struct Serving {
    process: Child,
    pub(crate) url: String,
}

impl Serving {
    /// Starts it with its store in `folder`; ready when its log says where it serves.
    pub(crate) fn start(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let store = format!("sqlite:{}", folder.join("formwork.db").display());
        let mut process = Command::new(env!("CARGO_BIN_EXE_formwork"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("FORMWORK_STORE", store)
            .env("FORMWORK_LOG", "info")
            .envs(environment.iter().copied())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the server ended before it served").unwrap();
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = event["address"].as_str() {
                break format!("http://{address}");
            }
        };
        // The pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url }
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        let process = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap()
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

//! The adapter's side of the contract in `tests/peers/queues`: lines that say when a phase begins and ends, and a file
//! of what ran when.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::job::Start;
use crate::cli::output::print;

/// Says nothing without a folder.
pub(crate) struct Events<'a> {
    folder: Option<&'a Path>,
}

impl<'a> Events<'a> {
    pub(crate) fn new(folder: Option<&'a Path>) -> Self {
        Self { folder }
    }

    pub(crate) fn begin(&mut self, phase: &str) -> anyhow::Result<()> {
        if self.folder.is_some() {
            print(&json!({ "event": "begin", "phase": phase }).to_string())?;
        }
        Ok(())
    }

    /// `runs` are those of the phase.
    pub(crate) fn end(&mut self, phase: &str, counted: &Value, runs: &[Start]) -> anyhow::Result<()> {
        let Some(folder) = self.folder else {
            return Ok(());
        };
        let mut event = counted.clone();
        event["event"] = json!("end");
        event["phase"] = json!(phase);
        print(&event.to_string())?;
        if runs.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for run in runs {
            let _ = writeln!(lines, "{} {} {}", run.number, run.sent_us, run.started_us);
        }
        // Overwritten by the next phase: those who look count one phase.
        let file = folder.join("formwork.runs");
        std::fs::write(&file, lines).with_context(|| format!("writing {}", file.display()))
    }
}

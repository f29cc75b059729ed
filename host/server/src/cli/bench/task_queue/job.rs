//! The job of the bench, and the runner that notes when each one started.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use formwork_scheduler::{RunContext, RunOutcome, TaskRunner};
use formwork_store::{Claimed, PluginRef, Provenance, TaskResult};
use formwork_tasks::Verdict;
use serde::{Deserialize, Serialize};

use crate::runner::StepRunner;

/// A job's document: which it is and when it was sent, padded to the size that was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    number: u64,
    sent_us: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    padding: String,
}

impl Job {
    /// The document of job `number`, sent at `sent_us` of the system's clock, as JSON text of about `bytes` bytes.
    pub(crate) fn document(number: u64, sent_us: u64, bytes: usize) -> String {
        let head = format!(r#"{{"number":{number},"sent_us":{sent_us},"padding":""#);
        let padding = bytes.saturating_sub(head.len() + 2);
        format!("{head}{}\"}}", "x".repeat(padding))
    }
}

/// Microseconds of the system's clock.
pub(crate) fn now_us() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}

/// One start of a job, in microseconds of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) number: u64,
    pub(crate) sent_us: u64,
    pub(crate) started_us: u64,
}

/// All starts so far; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts(Arc<Mutex<Vec<Start>>>);

impl Starts {
    /// What was noted since the last call.
    pub(crate) fn take(&self) -> Vec<Start> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Notes the start of each job, then does nothing, or what the product does.
pub(crate) struct BenchRunner {
    pub(crate) starts: Starts,
    pub(crate) product: Option<StepRunner>,
}

#[async_trait]
impl TaskRunner for BenchRunner {
    async fn run(&self, task: Claimed, context: RunContext) -> RunOutcome {
        let started_us = now_us();
        let job: Job = match serde_json::from_str(&task.data) {
            Ok(job) => job,
            Err(error) => {
                return RunOutcome::Failed {
                    code: "not-a-job".into(),
                    message: error.to_string(),
                    retryable: false,
                    retry_after: None,
                    provenance: None,
                    cpu_ms: None,
                };
            }
        };
        let start = Start {
            number: job.number,
            sent_us: job.sent_us,
            started_us,
        };
        self.starts.0.lock().unwrap_or_else(PoisonError::into_inner).push(start);
        match &self.product {
            Some(runner) => runner.run(task, context).await,
            None => RunOutcome::Done(no_op_result()),
        }
    }
}

fn no_op_result() -> TaskResult {
    TaskResult {
        output: "{}".into(),
        verdict: Verdict::Accepted,
        provenance: Provenance {
            plugin: PluginRef {
                name: "none".into(),
                version: "1.0.0".into(),
                digest: format!("sha256:{}", "0".repeat(64)),
            },
            models: Vec::new(),
        },
        cpu_ms: 0.0,
        export: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_size_and_is_a_job() {
        let document = Job::document(7, 1_700_000_000_000_000, 256);
        assert_eq!(document.len(), 256);
        let job: Job = serde_json::from_str(&document).unwrap();
        assert_eq!((job.number, job.sent_us), (7, 1_700_000_000_000_000));
    }
}

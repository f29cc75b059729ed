//! One submission, its JSON parsed when first asked for.

use std::cell::OnceCell;

use formwork_plugin::{Error, StepResult, Submission};
use serde_json::Value;

pub(crate) struct Record {
    submission: Submission,
    data: OnceCell<Value>,
    results: OnceCell<Vec<(String, Value)>>,
}

impl Record {
    pub(crate) fn new(submission: Submission) -> Self {
        Self {
            submission,
            data: OnceCell::new(),
            results: OnceCell::new(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.submission.id
    }

    pub(crate) fn submitted_at(&self) -> &str {
        &self.submission.submitted_at
    }

    /// The data as it was sent.
    pub(crate) fn data_text(&self) -> &str {
        &self.submission.data
    }

    /// The earlier steps' outputs as they were recorded.
    pub(crate) fn result_texts(&self) -> &[StepResult] {
        &self.submission.results
    }

    /// The data.
    pub(crate) fn data(&self) -> Result<&Value, Error> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let data = serde_json::from_str(&self.submission.data).map_err(|error| not_json(&error))?;
        Ok(self.data.get_or_init(|| data))
    }

    /// The output of a step, or `None` when it has not run.
    pub(crate) fn result(&self, step: &str) -> Result<Option<&Value>, Error> {
        if self.results.get().is_none() {
            let mut parsed = Vec::with_capacity(self.submission.results.len());
            for result in &self.submission.results {
                let output = serde_json::from_str(&result.output).map_err(|error| {
                    Error::Internal(format!("the output of step `{}` is not JSON: {error}", result.step))
                })?;
                parsed.push((result.step.clone(), output));
            }
            self.results.get_or_init(|| parsed);
        }
        let mut results = self.results.get().into_iter().flatten();
        Ok(results.find(|(name, _)| name == step).map(|(_, output)| output))
    }
}

/// The error of data that does not parse.
pub(crate) fn not_json(error: &serde_json::Error) -> Error {
    Error::input("", "json", format!("is not JSON: {error}"))
}

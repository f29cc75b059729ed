//! What a task does: finds its form version, runs its step in a sandbox, and puts the outcome into the queue's words.

use std::sync::Arc;

use async_trait::async_trait;
use formwork_engine::{CallContext, CallError, Priority, ProgressSink, ProgressUpdate, SubmissionInput};
use formwork_pipeline::{Catalog, StepReport};
use formwork_scheduler::{ProgressReporter, RunContext, RunOutcome, StepRules, TaskRunner};
use formwork_store::{Claimed, ExportChunk, ModelRef, NewProgress, PluginRef, Provenance, TaskResult};
use formwork_tasks::{Pool, Verdict};
use tracing::Instrument;

use crate::clock::rfc3339;
use crate::forms::{Forms, FormsError};
use crate::plugin_library::PluginLibrary;
use crate::pool_cpu;

/// Runs the steps of published forms.
pub struct StepRunner {
    forms: Forms,
    catalog: Catalog,
    library: PluginLibrary,
}

impl StepRunner {
    /// A runner of these forms with these plugins, and those that are pushed meanwhile.
    #[must_use]
    pub fn new(forms: Forms, catalog: Catalog, library: PluginLibrary) -> Self {
        Self {
            forms,
            catalog,
            library,
        }
    }
}

#[async_trait]
impl TaskRunner for StepRunner {
    async fn run(&self, task: Claimed, context: RunContext) -> RunOutcome {
        let span = tracing::info_span!(
            "task",
            task = %task.id,
            step = task.step,
            form = task.form,
            form_version = task.form_version,
            correlation_id = task.correlation_id,
            attempt = task.attempt,
        );
        self.step(task, context).instrument(span).await
    }

    async fn rules(&self, task: &Claimed) -> StepRules {
        // A form that cannot be had has no rules; the run itself says why.
        let Ok(Some(pipeline)) = self.forms.get(&task.form, Some(task.form_version)).await else {
            return StepRules::default();
        };
        let mut steps = pipeline.definition().pipeline.iter();
        let step = steps.find(|step| step.name == task.step);
        step.map_or_else(StepRules::default, |step| StepRules {
            retry: step.retry.clone(),
            limits: step.limits,
        })
    }
}

impl StepRunner {
    async fn step(&self, task: Claimed, context: RunContext) -> RunOutcome {
        let pipeline = match self.forms.get(&task.form, Some(task.form_version)).await {
            Ok(Some(pipeline)) => pipeline,
            Ok(None) => {
                return failed(
                    "unknown-form",
                    format!("unknown form: {} version {}", task.form, task.form_version),
                    false,
                );
            }
            Err(error @ FormsError::Broken { .. }) => return failed("invalid-definition", error.to_string(), false),
            Err(error) => return failed("store", error.to_string(), true),
        };
        let submission = SubmissionInput {
            id: task.id.submission.to_string(),
            submitted_at: rfc3339(task.submitted_at),
            data: task.data,
            results: task
                .outputs
                .into_iter()
                .map(|output| (output.step, output.output))
                .collect(),
        };
        let call = CallContext {
            cancel: context.cancel,
            deadline: Some(context.deadline),
            soft_deadline: Some(context.soft_deadline),
            priority: inference_priority(context.pool),
            owner: context.pool.to_string(),
            budget: Some(pool_cpu::of(context.budget)),
            form: Some(task.form.as_str().into()),
            correlation_id: task.correlation_id,
            progress: Some(progress_sink(context.progress)),
        };
        // Another node may have published a form with a plugin that is not here yet.
        if !pipeline.has_plugins(&self.catalog, &task.step)
            && let Err(error) = self.library.look().await
        {
            return failed("store", error.to_string(), true);
        }
        outcome(pipeline.run_step(&self.catalog, &task.step, &submission, call).await)
    }
}

/// Whose inference goes first where pools want one model.
pub(crate) fn inference_priority(pool: Pool) -> Priority {
    match pool {
        Pool::High => Priority::High,
        Pool::Default => Priority::Normal,
        Pool::Batched => Priority::Low,
    }
}

/// The plugin's units as a fraction; a total of nothing says nothing about how far it is.
fn progress_sink(reporter: ProgressReporter) -> ProgressSink {
    Arc::new(move |update: ProgressUpdate| {
        #[expect(clippy::cast_precision_loss, reason = "a fraction for people")]
        let fraction = (update.total > 0).then(|| (update.done as f64 / update.total as f64).min(1.0));
        reporter.report(NewProgress {
            fraction,
            message: update.message,
        });
    })
}

fn outcome(step: StepReport) -> RunOutcome {
    let message = step.message().unwrap_or_default();
    let StepReport { plugin, report, .. } = step;
    let plugin = plugin.map(|plugin| PluginRef {
        name: plugin.name,
        version: plugin.version,
        digest: plugin.digest,
    });
    let cpu_ms = report.usage.cpu.as_secs_f64() * 1e3;
    let models = report.models.into_iter().map(|model| ModelRef {
        name: model.name,
        version: model.version,
        sha256: model.sha256,
    });
    let provenance = plugin.map(|plugin| Provenance {
        plugin,
        models: models.collect(),
    });
    match (report.result, provenance) {
        (Ok(output), Some(provenance)) => {
            tracing::info!(
                cpu_ms,
                rejected = output.rejected,
                plugin = provenance.plugin.name,
                "step done"
            );
            RunOutcome::Done(TaskResult {
                output: output.json.to_string(),
                verdict: if output.rejected {
                    Verdict::Rejected
                } else {
                    Verdict::Accepted
                },
                provenance,
                cpu_ms,
                export: output.export.map(|bytes| ExportChunk { bytes }),
            })
        }
        (Ok(_), None) => failed("host", "a result without a plugin".into(), false),
        (Err(CallError::Cancelled), _) => RunOutcome::Cancelled,
        (Err(error), provenance) => {
            tracing::warn!(error = message, code = error.code(), cpu_ms, "step failed");
            RunOutcome::Failed {
                code: error.code().to_owned(),
                message,
                retryable: error.retryable(),
                retry_after: None,
                provenance,
                cpu_ms: Some(cpu_ms),
            }
        }
    }
}

fn failed(code: &str, message: String, retryable: bool) -> RunOutcome {
    tracing::warn!(code, message, "step did not start");
    RunOutcome::Failed {
        code: code.to_owned(),
        message,
        retryable,
        retry_after: None,
        provenance: None,
        cpu_ms: None,
    }
}

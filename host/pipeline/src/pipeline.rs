//! One published form version, ready to run.

use std::sync::Arc;

use formwork_engine::{
    CallContext, CallError, FormInput, Frame, Grant, Kind, ModelId, Output, Plugin, Report, Setup, SnapshotStatus,
    SubmissionInput, Usage,
};
use formwork_tasks::{Assessment, Plan, Pool, Progress, State, Step, SubmissionStatus, Verdict};
use serde::Serialize;

use crate::{Catalog, DefinitionError, FormDefinition, Problem, StepDefinition, UnknownPlugin};

/// Which plugin ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginIdentity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The digest of its file.
    pub digest: String,
}

impl PluginIdentity {
    fn of(plugin: &Plugin) -> Self {
        Self {
            name: plugin.manifest().name.clone(),
            version: plugin.manifest().version.to_string(),
            digest: plugin.digest().to_string(),
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// The plugin, unless none fits the step's reference.
    pub plugin: Option<PluginIdentity>,
    /// Its answer, what it took, and the models that answered.
    pub report: Report<Output>,
}

/// A step of a pipeline that ran from end to end.
#[derive(Debug, Clone)]
pub struct StepRun {
    /// The step's name.
    pub step: String,
    /// How it ended.
    pub report: StepReport,
}

/// How a whole pipeline ended.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// `done`, `rejected` or `failed`.
    pub status: SubmissionStatus,
    /// The steps that ran, in the order they ran.
    pub steps: Vec<StepRun>,
}

/// A submission on its way through [`Pipeline::run_all`].
struct Run {
    submission: SubmissionInput,
    progress: Vec<Option<Progress>>,
    /// The step that is next, unless the run has ended.
    next: Option<usize>,
    report: RunReport,
}

impl Run {
    fn new(submission: SubmissionInput, plan: &Plan, steps: usize) -> Self {
        let mut run = Self {
            submission,
            progress: vec![None; steps],
            next: None,
            report: RunReport {
                status: SubmissionStatus::Processing,
                steps: Vec::new(),
            },
        };
        run.assess(plan);
        run
    }

    fn assess(&mut self, plan: &Plan) {
        let Assessment { status, ready, .. } = plan.assess(&self.progress);
        self.report.status = status;
        self.next = ready.first().copied();
    }

    fn step_ended(&mut self, plan: &Plan, step: usize, name: &str, report: StepReport) {
        let (state, verdict) = match &report.report.result {
            Ok(output) => {
                self.submission.results.push((name.to_owned(), output.json.to_string()));
                let verdict = if output.rejected {
                    Verdict::Rejected
                } else {
                    Verdict::Accepted
                };
                (State::Completed, Some(verdict))
            }
            Err(_) => (State::Dead, None),
        };
        self.progress[step] = Some(Progress { state, verdict });
        self.report.steps.push(StepRun {
            step: name.to_owned(),
            report,
        });
        self.assess(plan);
    }
}

/// One published form version, ready to run.
#[derive(Debug, Clone)]
pub struct Pipeline {
    definition: Arc<FormDefinition>,
    id: String,
    version: u32,
    /// What `prepare` gets, one a step.
    setups: Vec<Setup>,
}

impl Pipeline {
    /// Makes a form version ready.
    pub fn new(id: &str, version: u32, definition: Arc<FormDefinition>) -> Self {
        let form = FormInput {
            id: id.to_owned(),
            version,
            schema: definition.schema.to_string(),
            schemas: definition
                .schemas
                .iter()
                .map(|(uri, schema)| (uri.clone(), schema.to_string()))
                .collect(),
        };
        Self {
            id: id.to_owned(),
            version,
            setups: definition
                .pipeline
                .iter()
                .map(|step| Setup::new(form.clone(), step.settings.to_string()))
                .collect(),
            definition,
        }
    }

    /// The form's definition.
    pub fn definition(&self) -> &FormDefinition {
        &self.definition
    }

    /// The form's version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The steps as tasks: the pool of each follows from its plugin unless the definition names one.
    ///
    /// # Errors
    /// Unknown plugins and a pipeline that cannot be ordered, each with its place.
    pub fn steps(&self, catalog: &Catalog) -> Result<Vec<Step>, DefinitionError> {
        let mut problems = Vec::new();
        let mut steps = Vec::new();
        for (index, definition) in self.definition.pipeline.iter().enumerate() {
            let pool = match (definition.pool, catalog.resolve(&definition.plugin)) {
                (_, Ok(plugin)) if definition.batch.is_some() && !takes_batches(&plugin) => {
                    problems.push(Problem::new(
                        format!("/pipeline/{index}/batch"),
                        "batch",
                        format!(
                            "a {} has no batches, validators and exporters have",
                            plugin.manifest().kind
                        ),
                    ));
                    continue;
                }
                (Some(pool), Ok(_)) => pool,
                (None, Ok(plugin)) => pool_of(&plugin),
                (_, Err(error)) => {
                    problems.push(Problem::new(
                        format!("/pipeline/{index}/plugin"),
                        "unknown-plugin",
                        error.to_string(),
                    ));
                    continue;
                }
            };
            steps.push(step(definition, pool));
        }
        DefinitionError::unless_empty(problems)?;
        self.plan(&steps)?;
        Ok(steps)
    }

    /// Runs `prepare` of every step in the sandbox: do schema and settings fit?
    ///
    /// # Errors
    /// Every problem found, with pointers into the definition, such as `/pipeline/1/settings/labels/0`.
    pub async fn check(&self, catalog: &Catalog, context: &CallContext) -> Result<(), DefinitionError> {
        self.steps(catalog)?;
        let mut problems: Vec<Problem> = Vec::new();
        for (index, definition) in self.definition.pipeline.iter().enumerate() {
            let report = match catalog.resolve(&definition.plugin) {
                Ok(plugin) => plugin.prepare(&self.setups[index], context.clone()).await,
                // It was there a moment ago, in `steps`.
                Err(_) => continue,
            };
            if let Err(error) = report.result {
                for problem in place(index, definition, &error) {
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
        DefinitionError::unless_empty(problems)
    }

    /// Runs one step on one submission, in a fresh sandbox.
    pub async fn run_step(
        &self,
        catalog: &Catalog,
        step: &str,
        submission: &SubmissionInput,
        context: CallContext,
    ) -> StepReport {
        match self.step(catalog, step) {
            Ok((index, plugin)) => {
                let report = plugin.work(&self.setups[index], submission, context).await;
                StepReport {
                    plugin: Some(PluginIdentity::of(&plugin)),
                    report,
                }
            }
            Err(error) => StepReport {
                plugin: None,
                report: failed(error),
            },
        }
    }

    /// Runs one step on several submissions: in batches where the form allows it, else each in a sandbox of its own.
    /// One report a submission, in their order.
    pub async fn run_step_on_many(
        &self,
        catalog: &Catalog,
        step: &str,
        submissions: &[SubmissionInput],
        context: &CallContext,
    ) -> Vec<StepReport> {
        let (index, plugin) = match self.step(catalog, step) {
            Ok(found) => found,
            Err(error) => {
                let report = || StepReport {
                    plugin: None,
                    report: failed(error.clone()),
                };
                return submissions.iter().map(|_| report()).collect();
            }
        };
        let setup = &self.setups[index];
        let identity = PluginIdentity::of(&plugin);
        let mut reports = Vec::with_capacity(submissions.len());
        match self.definition.pipeline[index].batch {
            Some(batch) if batch > 1 && submissions.len() > 1 => {
                for batch in submissions.chunks(batch as usize) {
                    reports.extend(plugin.work_batch(setup, batch, context).await);
                }
            }
            _ => {
                for submission in submissions {
                    reports.push(plugin.work(setup, submission, context.clone()).await);
                }
            }
        }
        let step_report = |report| StepReport {
            plugin: Some(identity.clone()),
            report,
        };
        reports.into_iter().map(step_report).collect()
    }

    /// The largest batch a step of this form allows.
    pub fn largest_batch(&self) -> usize {
        let batches = self.definition.pipeline.iter().filter_map(|step| step.batch);
        batches.max().unwrap_or(1) as usize
    }

    /// Asks for the snapshots of all steps, so that they are there before the first submission. Nobody waits for them.
    pub fn request_snapshots(&self, catalog: &Catalog) {
        for (definition, setup) in self.definition.pipeline.iter().zip(&self.setups) {
            if let Ok(plugin) = catalog.resolve(&definition.plugin) {
                plugin.request_snapshot(setup);
            }
        }
    }

    /// How far each step's snapshot is: (step, status).
    pub fn snapshots<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = (&'a str, SnapshotStatus)> + 'a {
        let steps = self.definition.pipeline.iter().zip(&self.setups);
        steps.filter_map(|(definition, setup)| {
            let plugin = catalog.resolve(&definition.plugin).ok()?;
            Some((definition.name.as_str(), plugin.snapshot_status(setup)))
        })
    }

    /// What stands before the first or after the last record of an exporter's step.
    pub async fn export_frame(
        &self,
        catalog: &Catalog,
        step: &str,
        frame: Frame,
        context: CallContext,
    ) -> Result<Vec<u8>, CallError> {
        let (index, plugin) = self.step(catalog, step)?;
        plugin.export_frame(&self.setups[index], frame, context).await.result
    }

    /// Runs every step in order on each submission, without a store: what `formwork run` and the demo do. A step that
    /// fails ends its submission's run. One report a submission, in their order.
    ///
    /// `only` restricts it to steps it answers `true` for; the others count as not there.
    pub async fn run_all(
        &self,
        catalog: &Catalog,
        submissions: &[SubmissionInput],
        context: &CallContext,
        only: impl Fn(&StepDefinition) -> bool,
    ) -> Vec<RunReport> {
        let wanted: Vec<_> = self.definition.pipeline.iter().filter(|step| only(step)).collect();
        let names: Vec<&str> = wanted.iter().map(|step| step.name.as_str()).collect();
        let order: Vec<Step> = wanted
            .iter()
            .map(|definition| {
                let mut step = step(definition, Pool::default());
                if let Some(after) = &mut step.after {
                    after.retain(|name| names.contains(&name.as_str()));
                }
                step
            })
            .collect();
        let Ok(plan) = Plan::try_new(order) else {
            let unplanned = |_: &SubmissionInput| RunReport {
                status: SubmissionStatus::Failed,
                steps: Vec::new(),
            };
            return submissions.iter().map(unplanned).collect();
        };
        let new = |submission: &SubmissionInput| Run::new(submission.clone(), &plan, names.len());
        let mut runs: Vec<Run> = submissions.iter().map(new).collect();
        // The step that is first in the pipeline runs on every submission that waits for it.
        while let Some(next) = runs.iter().filter_map(|run| run.next).min() {
            let (waiting, inputs): (Vec<usize>, Vec<SubmissionInput>) = (0..)
                .zip(&runs)
                .filter(|(_, run)| run.next == Some(next))
                .map(|(index, run)| (index, run.submission.clone()))
                .unzip();
            let reports = self.run_step_on_many(catalog, names[next], &inputs, context).await;
            for (index, report) in waiting.into_iter().zip(reports) {
                runs[index].step_ended(&plan, next, names[next], report);
            }
        }
        runs.into_iter().map(|run| run.report).collect()
    }

    /// Whether everything a step needs is installed here.
    pub fn has_plugins(&self, catalog: &Catalog, step: &str) -> bool {
        let mut steps = self.definition.pipeline.iter();
        steps
            .find(|definition| definition.name == step)
            .is_none_or(|definition| catalog.resolve(&definition.plugin).is_ok())
    }

    /// Whether a step's plugin is of a kind.
    pub fn is_kind(&self, catalog: &Catalog, step: &StepDefinition, kind: Kind) -> bool {
        catalog
            .resolve(&step.plugin)
            .is_ok_and(|plugin| plugin.manifest().kind == kind)
    }

    fn step(&self, catalog: &Catalog, name: &str) -> Result<(usize, Arc<Plugin>), CallError> {
        let (index, definition) = self
            .definition
            .pipeline
            .iter()
            .enumerate()
            .find(|(_, step)| step.name == name)
            .ok_or_else(|| CallError::Host(format!("form {} has no step `{name}`", self.id)))?;
        let plugin = catalog
            .resolve(&definition.plugin)
            .map_err(|error: UnknownPlugin| CallError::Host(error.to_string()))?;
        Ok((index, plugin))
    }

    fn plan(&self, steps: &[Step]) -> Result<Plan, DefinitionError> {
        Plan::try_new(steps.to_vec()).map_err(|error| {
            DefinitionError::one(Problem::new(error.pointer().to_owned(), "pipeline", error.to_string()))
        })
    }
}

fn step(definition: &StepDefinition, pool: Pool) -> Step {
    Step {
        name: definition.name.clone(),
        pool,
        priority: Default::default(),
        after: definition.after.clone(),
        on_reject: definition.on_reject,
    }
}

fn takes_batches(plugin: &Plugin) -> bool {
    matches!(plugin.manifest().kind, Kind::Validator | Kind::Exporter)
}

/// Somebody waits for a validation; a model takes its time; the rest is in between.
fn pool_of(plugin: &Plugin) -> Pool {
    let manifest = plugin.manifest();
    let infers = [Grant::Embeddings, Grant::Generation, Grant::Tensors];
    if manifest.kind == Kind::Validator {
        Pool::High
    } else if infers.iter().any(|grant| manifest.grants.contains_key(grant)) {
        Pool::Batched
    } else {
        Pool::Default
    }
}

fn failed(error: CallError) -> Report<Output> {
    Report {
        result: Err(error),
        usage: Usage::default(),
        models: Vec::<ModelId>::new(),
    }
}

/// A plugin's error as problems of the definition.
fn place(index: usize, definition: &StepDefinition, error: &CallError) -> Vec<Problem> {
    let here = format!("/pipeline/{index}");
    if let CallError::Plugin(plugin) = error {
        let base = match plugin.case {
            "invalid-settings" => format!("{here}/settings"),
            "invalid-form" => "/schema".to_owned(),
            _ => String::new(),
        };
        if !base.is_empty() && !plugin.problems.is_empty() {
            return plugin
                .problems
                .iter()
                .map(|problem| {
                    let pointer = format!("{base}{}", problem.pointer);
                    Problem::new(pointer, &problem.code, problem.message.clone())
                })
                .collect();
        }
    }
    let message = format!("plugin `{}` did not accept the form: {error}", definition.plugin);
    vec![Problem::new(here, error.code(), message)]
}

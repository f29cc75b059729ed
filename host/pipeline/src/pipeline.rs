//! One published form version, ready to run.

use std::sync::Arc;

use formwork_engine::{
    CallContext, CallError, FormInput, Frame, Grant, Kind, ModelId, Output, Plugin, Report, Setup, SnapshotStatus,
    SubmissionInput, Usage,
};
use formwork_tasks::{Assessment, Plan, Pool, Progress, State, Step, SubmissionStatus, Verdict};
use serde::Serialize;

use crate::definition::Rung;
use crate::fallback::{self, Fallback, Refused};
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
    /// Its answer, what it took, and the models that answered. With a fallback chain: what all rungs took.
    pub report: Report<Output>,
    /// The rungs of the step's fallback chain that were asked before, or that all failed.
    pub refused: Vec<Refused>,
}

impl StepReport {
    fn plain(plugin: Option<&Plugin>, report: Report<Output>) -> Self {
        Self {
            plugin: plugin.map(PluginIdentity::of),
            report,
            refused: Vec::new(),
        }
    }

    /// What went wrong, for people: the error, and with a fallback chain that of every rung.
    pub fn message(&self) -> Option<String> {
        let error = self.report.result.as_ref().err()?;
        if self.refused.len() < 2 {
            return Some(error.to_string());
        }
        let rungs: Vec<String> = self.refused.iter().map(ToString::to_string).collect();
        Some(format!("no rung of the fallback chain answered: {}", rungs.join("; ")))
    }
}

/// A rung and what its `prepare` gets.
#[derive(Debug, Clone)]
struct Prepared {
    rung: Rung,
    setup: Setup,
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
    /// By step: its own plugin, then those of its fallback chain.
    rungs: Vec<Vec<Prepared>>,
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
            rungs: (0..)
                .zip(&definition.pipeline)
                .map(|(index, step)| {
                    let rungs = step.rungs(index).into_iter();
                    let prepared = |rung: Rung| Prepared {
                        setup: Setup::new(form.clone(), rung.settings.to_string()),
                        rung,
                    };
                    rungs.map(prepared).collect()
                })
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
        for (definition, rungs) in self.definition.pipeline.iter().zip(&self.rungs) {
            let mut pools = Vec::new();
            let mut kind = None;
            for Prepared { rung, .. } in rungs {
                match catalog.resolve(&rung.plugin) {
                    Ok(plugin) => {
                        let found = plugin.manifest().kind;
                        problems.extend(misfit(definition, rung, found, *kind.get_or_insert(found)));
                        pools.push(pool_of(&plugin));
                    }
                    Err(error) => problems.push(Problem::new(
                        format!("{}/plugin", rung.pointer),
                        "unknown-plugin",
                        error.to_string(),
                    )),
                }
            }
            // One rung that infers makes the step one for the pool of inference.
            let fits = pools.iter().find(|pool| **pool == Pool::Batched).or(pools.first());
            steps.push(step(definition, definition.pool.or(fits.copied()).unwrap_or_default()));
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
        for Prepared { rung, setup } in self.rungs.iter().flatten() {
            let report = match catalog.resolve(&rung.plugin) {
                Ok(plugin) => plugin.prepare(setup, context.clone()).await,
                // It was there a moment ago, in `steps`.
                Err(_) => continue,
            };
            if let Err(error) = report.result {
                for problem in place(rung, &error) {
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
        match self.index(step) {
            Ok(index) => self.answer(catalog, index, submission, &context).await,
            Err(error) => StepReport::plain(None, failed(error)),
        }
    }

    /// One answer of a step: its plugin's, or that of the first rung that has one.
    async fn answer(
        &self,
        catalog: &Catalog,
        index: usize,
        submission: &SubmissionInput,
        context: &CallContext,
    ) -> StepReport {
        if self.definition.pipeline[index].has_chain() {
            return self.climb_down(catalog, index, submission, context).await;
        }
        match self.plugin(catalog, index) {
            Ok(plugin) => {
                let setup = &self.rungs[index][0].setup;
                let report = plugin.work(setup, submission, context.clone()).await;
                StepReport::plain(Some(&plugin), report)
            }
            Err(error) => StepReport::plain(None, failed(error)),
        }
    }

    /// Asks one rung after another until one has an answer that stands.
    async fn climb_down(
        &self,
        catalog: &Catalog,
        index: usize,
        submission: &SubmissionInput,
        context: &CallContext,
    ) -> StepReport {
        let definition = &self.definition.pipeline[index];
        let rungs = &self.rungs[index];
        let until = fallback::until(context.deadline);
        let mut refused: Vec<Refused> = Vec::new();
        let mut usage = Usage::default();
        // The surest of the answers that are not sure enough.
        let mut suggestion: Option<(f64, StepReport)> = None;
        for (number, Prepared { rung, setup }) in rungs.iter().enumerate() {
            let leads_here = |above: &Refused| definition.fallback[number - 1].takes(above.reason);
            if !refused.last().is_none_or(leads_here) {
                continue;
            }
            let context = CallContext {
                deadline: fallback::deadline(until, rung.timeout, number + 1 == rungs.len()),
                ..context.clone()
            };
            let plugin = catalog.resolve(&rung.plugin);
            let mut report = match &plugin {
                Ok(plugin) => plugin.work(setup, submission, context).await,
                Err(error) => failed(CallError::Host(error.to_string())),
            };
            add(&mut usage, &report.usage);
            let plugin = plugin.ok();
            let kind = plugin.as_ref().map(|plugin| plugin.manifest().kind);
            let identity = plugin.as_deref().map(PluginIdentity::of);
            let why = fallback::refusal(number, identity, kind, rung.min_confidence, &report);
            let Some(why) = why else {
                if let (Ok(output), Some(kind)) = (&mut report.result, kind) {
                    fallback::answered(output, number, kind, &refused);
                }
                report.usage = usage;
                return StepReport {
                    refused,
                    ..StepReport::plain(plugin.as_deref(), report)
                };
            };
            tracing::info!(
                step = definition.name,
                rung = number,
                reason = why.reason.as_str(),
                message = why.message,
                "rung refused"
            );
            if let Some(confidence) = why.confidence
                && suggestion.as_ref().is_none_or(|(best, _)| confidence > *best)
            {
                suggestion = Some((confidence, StepReport::plain(plugin.as_deref(), report)));
            }
            refused.push(why);
        }
        self.unanswered(index, refused, suggestion.map(|(_, report)| report), usage)
    }

    /// No rung has an answer that stands: a person must look, or the step has failed.
    fn unanswered(
        &self,
        index: usize,
        refused: Vec<Refused>,
        suggestion: Option<StepReport>,
        usage: Usage,
    ) -> StepReport {
        let review = matches!(
            self.definition.pipeline[index].fallback.last(),
            Some(Fallback::NeedsReview)
        );
        let asked = refused.iter().find_map(|rung| rung.plugin.clone());
        let mut report = suggestion.unwrap_or_else(|| StepReport {
            plugin: asked.clone(),
            ..StepReport::plain(None, failed(error_of(&refused)))
        });
        report.report.usage = usage;
        report.report.result = if review && report.plugin.is_some() {
            let suggestion = report.report.result.ok().map(|output| output.json);
            Ok(fallback::needs_review(self.rungs[index].len(), &refused, suggestion))
        } else {
            Err(error_of(&refused))
        };
        report.refused = refused;
        report
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
        let all_failed = |error: CallError| {
            let report = |_| StepReport::plain(None, failed(error.clone()));
            submissions.iter().map(report).collect()
        };
        let index = match self.index(step) {
            Ok(index) => index,
            Err(error) => return all_failed(error),
        };
        let mut reports = Vec::with_capacity(submissions.len());
        match self.definition.pipeline[index].batch {
            Some(batch) if batch > 1 && submissions.len() > 1 => {
                let plugin = match self.plugin(catalog, index) {
                    Ok(plugin) => plugin,
                    Err(error) => return all_failed(error),
                };
                let setup = &self.rungs[index][0].setup;
                for batch in submissions.chunks(batch as usize) {
                    let answers = plugin.work_batch(setup, batch, context).await;
                    reports.extend(
                        answers
                            .into_iter()
                            .map(|report| StepReport::plain(Some(&plugin), report)),
                    );
                }
            }
            _ => {
                for submission in submissions {
                    reports.push(self.answer(catalog, index, submission, context).await);
                }
            }
        }
        reports
    }

    /// The largest batch a step of this form allows.
    pub fn largest_batch(&self) -> usize {
        let batches = self.definition.pipeline.iter().filter_map(|step| step.batch);
        batches.max().unwrap_or(1) as usize
    }

    /// Asks for the snapshots of all steps, so that they are there before the first submission. Nobody waits for them.
    pub fn request_snapshots(&self, catalog: &Catalog) {
        for Prepared { rung, setup } in self.rungs.iter().flatten() {
            if let Ok(plugin) = catalog.resolve(&rung.plugin) {
                plugin.request_snapshot(setup);
            }
        }
    }

    /// How far each step's snapshot is: (step, rung of its fallback chain, status); 0 is the step's own plugin.
    pub fn snapshots<'a>(
        &'a self,
        catalog: &'a Catalog,
    ) -> impl Iterator<Item = (&'a str, usize, SnapshotStatus)> + 'a {
        let steps = self.definition.pipeline.iter().zip(&self.rungs);
        steps.flat_map(|(definition, rungs)| {
            rungs
                .iter()
                .enumerate()
                .filter_map(|(number, Prepared { rung, setup })| {
                    let plugin = catalog.resolve(&rung.plugin).ok()?;
                    Some((definition.name.as_str(), number, plugin.snapshot_status(setup)))
                })
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
        let index = self.index(step)?;
        let plugin = self.plugin(catalog, index)?;
        let setup = &self.rungs[index][0].setup;
        plugin.export_frame(setup, frame, context).await.result
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
        let steps = self.definition.pipeline.iter().enumerate();
        let mut rungs = steps
            .filter(|(_, definition)| definition.name == step)
            .flat_map(|(index, definition)| definition.rungs(index));
        rungs.all(|rung| catalog.resolve(&rung.plugin).is_ok())
    }

    /// Whether a step's plugin is of a kind.
    pub fn is_kind(&self, catalog: &Catalog, step: &StepDefinition, kind: Kind) -> bool {
        catalog
            .resolve(&step.plugin)
            .is_ok_and(|plugin| plugin.manifest().kind == kind)
    }

    fn index(&self, name: &str) -> Result<usize, CallError> {
        let mut steps = self.definition.pipeline.iter();
        steps
            .position(|step| step.name == name)
            .ok_or_else(|| CallError::Host(format!("form {} has no step `{name}`", self.id)))
    }

    /// A step's own plugin.
    fn plugin(&self, catalog: &Catalog, index: usize) -> Result<Arc<Plugin>, CallError> {
        catalog
            .resolve(&self.definition.pipeline[index].plugin)
            .map_err(|error: UnknownPlugin| CallError::Host(error.to_string()))
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
        inference_error: None,
    }
}

/// What of a step's definition its plugin's kind does not go with.
fn misfit(definition: &StepDefinition, rung: &Rung, kind: Kind, steps_kind: Kind) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |at: &str, code: &str, message: String| {
        problems.push(Problem::new(format!("{}{at}", rung.pointer), code, message));
    };
    if kind != steps_kind {
        let message = format!("is a {kind}, the step's own plugin a {steps_kind}: all rungs must be of one kind");
        wrong("/plugin", "fallback-kind", message);
    }
    if definition.batch.is_some() && !matches!(kind, Kind::Validator | Kind::Exporter) {
        let message = format!("a {kind} has no batches, validators and exporters have");
        wrong("/batch", "batch", message);
    }
    if !matches!(kind, Kind::Classifier | Kind::Extractor) {
        let message = format!("a {kind} has no other way to its answer, classifiers and extractors have");
        if !definition.fallback.is_empty() {
            wrong("/fallback", "fallback-kind", message);
        }
        if definition.min_confidence.is_some() {
            wrong(
                "/min_confidence",
                "min-confidence",
                format!("a {kind} has no confidence"),
            );
        }
    }
    problems
}

/// What a chain without an answer failed of: what may be gone when it is tried again, else what the last rung said.
fn error_of(refused: &[Refused]) -> CallError {
    let mut errors = refused.iter().map(|rung| &rung.error);
    let retryable = errors.clone().find(|error| error.retryable());
    let error = retryable.or_else(|| errors.next_back());
    error
        .cloned()
        .unwrap_or_else(|| CallError::Host("no rung was asked".into()))
}

/// What several calls took together.
fn add(sum: &mut Usage, one: &Usage) {
    sum.cpu += one.cpu;
    sum.wall += one.wall;
    sum.memory_bytes = sum.memory_bytes.max(one.memory_bytes);
    sum.host_calls += one.host_calls;
    sum.host_call_bytes += one.host_call_bytes;
    sum.output_bytes += one.output_bytes;
    sum.log_bytes += one.log_bytes;
    sum.handles = sum.handles.max(one.handles);
}

/// A plugin's error as problems of the definition.
fn place(rung: &Rung, error: &CallError) -> Vec<Problem> {
    if let CallError::Plugin(plugin) = error {
        let at: Option<fn(&Rung, &str) -> String> = match plugin.case {
            "invalid-settings" => Some(Rung::settings_pointer),
            "invalid-form" => Some(|_, pointer| format!("/schema{pointer}")),
            _ => None,
        };
        if let Some(at) = at.filter(|_| !plugin.problems.is_empty()) {
            let problems = plugin.problems.iter();
            return problems
                .map(|problem| Problem::new(at(rung, &problem.pointer), &problem.code, problem.message.clone()))
                .collect();
        }
    }
    let message = format!("plugin `{}` did not accept the form: {error}", rung.plugin);
    vec![Problem::new(rung.pointer.clone(), error.code(), message)]
}

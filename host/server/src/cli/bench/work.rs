//! The work of the benches, and the product that does it: one plugin, no models, a store that is thrown away.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use formwork_engine::{CallContext, FormInput, Setup, SubmissionInput, manifest_name};
use formwork_pipeline::{FormDefinition, Pipeline, PluginReference};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Shared;
use crate::cli::exit::Failure;
use crate::cli::read_input;
use crate::config::Config;

/// Form of 30 fields.
const FORM: &str = include_str!("../../../bench/form.json");

/// A submission of about 1 kB that is valid.
const SUBMISSION: &str = include_str!("../../../bench/submission.json");

/// The id under which the form is published.
pub(crate) const FORM_ID: &str = "bench";

/// Bounds of patterns in native Rust, as `plugins/validate` sets them: they change which engine the patterns run in.
const BACKTRACK_STEPS: usize = 100_000;
const PATTERN_BYTES: usize = 1 << 20;

/// A form, a submission that its first step accepts, and that step.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The form's definition.
    pub(crate) form: String,
    /// The submission's data.
    pub(crate) submission: String,
    /// The first step's name.
    pub(crate) step: String,
    /// The first step's plugin.
    pub(crate) plugin: String,
    definition: Arc<FormDefinition>,
}

impl Work {
    /// The form of 30 fields.
    pub(crate) fn standard() -> anyhow::Result<Self> {
        Self::new(FORM.into(), SUBMISSION.into())
    }

    fn of(options: &Shared) -> Result<Self, Failure> {
        let text = |file: &Option<std::path::PathBuf>, standard: &str| match file {
            None => Ok(standard.to_owned()),
            Some(file) => String::from_utf8(read_input(file)?)
                .map_err(|_| Failure::Usage(format!("{} is not UTF-8", file.display()))),
        };
        let (form, submission) = (text(&options.form, FORM)?, text(&options.submission, SUBMISSION)?);
        Self::new(form, submission).map_err(|error| Failure::Usage(format!("{error:#}")))
    }

    fn new(form: String, submission: String) -> anyhow::Result<Self> {
        let definition = FormDefinition::parse(form.as_bytes()).context("the form is not valid")?;
        let step = definition.pipeline.first().context("the form has no step")?;
        Ok(Self {
            step: step.name.clone(),
            plugin: step.plugin.clone(),
            definition: Arc::new(definition),
            form,
            submission,
        })
    }

    /// What `prepare` of the step gets. Versions have setups of their own, and so snapshots of their own.
    pub(crate) fn setup(&self, version: u32) -> anyhow::Result<Setup> {
        let schemas = self.definition.schemas.iter();
        let form = FormInput {
            id: FORM_ID.into(),
            version,
            schema: self.definition.schema.to_string(),
            schemas: schemas.map(|(uri, schema)| (uri.clone(), schema.to_string())).collect(),
        };
        let step = self.definition.pipeline.first().context("the form has no step")?;
        Ok(Setup::new(form, step.settings.to_string()))
    }

    pub(crate) fn pipeline(&self, version: u32) -> Arc<Pipeline> {
        Arc::new(Pipeline::new(FORM_ID, version, Arc::clone(&self.definition)))
    }

    /// The submission as a plugin sees it.
    pub(crate) fn input(&self) -> SubmissionInput {
        SubmissionInput {
            id: ulid::Ulid::generate().to_string(),
            submitted_at: crate::clock::rfc3339(crate::clock::now()),
            data: self.submission.clone(),
            results: Vec::new(),
        }
    }

    /// The same schema in this program: same library, same features, compiled once.
    pub(crate) fn native_validator(&self) -> anyhow::Result<jsonschema::Validator> {
        jsonschema::options()
            .should_validate_formats(true)
            .with_pattern_options(
                jsonschema::PatternOptions::fancy_regex()
                    .backtrack_limit(BACKTRACK_STEPS)
                    .size_limit(PATTERN_BYTES),
            )
            .build(&self.definition.schema)
            .map_err(|error| anyhow::anyhow!("compiling the bench schema: {error}"))
    }
}

pub(crate) fn call_context() -> CallContext {
    CallContext {
        owner: "bench".into(),
        ..CallContext::default()
    }
}

/// Work, and a configuration for it with the folder that holds its store and its only plugin.
pub(crate) struct Scratch {
    pub(crate) work: Work,
    pub(crate) config: Config,
    // Removed when this is dropped.
    _folder: TempDir,
}

/// What most benches begin with: see [`scratch`]; logging, and a runtime like the server's.
pub(crate) fn scratch_and_runtime(options: &Shared) -> Result<(Scratch, Runtime), Failure> {
    let scratch = scratch(options)?;
    crate::logging::start_for_tools(&scratch.config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(scratch.config.http.threads)
        .enable_all()
        .build()?;
    Ok((scratch, runtime))
}

/// The operator's configuration, but with a store and a port of its own, nothing logged per request, no models, and of
/// the plugins only the first step's: what starts in a moment and does not disturb the measurement.
pub(crate) fn scratch(options: &Shared) -> Result<Scratch, Failure> {
    let work = Work::of(options)?;
    let mut config = crate::cli::load_config(options.config.as_deref())
        .map_err(|error| Failure::Usage(error.to_string()))?
        .config;
    // Beside the caller's files: a store in a memory file system would make fsync free.
    let folder = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
    config.embed(&folder.path().join("bench.db"));
    config.http.listen.set_port(0);
    config.http.token.clear();
    config.log.filter = "warn".into();
    config.models.clear();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins)?;
    copy_plugin(&work.plugin, &config.plugins.folder, &plugins)?;
    config.plugins.folder = plugins;
    Ok(Scratch {
        work,
        config,
        _folder: folder,
    })
}

fn copy_plugin(reference: &str, from: &Path, to: &Path) -> anyhow::Result<()> {
    let wanted: PluginReference = reference.parse().map_err(anyhow::Error::msg)?;
    let found = std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    let mut copied = false;
    for entry in found {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let component = std::fs::read(&path)?;
        if let (Ok(name), Some(file)) = (manifest_name(&component), path.file_name())
            && name == wanted.name
        {
            std::fs::write(to.join(file), component)?;
            copied = true;
        }
    }
    anyhow::ensure!(
        copied,
        "no plugin `{}` in {}: `make build` puts Formwork's own there",
        wanted.name,
        from.display()
    );
    Ok(())
}

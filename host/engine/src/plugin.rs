//! An installed plugin and its calls.

use std::sync::Arc;

use formwork_bindings::v1::classifier::ClassifierPre;
use formwork_bindings::v1::exporter::ExporterPre;
use formwork_bindings::v1::extractor::ExtractorPre;
use formwork_bindings::v1::host::sinks::Sink;
use formwork_bindings::v1::types as wit;
use formwork_bindings::v1::validator::ValidatorPre;
use formwork_inference::Inference;
use formwork_manifest::{Digest, Manifest};
use serde_json::{Value, json};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Resource};

use crate::call::{drive, store};
use crate::host::SinkBuffer;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::output::BoundedOutput;
use crate::state::State;
use crate::{CallContext, CallError, Frame, Kind, Output, Report, Setup, SubmissionInput, convert, metrics};

/// A component ready to instantiate, typed by its world.
pub(crate) enum World {
    Validator(ValidatorPre<State>),
    Classifier(ClassifierPre<State>),
    Extractor(ExtractorPre<State>),
    Exporter(ExporterPre<State>),
}

impl World {
    /// Checks that the component has its kind's exports.
    pub(crate) fn new(kind: Kind, component: InstancePre<State>) -> wasmtime::Result<Self> {
        Ok(match kind {
            Kind::Validator => Self::Validator(ValidatorPre::new(component)?),
            Kind::Classifier => Self::Classifier(ClassifierPre::new(component)?),
            Kind::Extractor => Self::Extractor(ExtractorPre::new(component)?),
            Kind::Exporter => Self::Exporter(ExporterPre::new(component)?),
        })
    }
}

/// What a call does after `prepare`.
#[derive(Clone, Copy)]
enum Work<'a> {
    Prepare,
    Submission(&'a SubmissionInput),
    Frame(Frame),
}

/// An installed plugin version. It holds no state of any submission.
pub struct Plugin {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) inference: Inference,
    pub(crate) manifest: Manifest,
    pub(crate) name: Arc<str>,
    pub(crate) digest: Digest,
    pub(crate) size: usize,
    pub(crate) limits: Limits,
    pub(crate) world: World,
}

impl Plugin {
    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its address.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes of its file.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What each of its calls may use: what its manifest asks, capped by the operator.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Runs `prepare` alone: do the settings and the form's schema fit?
    ///
    /// The answer's errors carry pointers into the settings or the schema.
    pub async fn prepare(&self, setup: &Setup, context: CallContext) -> Report<()> {
        let report = self.call(setup, Work::Prepare, context).await;
        Report {
            result: report.result.map(|_| ()),
            usage: report.usage,
            models: report.models,
        }
    }

    /// Runs `prepare` and the work function in a fresh instance.
    pub async fn work(&self, setup: &Setup, submission: &SubmissionInput, context: CallContext) -> Report<Output> {
        self.call(setup, Work::Submission(submission), context).await
    }

    /// What an exporter writes before the first or after the last record.
    pub async fn export_frame(&self, setup: &Setup, frame: Frame, context: CallContext) -> Report<Vec<u8>> {
        let report = self.call(setup, Work::Frame(frame), context).await;
        let result = report.result.map(|output| output.export.unwrap_or_default());
        Report {
            result,
            usage: report.usage,
            models: report.models,
        }
    }

    async fn call(&self, setup: &Setup, work: Work<'_>, context: CallContext) -> Report<Output> {
        let meter = Meter::new(self.limits.clone());
        let stdio = BoundedOutput::default();
        let state = State::new(
            Arc::clone(&meter),
            self.inference.clone(),
            Arc::clone(&self.name),
            &context,
            &stdio,
        );
        let store = store(&self.engine, state, context.deadline);
        let work = self.run(store, setup, work, &meter);
        let report = drive(&meter, &context, &stdio, work).await;
        self.observe(&report);
        report
    }

    async fn run(
        &self,
        mut store: Store<State>,
        setup: &Setup,
        work: Work<'_>,
        meter: &Meter,
    ) -> wasmtime::Result<Result<Output, CallError>> {
        let form = convert::form(setup.form());
        let settings = setup.settings().to_owned();
        /// Instantiates, prepares, and gives imports free; evaluates to the instance.
        macro_rules! prepared {
            ($pre:expr) => {{
                let instance = $pre.instantiate_async(&mut store).await?;
                if let Err(error) = instance.call_prepare(&mut store, &form, &settings).await? {
                    return Ok(Err(convert::plugin_error(error)));
                }
                if matches!(work, Work::Prepare) {
                    return Ok(Ok(Output {
                        json: Value::Null,
                        rejected: false,
                        export: None,
                    }));
                }
                store.data_mut().imports_allowed = true;
                instance
            }};
        }
        let submission = match work {
            Work::Submission(submission) => Some(submission),
            Work::Prepare | Work::Frame(_) => None,
        };
        let typed = submission.map(convert::submission);
        let answer = match (&self.world, typed) {
            (World::Validator(pre), Some(typed)) => {
                let instance = prepared!(pre);
                let answer = instance
                    .formwork_plugin_validation()
                    .call_validate(&mut store, &typed)
                    .await?;
                answer.map_err(convert::plugin_error).and_then(convert::findings)
            }
            (World::Classifier(pre), Some(typed)) => {
                let instance = prepared!(pre);
                let answer = instance
                    .formwork_plugin_classifying()
                    .call_classify(&mut store, &typed)
                    .await?;
                answer
                    .map_err(convert::plugin_error)
                    .and_then(convert::classification)
                    .map(|json| (json, false))
            }
            (World::Extractor(pre), Some(typed)) => {
                let instance = prepared!(pre);
                let answer = instance
                    .formwork_plugin_extracting()
                    .call_extract(&mut store, &typed)
                    .await?;
                answer
                    .map_err(convert::plugin_error)
                    .and_then(|extraction| convert::extraction(extraction, &typed.data))
                    .map(|json| (json, false))
            }
            (World::Exporter(pre), typed) => {
                let instance = prepared!(pre);
                return self.export(store, &instance, typed, work).await;
            }
            (World::Validator(pre), None) => {
                prepared!(pre);
                return Ok(Err(not_an_exporter()));
            }
            (World::Classifier(pre), None) => {
                prepared!(pre);
                return Ok(Err(not_an_exporter()));
            }
            (World::Extractor(pre), None) => {
                prepared!(pre);
                return Ok(Err(not_an_exporter()));
            }
        };
        Ok(answer.and_then(|(json, rejected)| {
            meter.output(json.to_string().len())?;
            Ok(Output {
                json,
                rejected,
                export: None,
            })
        }))
    }

    async fn export(
        &self,
        mut store: Store<State>,
        instance: &formwork_bindings::v1::exporter::Exporter,
        submission: Option<wit::Submission>,
        work: Work<'_>,
    ) -> wasmtime::Result<Result<Output, CallError>> {
        let exporting = instance.formwork_plugin_exporting();
        let sink = store.data_mut().table.push(SinkBuffer::default())?;
        let lent = || Resource::<Sink>::new_own(sink.rep());
        let records = match (work, submission) {
            (Work::Frame(Frame::Begin), _) => exporting.call_begin(&mut store, lent()).await?.map(|()| 0),
            (Work::Frame(Frame::End), _) => exporting.call_end(&mut store, lent()).await?.map(|()| 0),
            (_, Some(submission)) => exporting.call_export(&mut store, &[submission], lent()).await?,
            (_, None) => Ok(0),
        };
        let bytes = store.data_mut().table.delete(sink)?.0;
        Ok(records.map_err(convert::plugin_error).map(|records| Output {
            json: json!({ "records": records, "bytes": bytes.len() }),
            rejected: false,
            export: Some(bytes),
        }))
    }

    fn observe(&self, report: &Report<Output>) {
        let outcome = report.result.as_ref().map_or_else(CallError::code, |_| "ok");
        if let Some(calls) = &*metrics::CALLS {
            calls.with_label_values(&[&*self.name, outcome]).inc();
        }
        if let Some(seconds) = &*metrics::CALL_SECONDS {
            seconds
                .with_label_values(&[&*self.name])
                .observe(report.usage.wall.as_secs_f64());
        }
        if let Some(cpu) = &*metrics::CPU_MICROSECONDS {
            let micros = u64::try_from(report.usage.cpu.as_micros()).unwrap_or(u64::MAX);
            cpu.with_label_values(&[&*self.name]).inc_by(micros);
        }
    }
}

fn not_an_exporter() -> CallError {
    CallError::Host("only an exporter has frames".into())
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("manifest", &self.manifest)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

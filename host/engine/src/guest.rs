//! A live instance of a plugin, by kind: preparing it and asking it for its work.

use formwork_bindings::v1::classifier::{Classifier, ClassifierPre};
use formwork_bindings::v1::exporter::{Exporter, ExporterPre};
use formwork_bindings::v1::extractor::{Extractor, ExtractorPre};
use formwork_bindings::v1::host::sinks::Sink;
use formwork_bindings::v1::types as wit;
use formwork_bindings::v1::validator::{Validator, ValidatorPre};
use serde_json::{Value, json};
use wasmtime::Store;
use wasmtime::component::{InstancePre, Resource};

use crate::host::SinkBuffer;
use crate::state::State;
use crate::{CallError, Frame, Kind, Output, Setup, SubmissionInput, convert};

/// A component ready to instantiate, typed by its kind.
pub(crate) enum World {
    Validator(ValidatorPre<State>),
    Classifier(ClassifierPre<State>),
    Extractor(ExtractorPre<State>),
    Exporter(ExporterPre<State>),
}

/// An instance of it.
pub(crate) enum Guest {
    Validator(Validator),
    Classifier(Classifier),
    Extractor(Extractor),
    Exporter(Exporter),
}

/// The guest's answer, or what ended the call: a trap or a fault (outer), a typed error (inner).
pub(crate) type Answer<T> = wasmtime::Result<Result<T, CallError>>;

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

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        Ok(match self {
            Self::Validator(pre) => Guest::Validator(pre.instantiate_async(store).await?),
            Self::Classifier(pre) => Guest::Classifier(pre.instantiate_async(store).await?),
            Self::Extractor(pre) => Guest::Extractor(pre.instantiate_async(store).await?),
            Self::Exporter(pre) => Guest::Exporter(pre.instantiate_async(store).await?),
        })
    }
}

impl Guest {
    /// Runs `prepare`.
    pub(crate) async fn prepare(&self, store: &mut Store<State>, setup: &Setup) -> Answer<()> {
        let (form, settings) = (convert::form(setup.form()), setup.settings());
        let answer = match self {
            Self::Validator(guest) => guest.call_prepare(store, &form, settings).await?,
            Self::Classifier(guest) => guest.call_prepare(store, &form, settings).await?,
            Self::Extractor(guest) => guest.call_prepare(store, &form, settings).await?,
            Self::Exporter(guest) => guest.call_prepare(store, &form, settings).await?,
        };
        Ok(answer.map_err(convert::plugin_error))
    }

    /// Runs the work function on one submission; `prepare` is behind it.
    pub(crate) async fn work(&self, store: &mut Store<State>, submission: &SubmissionInput) -> Answer<Output> {
        store.data_mut().imports_allowed = true;
        let submission = convert::submission(submission);
        let answer = match self {
            Self::Validator(guest) => {
                let validation = guest.formwork_plugin_validation();
                let answer = validation.call_validate(&mut *store, &submission).await?;
                answer.map_err(convert::plugin_error).and_then(convert::findings)
            }
            Self::Classifier(guest) => {
                let classifying = guest.formwork_plugin_classifying();
                let answer = classifying.call_classify(&mut *store, &submission).await?;
                let json = answer.map_err(convert::plugin_error).and_then(convert::classification);
                json.map(|json| (json, false))
            }
            Self::Extractor(guest) => {
                let extracting = guest.formwork_plugin_extracting();
                let answer = extracting.call_extract(&mut *store, &submission).await?;
                let json = answer
                    .map_err(convert::plugin_error)
                    .and_then(|extraction| convert::extraction(extraction, &submission.data));
                json.map(|json| (json, false))
            }
            Self::Exporter(guest) => return export(guest, store, Part::Record(submission)).await,
        };
        Ok(answer.and_then(|(json, rejected)| {
            store.data().meter.output(written_length(&json))?;
            Ok(Output {
                json,
                rejected,
                export: None,
            })
        }))
    }

    /// Has an exporter write what stands before the first or after the last record.
    pub(crate) async fn frame(&self, store: &mut Store<State>, frame: Frame) -> Answer<Output> {
        store.data_mut().imports_allowed = true;
        match self {
            Self::Exporter(guest) => export(guest, store, Part::Frame(frame)).await,
            Self::Validator(_) | Self::Classifier(_) | Self::Extractor(_) => {
                Ok(Err(CallError::Host("only an exporter has frames".into())))
            }
        }
    }
}

enum Part {
    Frame(Frame),
    Record(wit::Submission),
}

/// Every call of an exporter has a sink of its own.
async fn export(guest: &Exporter, store: &mut Store<State>, part: Part) -> Answer<Output> {
    let exporting = guest.formwork_plugin_exporting();
    let sink = store.data_mut().open(SinkBuffer::default())?;
    let lent = Resource::<Sink>::new_own(sink.rep());
    let records = match part {
        Part::Frame(Frame::Begin) => exporting.call_begin(&mut *store, lent).await?.map(|()| 0),
        Part::Frame(Frame::End) => exporting.call_end(&mut *store, lent).await?.map(|()| 0),
        Part::Record(submission) => exporting.call_export(&mut *store, &[submission], lent).await?,
    };
    let bytes = store.data_mut().close(sink)?.0;
    Ok(records.map_err(convert::plugin_error).map(|records| Output {
        json: json!({ "records": records, "bytes": bytes.len() }),
        rejected: false,
        export: Some(bytes),
    }))
}

/// Length of a value as JSON text, without writing it down.
fn written_length(value: &Value) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Neither a value nor this writer can fail.
    let _written = serde_json::to_writer(&mut count, value);
    count.0
}

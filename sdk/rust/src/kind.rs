//! The four kinds: the trait an author implements and the macro that exports it.
//!
//! `prepare` leaves its value in a static of the plugin; the work function finds it there. A fresh instance or a
//! snapshot has its own memory, so the static is never shared between submissions.

use std::cell::OnceCell;

use crate::bindings::types::{Error, Form};
#[allow(unused_imports, reason = "each kind uses its own part")]
use crate::bindings::{
    host::sinks::Sink,
    types::{Classification, Extraction, Finding, Submission},
};

/// Holds what `prepare` made. Guests have one thread.
pub struct Prepared<T>(OnceCell<T>);

impl<T> Prepared<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// Keeps the first value.
    ///
    /// # Errors
    /// When `prepare` runs twice in one instance.
    pub fn set(&self, value: T) -> Result<(), Error> {
        self.0
            .set(value)
            .map_err(|_| Error::Internal("prepare was called twice".into()))
    }

    /// The value.
    ///
    /// # Errors
    /// When `prepare` has not run.
    pub fn get(&self) -> Result<&T, Error> {
        self.0
            .get()
            .ok_or_else(|| Error::Internal("prepare was not called".into()))
    }
}

impl<T> Default for Prepared<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides whether a submission is acceptable.
#[cfg(feature = "validator")]
pub trait Validator: Sized + 'static {
    /// Gets ready for one form version; may call no import.
    ///
    /// # Errors
    /// `invalid-settings`, `invalid-form`.
    fn prepare(form: Form, settings: String) -> Result<Self, Error>;

    /// Checks one submission; no finding of severity `error` means it is valid.
    ///
    /// # Errors
    /// When it cannot be checked at all.
    fn validate(&self, submission: Submission) -> Result<Vec<Finding>, Error>;
}

/// Gives a submission labels.
#[cfg(feature = "classifier")]
pub trait Classifier: Sized + 'static {
    /// Gets ready for one form version; may call no import.
    ///
    /// # Errors
    /// `invalid-settings`, `invalid-form`.
    fn prepare(form: Form, settings: String) -> Result<Self, Error>;

    /// Labels one submission.
    ///
    /// # Errors
    /// When it cannot be labelled now or at all.
    fn classify(&self, submission: Submission) -> Result<Classification, Error>;
}

/// Finds values in a submission's texts.
#[cfg(feature = "extractor")]
pub trait Extractor: Sized + 'static {
    /// Gets ready for one form version; may call no import.
    ///
    /// # Errors
    /// `invalid-settings`, `invalid-form`.
    fn prepare(form: Form, settings: String) -> Result<Self, Error>;

    /// Extracts the wanted fields.
    ///
    /// # Errors
    /// When it cannot be done now or at all.
    fn extract(&self, submission: Submission) -> Result<Extraction, Error>;
}

/// Writes submissions in a format for other programs.
#[cfg(feature = "exporter")]
pub trait Exporter: Sized + 'static {
    /// Gets ready for one form version; may call no import.
    ///
    /// # Errors
    /// `invalid-settings`, `invalid-form`.
    fn prepare(form: Form, settings: String) -> Result<Self, Error>;

    /// What stands before the first record.
    ///
    /// # Errors
    /// What the sink refused.
    fn begin(&self, sink: &Sink) -> Result<(), Error>;

    /// Appends submissions; answers the number of records.
    ///
    /// # Errors
    /// What the sink refused, or a submission that cannot be written.
    fn export(&self, submissions: Vec<Submission>, sink: &Sink) -> Result<u32, Error>;

    /// What stands after the last record.
    ///
    /// # Errors
    /// What the sink refused.
    fn end(&self, sink: &Sink) -> Result<(), Error>;
}

#[cfg(feature = "validator")]
pub use crate::bindings::validator;

#[cfg(feature = "classifier")]
pub use crate::bindings::classifier;

#[cfg(feature = "extractor")]
pub use crate::bindings::extractor;

#[cfg(feature = "exporter")]
pub use crate::bindings::exporter;

/// Exports a [`Validator`] as the component's functions.
#[cfg(feature = "validator")]
#[macro_export]
macro_rules! export_validator {
    ($plugin:ty) => {
        const _: () = {
            use $crate::private::validator as bindings;
            std::thread_local!(static STATE: $crate::private::Prepared<$plugin> = const { $crate::private::Prepared::new() });
            struct Component;
            impl bindings::Guest for Component {
                fn prepare(form: $crate::Form, settings: String) -> Result<(), $crate::Error> {
                    let plugin = <$plugin as $crate::Validator>::prepare(form, settings)?;
                    STATE.with(|state| state.set(plugin))
                }
            }
            impl bindings::exports::formwork::plugin::validation::Guest for Component {
                fn validate(submission: $crate::Submission) -> Result<Vec<$crate::Finding>, $crate::Error> {
                    STATE.with(|state| $crate::Validator::validate(state.get()?, submission))
                }
            }
            bindings::export!(Component with_types_in bindings);
        };
    };
}

/// Exports a [`Classifier`] as the component's functions.
#[cfg(feature = "classifier")]
#[macro_export]
macro_rules! export_classifier {
    ($plugin:ty) => {
        const _: () = {
            use $crate::private::classifier as bindings;
            std::thread_local!(static STATE: $crate::private::Prepared<$plugin> = const { $crate::private::Prepared::new() });
            struct Component;
            impl bindings::Guest for Component {
                fn prepare(form: $crate::Form, settings: String) -> Result<(), $crate::Error> {
                    let plugin = <$plugin as $crate::Classifier>::prepare(form, settings)?;
                    STATE.with(|state| state.set(plugin))
                }
            }
            impl bindings::exports::formwork::plugin::classifying::Guest for Component {
                fn classify(submission: $crate::Submission) -> Result<$crate::Classification, $crate::Error> {
                    STATE.with(|state| $crate::Classifier::classify(state.get()?, submission))
                }
            }
            bindings::export!(Component with_types_in bindings);
        };
    };
}

/// Exports an [`Extractor`] as the component's functions.
#[cfg(feature = "extractor")]
#[macro_export]
macro_rules! export_extractor {
    ($plugin:ty) => {
        const _: () = {
            use $crate::private::extractor as bindings;
            std::thread_local!(static STATE: $crate::private::Prepared<$plugin> = const { $crate::private::Prepared::new() });
            struct Component;
            impl bindings::Guest for Component {
                fn prepare(form: $crate::Form, settings: String) -> Result<(), $crate::Error> {
                    let plugin = <$plugin as $crate::Extractor>::prepare(form, settings)?;
                    STATE.with(|state| state.set(plugin))
                }
            }
            impl bindings::exports::formwork::plugin::extracting::Guest for Component {
                fn extract(submission: $crate::Submission) -> Result<$crate::Extraction, $crate::Error> {
                    STATE.with(|state| $crate::Extractor::extract(state.get()?, submission))
                }
            }
            bindings::export!(Component with_types_in bindings);
        };
    };
}

/// Exports an [`Exporter`] as the component's functions.
#[cfg(feature = "exporter")]
#[macro_export]
macro_rules! export_exporter {
    ($plugin:ty) => {
        const _: () = {
            use $crate::private::exporter as bindings;
            use $crate::host::sinks::Sink;
            std::thread_local!(static STATE: $crate::private::Prepared<$plugin> = const { $crate::private::Prepared::new() });
            struct Component;
            impl bindings::Guest for Component {
                fn prepare(form: $crate::Form, settings: String) -> Result<(), $crate::Error> {
                    let plugin = <$plugin as $crate::Exporter>::prepare(form, settings)?;
                    STATE.with(|state| state.set(plugin))
                }
            }
            impl bindings::exports::formwork::plugin::exporting::Guest for Component {
                fn begin(sink: &Sink) -> Result<(), $crate::Error> {
                    STATE.with(|state| $crate::Exporter::begin(state.get()?, sink))
                }
                fn export(submissions: Vec<$crate::Submission>, sink: &Sink) -> Result<u32, $crate::Error> {
                    STATE.with(|state| $crate::Exporter::export(state.get()?, submissions, sink))
                }
                fn end(sink: &Sink) -> Result<(), $crate::Error> {
                    STATE.with(|state| $crate::Exporter::end(state.get()?, sink))
                }
            }
            bindings::export!(Component with_types_in bindings);
        };
    };
}

//! What a Formwork plugin in Rust builds on.
//!
//! A plugin implements one of four traits and names the type in one macro call:
//!
//! ```ignore
//! use formwork_plugin::{Error, Finding, Form, Submission, Validator};
//!
//! struct NotEmpty;
//!
//! impl Validator for NotEmpty {
//!     fn prepare(_form: Form, _settings: String) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn validate(&self, submission: Submission) -> Result<Vec<Finding>, Error> {
//!         Ok(if submission.data == "{}" {
//!             vec![Finding::error("", "empty", "fill in at least one field")]
//!         } else {
//!             Vec::new()
//!         })
//!     }
//! }
//!
//! formwork_plugin::export_validator!(NotEmpty);
//! ```
//!
//! In `Cargo.toml`: `crate-type = ["cdylib"]` and this crate with the feature of the kind (`validator`, `classifier`,
//! `extractor`, `exporter`). `formwork plugin build` makes a component of it.
//!
//! `prepare` runs once for a form version and may call no import; the host may snapshot what it leaves in memory and
//! start every submission from that snapshot.

mod bindings;
mod convert;
mod embedding;
mod generate;
mod kind;
mod pointer;
mod settings;
mod text;

pub use bindings::host;
pub use bindings::types::{
    Classification, Error, Extraction, Field, Finding, Form, Label, Problem, Severity, Span, StepResult, Submission,
};
pub use embedding::{Embedding, embed};
pub use generate::{Generated, generate};
pub use pointer::{is_pointer, pointer_token};
pub use settings::parse_settings;
pub use text::{Text, texts_at};

#[cfg(feature = "classifier")]
pub use kind::Classifier;
#[cfg(feature = "exporter")]
pub use kind::Exporter;
#[cfg(feature = "extractor")]
pub use kind::Extractor;
#[cfg(feature = "validator")]
pub use kind::Validator;

#[doc(hidden)]
pub mod private {
    pub use crate::kind::*;
}

//! `validate`: checks a submission against the form's JSON Schema.
//!
//! **Problem.** A validator's raw errors name schema keywords; the person who filled in a form needs to know which field
//! is wrong and what would be right. **Promise.** Drafts 2020-12, 2019-09, 7, 6 and 4 as `$schema` says; every error is
//! one finding with its place, the keyword as a stable code and a message to act on; references reach only the form and
//! the schemas registered with it. **Cost.** `prepare` compiles the schema and its metaschema (about a millisecond);
//! a valid submission then takes microseconds. **Rejected.** An own validator: the required tests of five drafts are
//! thousands of cases that crate `jsonschema` already passes.

mod branches;
mod compile;
mod documents;
mod findings;
mod form_problems;
mod messages;
mod pattern_sample;
mod report;
mod settings;
mod warm_up;

use formwork_plugin::{Error, Finding, Form, Submission, Validator};
use serde_json::Value;

use crate::documents::Documents;
use crate::settings::Settings;

/// A compiled form.
struct Validate {
    validator: jsonschema::Validator,
    documents: Documents,
    max_findings: usize,
}

impl Validator for Validate {
    fn prepare(form: Form, settings: String) -> Result<Self, Error> {
        let settings = Settings::parse(&settings)?;
        let documents = Documents::parse(&form)?;
        let validator = compile::compile(&documents, settings.asserts_formats())?;
        warm_up::run(&validator, documents.root());
        Ok(Self {
            validator,
            documents,
            max_findings: settings.max_findings(),
        })
    }

    fn validate(&self, submission: Submission) -> Result<Vec<Finding>, Error> {
        let data: Value = serde_json::from_str(&submission.data)
            .map_err(|error| Error::input("", "json", format!("is not JSON: {error}")))?;
        if self.validator.is_valid(&data) {
            return Ok(Vec::new());
        }
        Ok(report::report(
            &self.validator,
            &self.documents,
            &data,
            self.max_findings,
        ))
    }
}

formwork_plugin::export_validator!(Validate);

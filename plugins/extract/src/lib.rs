//! Formwork's extractor.

use formwork_plugin::{Error, Extraction, Extractor, Form, Submission};

struct Extract;

impl Extractor for Extract {
    fn prepare(_form: Form, _settings: String) -> Result<Self, Error> {
        Ok(Self)
    }

    fn extract(&self, _submission: Submission) -> Result<Extraction, Error> {
        Ok(Extraction { fields: Vec::new(), missing: Vec::new(), details: Vec::new() })
    }
}

formwork_plugin::export_extractor!(Extract);

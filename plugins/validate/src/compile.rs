//! From the form's documents to a compiled validator.

use std::sync::Arc;

use formwork_plugin::Error;
use jsonschema::{Draft, PatternOptions, Registry, Retrieve, Uri, Validator};
use serde_json::Value;

use crate::documents::{Documents, without_fragment};
use crate::form_problems;

/// Steps a regular expression with look-around or back-references may take on one text. 100,000: some milliseconds in
/// the sandbox; a pattern that needs more is catastrophic, and patterns without these features run in linear time anyway.
const BACKTRACK_STEPS: usize = 100_000;

/// Size of one compiled regular expression, bytes. 1 MiB: `\p{L}{1,100}` fits, a nested repetition bomb does not.
const PATTERN_BYTES: usize = 1 << 20;

/// Answers `$ref`s from what is registered with the form, never from a network.
struct Registered(Arc<Vec<(String, Value)>>);

impl Retrieve for Registered {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let uri = without_fragment(uri.as_str());
        let found = self.0.iter().find(|(name, _)| name == uri);
        found
            .map(|(_, schema)| schema.clone())
            .ok_or_else(|| "it is not registered with the form".into())
    }
}

/// Compiles the form's schema.
///
/// # Errors
/// `invalid-form` with a pointer to each mistake.
pub(crate) fn compile(documents: &Documents, assert_formats: bool) -> Result<Validator, Error> {
    let draft = documents
        .draft_of(documents.root(), Draft::Draft202012)
        .map_err(|problem| Error::InvalidForm(vec![problem]))?;
    form_problems::check_registered(documents, draft)?;
    let schemas = Arc::new(by_every_name(documents));
    let refused = |error: &jsonschema::ReferencingError| form_problems::unresolved(documents, error);
    let metaschemas = metaschemas(documents);
    let registry = Registry::new()
        .draft(draft)
        .retriever(Registered(Arc::clone(&schemas)))
        .extend(metaschemas)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .map_err(|error| refused(&error))?;
    jsonschema::options()
        .with_registry(&registry)
        .with_retriever(Registered(schemas))
        .should_validate_formats(assert_formats)
        .with_pattern_options(
            PatternOptions::fancy_regex()
                .backtrack_limit(BACKTRACK_STEPS)
                .size_limit(PATTERN_BYTES),
        )
        .build(documents.root())
        .map_err(|error| form_problems::from_build(documents, draft, &error))
}

/// Registered schemas under their registered names and, where they say one, under their own `$id`.
fn by_every_name(documents: &Documents) -> Vec<(String, Value)> {
    let mut schemas = documents.registered().to_vec();
    for (name, schema) in documents.registered() {
        let id = schema.get("$id").and_then(Value::as_str).map(without_fragment);
        if let Some(id) = id.filter(|id| id.contains(':') && id != name) {
            schemas.push((id.to_owned(), schema.clone()));
        }
    }
    schemas
}

/// Registered schemas that others name in `$schema`: dialects must be known before anything is compiled.
fn metaschemas(documents: &Documents) -> Vec<(String, &Value)> {
    let all = documents
        .registered()
        .iter()
        .map(|(_, schema)| schema)
        .chain([documents.root()]);
    let mut found: Vec<(String, &Value)> = Vec::new();
    for uri in all.filter_map(|schema| schema.get("$schema")).filter_map(Value::as_str) {
        let uri = without_fragment(uri);
        if let Some(schema) = documents
            .find(uri)
            .filter(|_| found.iter().all(|(name, _)| name != uri))
        {
            found.push((uri.to_owned(), schema));
        }
    }
    found
}

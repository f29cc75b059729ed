//! What is wrong with a form's schema, with its place and how to fix it.

use formwork_plugin::{Error, Problem};
use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::meta::MetaValidator;
use jsonschema::{Draft, ReferencingError, ValidationError, draft4, draft6, draft7, draft201909, draft202012};
use serde_json::Value;

use crate::documents::{Documents, child, without_fragment};
use crate::findings::{Subject, describe};

/// Problems reported of one schema: an author corrects a few at a time.
const MAX_PROBLEMS: usize = 20;

/// Keywords whose text is a reference.
const REFERENCES: [&str; 4] = ["$ref", "$dynamicRef", "$recursiveRef", "$schema"];

/// Checks each registered schema against its draft's metaschema.
///
/// # Errors
/// `invalid-form`; pointers go into the registered schema, whose URI stands in the message.
pub(crate) fn check_registered(documents: &Documents, default: Draft) -> Result<(), Error> {
    let mut validators: Vec<(Draft, MetaValidator<'static>)> = Vec::new();
    for (uri, schema) in documents.registered() {
        let draft = match documents.draft_of(schema, default) {
            Ok(draft) => draft,
            Err(problem) => return Err(Error::InvalidForm(vec![in_registered(uri, problem)])),
        };
        if schema.is_boolean() {
            continue;
        }
        if !validators.iter().any(|(known, _)| *known == draft) {
            validators.push((draft, meta_validator(draft)));
        }
        let Some((_, validator)) = validators.iter().find(|(known, _)| *known == draft) else {
            continue;
        };
        if !validator.is_valid(schema) {
            let problems = breaches(validator, schema);
            return Err(Error::InvalidForm(
                problems
                    .into_iter()
                    .map(|problem| in_registered(uri, problem))
                    .collect(),
            ));
        }
    }
    Ok(())
}

/// What made compiling the form's schema fail.
pub(crate) fn from_build(documents: &Documents, draft: Draft, error: &ValidationError<'_>) -> Error {
    if let Kind::Referencing(error) = error.kind() {
        return unresolved(documents, error);
    }
    // The compiler stops at the first mistake; the metaschema finds all of them.
    let problems = breaches(&meta_validator(draft), documents.root());
    if !problems.is_empty() {
        return Error::InvalidForm(problems);
    }
    let pointer = error.instance_path().as_str();
    let problem = Problem::new(pointer, error.kind().keyword(), reason(error));
    Error::InvalidForm(vec![match owner(documents, error) {
        Some(uri) => in_registered(uri, problem),
        None => problem,
    }])
}

/// A `$ref` that leads nowhere.
pub(crate) fn unresolved(documents: &Documents, error: &ReferencingError) -> Error {
    let message = match error {
        ReferencingError::Unretrievable { uri, .. } => {
            let known: Vec<&str> = documents.registered().iter().map(|(uri, _)| uri.as_str()).collect();
            let known = if known.is_empty() {
                "none is registered".to_owned()
            } else {
                format!("registered are: {}", known.join(", "))
            };
            format!(
                "`{uri}` is not registered with the form and nothing is fetched from a network: add it to the form's `schemas` ({known})"
            )
        }
        ReferencingError::PointerToNowhere { pointer } => {
            format!("nothing stands at `{pointer}` in the schema it names: correct the pointer or add the definition")
        }
        ReferencingError::NoSuchAnchor { anchor } => {
            format!("no schema has the anchor `{anchor}`: correct the name or add the `$anchor`")
        }
        other => format!("the reference cannot be followed: {other}"),
    };
    let names_it = |reference: &str| {
        let (target, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        match error {
            ReferencingError::Unretrievable { uri, .. } => {
                !target.is_empty() && without_fragment(uri).ends_with(target.trim_start_matches(['.', '/']))
            }
            ReferencingError::PointerToNowhere { pointer } => {
                fragment == pointer || fragment == percent_encoded(pointer)
            }
            ReferencingError::NoSuchAnchor { anchor } | ReferencingError::InvalidAnchor { anchor } => {
                fragment == anchor
            }
            ReferencingError::InvalidArrayIndex { pointer, .. }
            | ReferencingError::InvalidPercentEncoding { pointer, .. } => fragment == pointer,
            ReferencingError::InvalidUri(_) => error.to_string().contains(reference),
            _ => false,
        }
    };
    if let Some(pointer) = find_reference(documents.root(), "", &names_it) {
        return Error::form(pointer, "unresolved-reference", message);
    }
    for (uri, schema) in documents.registered() {
        if let Some(pointer) = find_reference(schema, "", &names_it) {
            return Error::InvalidForm(vec![in_registered(
                uri,
                Problem::new(pointer, "unresolved-reference", message),
            )]);
        }
    }
    Error::form("", "unresolved-reference", message)
}

/// Everything a schema breaks of its metaschema.
fn breaches(validator: &MetaValidator<'_>, schema: &Value) -> Vec<Problem> {
    // The errors' locations are in the metaschema: looked up in the form they would find titles of other things.
    let documents = Documents::none();
    let subject = Subject {
        documents: &documents,
        data: schema,
    };
    validator
        .iter_errors(schema)
        .flat_map(|error| describe(subject, &error))
        .take(MAX_PROBLEMS)
        .map(|finding| Problem::new(finding.pointer, finding.code, finding.message))
        .collect()
}

fn meta_validator(draft: Draft) -> MetaValidator<'static> {
    match draft {
        Draft::Draft4 => draft4::meta::validator(),
        Draft::Draft6 => draft6::meta::validator(),
        Draft::Draft7 => draft7::meta::validator(),
        Draft::Draft201909 => draft201909::meta::validator(),
        _ => draft202012::meta::validator(),
    }
}

fn reason(error: &ValidationError<'_>) -> String {
    match error.kind() {
        Kind::Format { format } if format == "regex" => {
            "is not a regular expression that can be used (ECMA-262 syntax, at most 1 MiB compiled): correct or simplify it".to_owned()
        }
        Kind::Custom { message, .. } => message.clone(),
        _ => error.to_string(),
    }
}

/// The registered schema a compile error is in.
fn owner<'a>(documents: &'a Documents, error: &ValidationError<'_>) -> Option<&'a str> {
    if let (_, Some(uri)) = documents.of(error) {
        return documents
            .registered()
            .iter()
            .map(|(known, _)| known.as_str())
            .find(|known| *known == uri);
    }
    // Not every compile error names its document; the offending value tells which one it is in.
    let pointer = error.schema_path().as_str();
    let here = |schema: &Value| {
        schema
            .pointer(pointer)
            .is_some_and(|value| *value == **error.instance())
    };
    if here(documents.root()) {
        return None;
    }
    documents
        .registered()
        .iter()
        .find(|(_, schema)| here(schema))
        .map(|(uri, _)| uri.as_str())
}

fn in_registered(uri: &str, problem: Problem) -> Problem {
    Problem {
        message: format!("in the registered schema `{uri}`: {}", problem.message),
        ..problem
    }
}

/// The pointer of the first reference for which `matches` holds.
fn find_reference(schema: &Value, at: &str, matches: &dyn Fn(&str) -> bool) -> Option<String> {
    match schema {
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let pointer = child(at, name);
            match member {
                Value::String(text) if REFERENCES.contains(&name.as_str()) && matches(text) => Some(pointer),
                _ => find_reference(member, &pointer, matches),
            }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_reference(item, &format!("{at}/{index}"), matches)),
        _ => None,
    }
}

/// `$` and `~` stay, quotes and spaces are what authors encode.
fn percent_encoded(pointer: &str) -> String {
    pointer.replace('%', "%25").replace('"', "%22").replace(' ', "%20")
}

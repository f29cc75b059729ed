//! `anyOf` and `oneOf`: which alternative a person most likely meant.
//!
//! The nearest alternative is one whose kind fits (no wrong type, no wrong discriminating constant) with strictly fewer
//! errors than any other. Where several come equally near, guessing would send the person the wrong way: all are named.

use formwork_plugin::Finding;
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::{Value, json};

use crate::findings::{Scene, Subject, describe};
use crate::messages;

/// Alternatives told apart in the details; more help nobody.
const MAX_ALTERNATIVES: usize = 8;

/// Reasons given for each of them.
const MAX_REASONS: usize = 3;

type Branches = [Vec<ValidationError<'static>>];

/// Findings when no alternative matches.
pub(crate) fn none_matches(subject: Subject<'_>, scene: &Scene<'_>, here: &str, branches: &Branches) -> Vec<Finding> {
    if let Some(index) = nearest(here, branches) {
        return branches[index]
            .iter()
            .flat_map(|error| describe(subject, error))
            .map(|finding| finding.with("alternative", &json!(index)))
            .collect();
    }
    if let Some(types) = only_types(here, branches) {
        let finding = scene.finding(here, &format!("must be {}", messages::type_list(&types)));
        return vec![finding.with("allowed", &json!(types))];
    }
    if let Some(values) = only_values(here, branches) {
        let finding = scene.finding(here, &messages::one_of(&values));
        return vec![finding.with("allowed", &json!(values))];
    }
    if let Some(names) = only_missing(here, branches) {
        let message = format!(
            "at least one of these is required: {}",
            messages::list(names.iter().map(|name| format!("`{name}`")))
        );
        return vec![scene.untitled(here, &message).with("missing", &json!(names))];
    }
    let alternatives: Vec<Vec<Value>> = branches
        .iter()
        .take(MAX_ALTERNATIVES)
        .map(|errors| {
            let findings = errors.iter().flat_map(|error| describe(subject, error));
            findings
                .take(MAX_REASONS)
                .map(|finding| json!({ "pointer": finding.pointer, "message": finding.message }))
                .collect()
        })
        .collect();
    let message = format!(
        "matches none of the {} allowed alternatives; correct it for one of them",
        branches.len()
    );
    vec![scene.finding(here, &message).with("alternatives", &json!(alternatives))]
}

/// The finding when more than one alternative of a `oneOf` matches.
pub(crate) fn several_match(scene: &Scene<'_>, here: &str, branches: &Branches) -> Finding {
    let matching: Vec<usize> = (0..branches.len())
        .filter(|index| branches[*index].is_empty())
        .collect();
    let numbers = messages::list(matching.iter().map(|index| (index + 1).to_string()));
    let message = format!(
        "matches the alternatives {numbers} at once and must match exactly one; remove what belongs to the others"
    );
    scene.finding(here, &message).with("matching", &json!(matching))
}

fn nearest(here: &str, branches: &Branches) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    let mut tie = false;
    for (index, errors) in branches.iter().enumerate() {
        if errors.is_empty() || errors.iter().any(|error| is_other_kind(here, error)) {
            continue;
        }
        match best {
            Some((_, fewest)) if errors.len() > fewest => {}
            Some((_, fewest)) if errors.len() == fewest => tie = true,
            _ => {
                best = Some((index, errors.len()));
                tie = false;
            }
        }
    }
    best.filter(|_| !tie).map(|(index, _)| index)
}

/// Whether an error says that the value is something else than this alternative describes.
fn is_other_kind(here: &str, error: &ValidationError<'_>) -> bool {
    let path = error.instance_path().as_str();
    match error.kind() {
        Kind::Type { .. } | Kind::FalseSchema => path == here,
        // A discriminator: `{"kind": {"const": "company"}}`, `{"country": {"enum": ["CAN"]}}`, or for "any other"
        // `{"country": {"not": …}}`. An enumeration of several values is a choice inside one alternative.
        Kind::Constant { .. } | Kind::Not { .. } => is_member(here, path),
        Kind::Enum { options } => is_member(here, path) && options.as_array().is_some_and(|options| options.len() == 1),
        _ => false,
    }
}

/// Whether `path` is a direct member of `here`.
fn is_member(here: &str, path: &str) -> bool {
    path.strip_prefix(here)
        .is_some_and(|below| below.matches('/').count() == 1)
}

/// The types when every alternative only wants another type here.
fn only_types(here: &str, branches: &Branches) -> Option<Vec<&'static str>> {
    let mut types = Vec::new();
    for errors in branches {
        let wanted = errors.iter().find_map(|error| match error.kind() {
            Kind::Type { kind } if error.instance_path().as_str() == here => Some(messages::type_names(kind)),
            _ => None,
        })?;
        types.extend(wanted);
    }
    types.dedup();
    (!types.is_empty()).then_some(types)
}

/// The values when every alternative only wants another value here.
fn only_values(here: &str, branches: &Branches) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    for errors in branches {
        let wanted = errors.iter().find_map(|error| match error.kind() {
            _ if error.instance_path().as_str() != here => None,
            Kind::Constant { expected_value } => Some(vec![(**expected_value).clone()]),
            Kind::Enum { options } => options.as_array().cloned(),
            _ => None,
        })?;
        values.extend(
            wanted
                .into_iter()
                .filter(|value| !values.contains(value))
                .collect::<Vec<_>>(),
        );
    }
    (!values.is_empty()).then_some(values)
}

/// The members when every alternative only lacks one.
fn only_missing(here: &str, branches: &Branches) -> Option<Vec<String>> {
    branches
        .iter()
        .map(|errors| match errors.as_slice() {
            [error] if error.instance_path().as_str() == here => match error.kind() {
                Kind::Required { property } => property.as_str().map(str::to_owned),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

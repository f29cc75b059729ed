//! From a validator's error to findings: place, code, message, details.

use formwork_plugin::Finding;
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::{Value, json};

use crate::branches;
use crate::documents::{Documents, child, last_token};
use crate::messages;

/// Allowed values listed in the details; longer lists are cut there.
const MAX_LISTED: usize = 100;

/// What an error is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// The schemas.
    pub(crate) documents: &'a Documents,
    /// The whole value that was checked.
    pub(crate) data: &'a Value,
}

/// One error as findings: usually one; one a member where an error names several.
pub(crate) fn describe(subject: Subject<'_>, error: &ValidationError<'_>) -> Vec<Finding> {
    let scene = Scene::new(subject.documents, error);
    let here = error.instance_path().as_str();
    match error.kind() {
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![scene.required(here, name, error.instance())]
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| {
                scene.finding(
                    &child(here, name),
                    "is not expected here; remove it or correct its name",
                )
            })
            .collect(),
        Kind::PropertyNames { error: inner } => {
            let name = inner.instance().as_str().unwrap_or_default().to_owned();
            let inner = describe(subject, inner);
            let why = inner
                .first()
                .map_or("is not allowed", |finding| finding.message.as_str());
            vec![scene.untitled(
                &child(here, &name),
                &format!("is not an allowed name here: the name {why}"),
            )]
        }
        Kind::FalseSchema => scene.forbidden(error, subject.data),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            branches::none_matches(subject, &scene, here, context)
        }
        Kind::OneOfMultipleValid { context } => {
            vec![branches::several_match(&scene, here, context)]
        }
        kind => {
            let holder = scene.holder;
            let message = messages::of(kind, error.instance(), holder);
            let finding = scene.finding(here, &message);
            vec![with_limits(finding, kind)]
        }
    }
}

/// Where in the schema an error comes from.
pub(crate) struct Scene<'a> {
    code: String,
    /// Pointer to the keyword, in the document it stands in.
    schema_pointer: &'a str,
    /// The registered URI of that document when it is not the form's own.
    schema_uri: Option<&'a str>,
    /// The schema that holds the keyword.
    holder: Option<&'a Value>,
    /// The title a person knows the instance by.
    title: Option<&'a str>,
}

impl<'a> Scene<'a> {
    fn new(documents: &'a Documents, error: &'a ValidationError<'_>) -> Self {
        let schema_pointer = error.schema_path().as_str();
        let (document, schema_uri) = documents.of(error);
        let (code, holder_pointer) = keyword(error);
        let holder = document.pointer(holder_pointer);
        let title = holder
            .and_then(title_of)
            .or_else(|| title_beside_reference(documents, error));
        Self {
            code,
            schema_pointer,
            schema_uri,
            holder,
            title,
        }
    }

    /// A finding at `pointer`, about what the schema's title names.
    pub(crate) fn finding(&self, pointer: &str, message: &str) -> Finding {
        // Superfluous members have no title of their own; the holder's is the object's.
        let names_a_member = self.code.ends_with("Properties");
        match self.title.filter(|_| !names_a_member && !pointer.is_empty()) {
            Some(title) => self.untitled(pointer, &messages::titled(title, message)),
            None => self.untitled(pointer, message),
        }
    }

    /// A finding whose message stands as it is.
    pub(crate) fn untitled(&self, pointer: &str, message: &str) -> Finding {
        let finding =
            Finding::error(pointer, self.code.as_str(), message).with("schema_pointer", &json!(self.schema_pointer));
        match self.schema_uri {
            Some(uri) => finding.with("schema_uri", &json!(uri)),
            None => finding,
        }
    }

    fn required(&self, object: &str, name: &str, given: &Value) -> Finding {
        let member = self.holder.and_then(|holder| holder.get("properties")?.get(name));
        let message = match self.demanding(name, given) {
            Some(demanding) => format!("is required when `{demanding}` is given"),
            None => "is required".to_owned(),
        };
        let message = match member.and_then(title_of) {
            Some(title) => messages::titled(title, &message),
            None => message,
        };
        self.untitled(&child(object, name), &message)
    }

    /// The given member that makes `name` required.
    fn demanding(&self, name: &str, given: &Value) -> Option<&'a str> {
        let rules = self.holder?.get(&self.code)?.as_object()?;
        let demands = |names: &Value| {
            names
                .as_array()
                .is_some_and(|names| names.iter().any(|other| other == name))
        };
        let rule = rules
            .iter()
            .find(|(trigger, names)| given.get(trigger.as_str()).is_some() && demands(names));
        rule.map(|(trigger, _)| trigger.as_str())
    }

    /// A `false` schema says no to whatever stands there.
    fn forbidden(&self, error: &ValidationError<'_>, data: &Value) -> Vec<Finding> {
        let here = error.instance_path().as_str();
        let message = "is not expected here; remove it";
        match (self.code.as_str(), data.pointer(here)) {
            // No member is allowed at all; the error names none of them.
            ("additionalProperties" | "propertyNames", Some(Value::Object(members))) => members
                .keys()
                .map(|name| self.untitled(&child(here, name), message))
                .collect(),
            _ if here.is_empty() => vec![self.untitled(here, "no data is accepted by this form")],
            _ => vec![self.finding(here, message)],
        }
    }
}

/// The keyword an error is of, and the pointer of the schema that holds it.
fn keyword<'a>(error: &'a ValidationError<'_>) -> (String, &'a str) {
    /// Keywords whose failures the validator reports as another keyword's.
    const DISGUISED: [&str; 2] = ["dependentRequired", "dependencies"];
    let path = error.schema_path().as_str();
    let named = error.kind().keyword();
    let candidates: Vec<&str> = match error.kind() {
        Kind::Required { .. } => DISGUISED.iter().copied().chain(["required"]).collect(),
        Kind::FalseSchema => {
            let keyword = last_token(path);
            let parent = path.rfind('/').map_or("", |end| &path[..end]);
            let known = [
                "additionalProperties",
                "unevaluatedProperties",
                "unevaluatedItems",
                "propertyNames",
                "items",
                "additionalItems",
                "contains",
                "not",
            ];
            let in_properties = parent.ends_with("/properties") || parent.ends_with("/patternProperties");
            return match known.iter().find(|name| **name == keyword && !in_properties) {
                Some(name) => ((*name).to_owned(), parent),
                None => ("falseSchema".to_owned(), path),
            };
        }
        _ => vec![named],
    };
    // A keyword's own location may go deeper (`/dependentRequired/card`): its last occurrence starts it.
    let last = candidates
        .into_iter()
        .filter_map(|name| position_of(path, name).map(|position| (position, name)))
        .max_by_key(|(position, _)| *position);
    match last {
        Some((position, name)) => (name.to_owned(), &path[..position]),
        None => (named.to_owned(), path.rfind('/').map_or("", |end| &path[..end])),
    }
}

/// Where the last token equal to `name` starts, at its slash.
fn position_of(path: &str, name: &str) -> Option<usize> {
    let mut end = path.len();
    while let Some(start) = path[..end].rfind('/') {
        if &path[start + 1..end] == name {
            return Some(start);
        }
        end = start;
    }
    None
}

fn title_of(schema: &Value) -> Option<&str> {
    schema
        .get("title")
        .and_then(Value::as_str)
        .map(str::trim)
        .filter(|title| !title.is_empty())
}

/// The title next to a `$ref` whose target broke: `{"title": "Zip code", "$ref": "#/$defs/zip"}`.
fn title_beside_reference<'a>(documents: &'a Documents, error: &ValidationError<'_>) -> Option<&'a str> {
    let path = error.evaluation_path().as_str();
    let start = position_of(path, "$ref")?;
    let deeper = path[start + 1..].split('/').count() - 1;
    // Deeper than the target's own keyword it is another value than the one the title names.
    (deeper == 1)
        .then(|| documents.root().pointer(&path[..start]).and_then(title_of))
        .flatten()
}

/// The facts of a keyword as JSON, for programs.
fn with_limits(finding: Finding, kind: &Kind) -> Finding {
    match kind {
        Kind::Minimum { limit }
        | Kind::Maximum { limit }
        | Kind::ExclusiveMinimum { limit }
        | Kind::ExclusiveMaximum { limit } => finding.with("limit", limit),
        Kind::MinLength { limit }
        | Kind::MaxLength { limit }
        | Kind::MinItems { limit }
        | Kind::MaxItems { limit }
        | Kind::MinProperties { limit }
        | Kind::MaxProperties { limit } => finding.with("limit", &json!(limit)),
        Kind::AdditionalItems { limit } => finding.with("limit", &json!(limit)),
        Kind::MultipleOf { multiple_of } => finding.with("limit", &messages::number(*multiple_of)),
        Kind::Enum { options } => {
            let listed: Vec<&Value> = options.as_array().into_iter().flatten().take(MAX_LISTED).collect();
            finding.with("allowed", &json!(listed))
        }
        Kind::Constant { expected_value } => finding.with("allowed", &json!([**expected_value])),
        Kind::Pattern { pattern } => finding.with("pattern", &json!(pattern)),
        Kind::Format { format } => finding.with("format", &json!(format)),
        Kind::Type { kind } => finding.with("allowed", &json!(messages::type_names(kind))),
        Kind::ContentEncoding { content_encoding } => finding.with("content_encoding", &json!(content_encoding)),
        Kind::ContentMediaType { content_media_type } => finding.with("content_media_type", &json!(content_media_type)),
        _ => finding,
    }
}

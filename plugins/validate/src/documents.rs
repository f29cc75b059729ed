//! The form's schema and the schemas registered with it, and finding one's way in them.

use formwork_plugin::{Error, Form, Problem};
use jsonschema::{Draft, ValidationError};
use serde_json::Value;

/// The form's schema and what its `$ref`s may reach.
pub(crate) struct Documents {
    root: Value,
    registered: Vec<(String, Value)>,
}

impl Documents {
    /// Parses the form's texts.
    pub(crate) fn parse(form: &Form) -> Result<Self, Error> {
        let root = parse(&form.schema, None)?;
        let mut registered = Vec::with_capacity(form.schemas.len());
        for (uri, text) in &form.schemas {
            registered.push((without_fragment(uri).to_owned(), parse(text, Some(uri))?));
        }
        Ok(Self { root, registered })
    }

    /// No schemas: for errors that come from elsewhere than the form's.
    pub(crate) fn none() -> Self {
        Self {
            root: Value::Null,
            registered: Vec::new(),
        }
    }

    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    pub(crate) fn registered(&self) -> &[(String, Value)] {
        &self.registered
    }

    /// The registered schema of this URI, by its registered name or its own `$id`.
    pub(crate) fn find(&self, uri: &str) -> Option<&Value> {
        let uri = without_fragment(uri);
        let by_name = self.registered.iter().find(|(name, _)| name == uri);
        let found = by_name.or_else(|| {
            self.registered
                .iter()
                .find(|(_, schema)| own_id(schema).is_some_and(|id| without_fragment(id) == uri))
        });
        found.map(|(_, schema)| schema)
    }

    /// The document an error's schema location is in, and its registered URI when it is not the form's own.
    pub(crate) fn of<'a>(&'a self, error: &'a ValidationError<'_>) -> (&'a Value, Option<&'a str>) {
        let location = error
            .absolute_keyword_location()
            .map(|uri| without_fragment(uri.as_str()));
        let found = location.and_then(|uri| {
            self.registered
                .iter()
                .find(|(name, schema)| name == uri || own_id(schema).is_some_and(|id| without_fragment(id) == uri))
        });
        found.map_or((&self.root, None), |(name, schema)| (schema, Some(name.as_str())))
    }

    /// The draft a schema is written in: its `$schema`, followed through registered metaschemas; `default` where none
    /// is named.
    ///
    /// # Errors
    /// The problem, with a pointer into `schema`.
    pub(crate) fn draft_of(&self, schema: &Value, default: Draft) -> Result<Draft, Problem> {
        let mut current = schema;
        // A chain cannot be longer than there are schemas; a circle is.
        for _ in 0..=self.registered.len() {
            let draft = match current.get("$schema") {
                None => return Ok(default),
                Some(Value::String(_)) => Draft::default().detect(current),
                Some(_) => {
                    return Err(Problem::new(
                        "/$schema",
                        "unknown-draft",
                        "must be a text: the draft's URI",
                    ));
                }
            };
            if draft != Draft::Unknown {
                return Ok(draft);
            }
            let uri = current.get("$schema").and_then(Value::as_str).unwrap_or_default();
            current = self.find(uri).ok_or_else(|| {
                Problem::new(
                    "/$schema",
                    "unknown-draft",
                    format!(
                        "`{uri}` is no draft that is known here: use \"https://json-schema.org/draft/2020-12/schema\", \
                         2019-09, draft-07, draft-06 or draft-04, or register that metaschema with the form"
                    ),
                )
            })?;
        }
        Err(Problem::new(
            "/$schema",
            "unknown-draft",
            "the metaschemas name each other in a circle",
        ))
    }
}

fn parse(text: &str, uri: Option<&str>) -> Result<Value, Error> {
    let place = uri.map_or_else(String::new, |uri| format!("in the registered schema `{uri}`: "));
    let schema: Value = serde_json::from_str(text)
        .map_err(|error| Error::form("", "json", format!("{place}the schema is not JSON: {error}")))?;
    if schema.is_object() || schema.is_boolean() {
        return Ok(schema);
    }
    Err(Error::form(
        "",
        "type",
        format!("{place}a JSON Schema must be an object, `true` or `false`"),
    ))
}

fn own_id(schema: &Value) -> Option<&str> {
    schema.get("$id").or_else(|| schema.get("id")).and_then(Value::as_str)
}

/// A URI up to its `#`.
pub(crate) fn without_fragment(uri: &str) -> &str {
    uri.split('#').next().unwrap_or(uri)
}

/// A member's pointer below `parent`.
pub(crate) fn child(parent: &str, name: &str) -> String {
    format!("{parent}/{}", formwork_plugin::pointer_token(name))
}

/// The last reference token of a pointer, unescaped.
pub(crate) fn last_token(pointer: &str) -> String {
    pointer
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .replace("~1", "/")
        .replace("~0", "~")
}

//! The default columns of CSV: identifier, time, then every leaf of the form's schema in the order it stands there.
//!
//! A leaf is a property without properties of its own; lists are leaves. Properties behind `$ref`, `allOf`, `anyOf`,
//! `oneOf`, `if`/`then`/`else` and `dependentSchemas` count: a submission may hold them.

use formwork_plugin::{Error, Form};
use serde_json::Value;

use crate::columns::{Column, Source};
use crate::settings::MAX_COLUMNS;

/// How deep properties and references are followed: a schema that contains itself must end somewhere.
const MAX_DEPTH: usize = 16;

/// Most schemas visited: alternatives that refer to each other multiply.
const MAX_VISITS: usize = 20_000;

/// Keywords whose schemas speak of the same object.
const IN_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const IN_PLACE: [&str; 3] = ["if", "then", "else"];

/// The default columns of a form.
///
/// # Errors
/// `invalid-form` when the schema is not JSON.
pub(crate) fn columns(form: &Form) -> Result<Vec<Column>, Error> {
    let parse = |text: &str, place: &str| {
        serde_json::from_str::<Value>(text)
            .map_err(|error| Error::form("", "json", format!("{place} is not JSON: {error}")))
    };
    let root = parse(&form.schema, "the schema")?;
    let mut registered = Vec::with_capacity(form.schemas.len());
    for (uri, text) in &form.schemas {
        registered.push((
            uri.trim_end_matches('#').to_owned(),
            parse(text, &format!("the registered schema `{uri}`"))?,
        ));
    }
    let mut leaves = Leaves {
        registered: &registered,
        found: Vec::new(),
        open: Vec::new(),
        visits: 0,
    };
    leaves.visit(
        Place {
            document: &root,
            schema: &root,
            path: &[],
        },
        0,
    );
    let mut columns = vec![
        Column {
            name: "id".into(),
            source: Source::Id,
        },
        Column {
            name: "submitted_at".into(),
            source: Source::SubmittedAt,
        },
    ];
    for path in leaves.found {
        let name = path.join(".");
        // A member called `id` must not share its column's name with the submission's.
        let name = if columns.iter().any(|column| column.name == name) {
            format!("data.{name}")
        } else {
            name
        };
        let pointer = path
            .iter()
            .map(|token| format!("/{}", formwork_plugin::pointer_token(token)))
            .collect();
        columns.push(Column {
            name,
            source: Source::Data { pointer },
        });
    }
    columns.truncate(MAX_COLUMNS);
    Ok(columns)
}

/// A schema, the document its local references are in, and the members that lead to its instances.
#[derive(Clone, Copy)]
struct Place<'a> {
    document: &'a Value,
    schema: &'a Value,
    path: &'a [String],
}

struct Leaves<'a> {
    registered: &'a [(String, Value)],
    found: Vec<Vec<String>>,
    /// The schemas being visited, by address: one that contains itself is a leaf there.
    open: Vec<*const Value>,
    visits: usize,
}

impl<'a> Leaves<'a> {
    /// Collects the leaves below a place; answers whether it has properties at all.
    fn visit(&mut self, at: Place<'_>, depth: usize) -> bool {
        self.visits += 1;
        let address = std::ptr::from_ref(at.schema);
        if depth > MAX_DEPTH || self.visits > MAX_VISITS || self.open.contains(&address) {
            return false;
        }
        self.open.push(address);
        let has_properties = self.visit_members(at, depth);
        self.open.pop();
        has_properties
    }

    fn visit_members(&mut self, at: Place<'_>, depth: usize) -> bool {
        let Place { document, schema, path } = at;
        let mut has_properties = false;
        for (name, member) in schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            has_properties = true;
            let path = [path, std::slice::from_ref(name)].concat();
            let place = Place {
                document,
                schema: member,
                path: &path,
            };
            let known = self.found.contains(&path);
            let is_object = !known && self.visit(place, depth + 1);
            if !known && !is_object && !self.found.iter().any(|found| found.starts_with(&path)) {
                self.found.push(path);
            }
        }
        let mut same_object: Vec<&Value> = Vec::new();
        for keyword in IN_PLACE_LISTS {
            same_object.extend(schema.get(keyword).and_then(Value::as_array).into_iter().flatten());
        }
        same_object.extend(IN_PLACE.iter().filter_map(|keyword| schema.get(keyword)));
        same_object.extend(
            schema
                .get("dependentSchemas")
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(|map| map.values()),
        );
        for schema in same_object {
            has_properties |= self.visit(Place { document, schema, path }, depth + 1);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
            let registered = self.registered;
            let document = match uri {
                "" => Some(document),
                uri => registered
                    .iter()
                    .find(|(known, _)| known == uri)
                    .map(|(_, schema)| schema),
            };
            if let Some((document, schema)) =
                document.and_then(|document| Some((document, document.pointer(fragment)?)))
            {
                has_properties |= self.visit(Place { document, schema, path }, depth + 1);
            }
        }
        has_properties
    }
}

//! Decides which JSON schemas may constrain a generation.
//!
//! Problem: llama.cpp's schema converter recurses without bound, ignores what it does not know,
//! and its grammar engine aborts the process on some inputs. Promise: only a small, bounded, fully
//! enforced subset reaches it, rewritten from scratch; everything else is a typed error with the
//! place. A schema that passes produces JSON that validates against it, provided the output is not
//! cut by `max_tokens`. Cost: some legal schemas are refused. Rejected: passing schemas through and
//! validating the output afterwards (a hostile schema would already have done its harm).

use serde_json::{Map, Value, json};

use super::pattern_guard;
use crate::error::Error;
use crate::limits;

/// Keywords without effect on validity: dropped.
const ANNOTATIONS: [&str; 10] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// The formats that the grammar can enforce; others are annotations, as in JSON Schema itself.
const FORMATS: [&str; 4] = ["date", "time", "date-time", "uuid"];
/// Rules that the converter brings along. It names the rule of a property after the property, with
/// everything but letters and digits made a hyphen, and checks for a clash before doing so: a property
/// `integral_part` would take the place of the digits of every number.
const CONVERTER_RULES: [&str; 21] = [
    "root",
    "boolean",
    "decimal-part",
    "integral-part",
    "number",
    "integer",
    "value",
    "object",
    "array",
    "uuid",
    "char",
    "string",
    "null",
    "date",
    "time",
    "date-time",
    "date-string",
    "time-string",
    "date-time-string",
    "space",
    "dot",
];
const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];

/// Rewrites a schema into what llama.cpp may see.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::InvalidArgument`] naming the JSON Pointer.
pub(crate) fn admit(schema: &str) -> Result<String, Error> {
    at_most(
        "bytes of a json schema",
        limits::MAX_SCHEMA_BYTES as u64,
        schema.len() as u64,
    )?;
    let parsed: Value = serde_json::from_str(schema)
        .map_err(|error| Error::InvalidArgument(format!("json schema is not valid JSON: {error}")))?;
    let mut guard = Guard {
        nodes: 0,
        repetitions: 0,
        names: Vec::new(),
    };
    Ok(guard.node(&parsed, "", 1, 1)?.to_string())
}

struct Guard {
    nodes: usize,
    repetitions: u64,
    /// The names from which the converter makes the name of the current rule.
    names: Vec<String>,
}

impl Guard {
    /// `times`: how often the value may be repeated by the arrays around it.
    fn node(&mut self, schema: &Value, at: &str, depth: usize, times: u64) -> Result<Value, Error> {
        self.nodes += 1;
        at_most(
            "subschemas of a json schema",
            limits::MAX_SCHEMA_NODES as u64,
            self.nodes as u64,
        )?;
        at_most(
            "nesting of a json schema",
            limits::MAX_SCHEMA_DEPTH as u64,
            depth as u64,
        )?;
        let Value::Object(object) = schema else {
            return Err(refused(at, "must be an object"));
        };
        let has = |key: &str| object.contains_key(key);
        if has("anyOf") {
            only(object, at, &["anyOf"])?;
            let Some(Value::Array(branches)) = object.get("anyOf") else {
                return Err(refused(at, "anyOf must be an array"));
            };
            if branches.is_empty() {
                return Err(refused(at, "anyOf must not be empty"));
            }
            let mut admitted = Vec::new();
            for (index, branch) in branches.iter().enumerate() {
                let place = format!("{at}/anyOf/{index}");
                admitted.push(self.within(&index.to_string(), branch, &place, depth, times)?);
            }
            return Ok(json!({ "anyOf": admitted }));
        }
        let types = types(object, at)?;
        if has("enum") || has("const") {
            return constant(object, at, types.as_deref());
        }
        let Some(types) = types else {
            return Err(refused(at, "needs a type (or anyOf, enum, const)"));
        };
        let known: Vec<&str> = types.iter().flat_map(|kind| keywords(kind)).copied().collect();
        only(object, at, &known)?;
        let mut admitted = Vec::new();
        for kind in &types {
            admitted.push(self.typed(object, kind, at, depth, times)?);
        }
        Ok(match admitted.len() {
            1 => admitted.remove(0),
            _ => json!({ "anyOf": admitted }),
        })
    }

    /// A subschema, whose rule the converter names after where it is.
    fn within(&mut self, name: &str, schema: &Value, at: &str, depth: usize, times: u64) -> Result<Value, Error> {
        self.names.push(name.to_owned());
        let full = self.names.join("-");
        let rule = rule_name(&full);
        if rule != full && CONVERTER_RULES.contains(&rule.as_str()) {
            return Err(refused(at, &format!("the name clashes with a built-in rule, {rule}")));
        }
        let admitted = self.node(schema, at, depth + 1, times)?;
        self.names.pop();
        Ok(admitted)
    }

    fn typed(
        &mut self,
        object: &Map<String, Value>,
        kind: &str,
        at: &str,
        depth: usize,
        times: u64,
    ) -> Result<Value, Error> {
        match kind {
            "object" => self.object(object, at, depth, times),
            "array" => self.array(object, at, depth, times),
            "string" => self.string(object, at, times),
            "integer" => integer(object, at),
            other => Ok(json!({ "type": other })),
        }
    }

    fn object(&mut self, object: &Map<String, Value>, at: &str, depth: usize, times: u64) -> Result<Value, Error> {
        match object.get("additionalProperties") {
            None | Some(Value::Bool(_)) => {}
            Some(_) => return Err(refused(at, "additionalProperties must be true or false")),
        }
        let mut properties = Map::new();
        match object.get("properties") {
            None => {}
            Some(Value::Object(declared)) => {
                at_most(
                    "properties of an object in a json schema",
                    limits::MAX_SCHEMA_PROPERTIES as u64,
                    declared.len() as u64,
                )?;
                for (name, property) in declared {
                    if name.is_empty() {
                        return Err(refused(at, "a property name is empty"));
                    }
                    let place = format!("{at}/properties/{}", name.replace('~', "~0").replace('/', "~1"));
                    let property = self.within(name, property, &place, depth, times)?;
                    properties.insert(name.clone(), property);
                }
            }
            Some(_) => return Err(refused(at, "properties must be an object")),
        }
        let mut required = Vec::new();
        match object.get("required") {
            None => {}
            Some(Value::Array(names)) => {
                for name in names {
                    let declared = name.as_str().is_some_and(|name| properties.contains_key(name));
                    if !declared {
                        return Err(refused(at, &format!("required {name} is not among the properties")));
                    }
                    required.push(name.clone());
                }
            }
            Some(_) => return Err(refused(at, "required must be an array of names")),
        }
        let open = !matches!(object.get("additionalProperties"), Some(Value::Bool(false)));
        if properties.is_empty() && open {
            return Ok(json!({ "type": "object" }));
        }
        Ok(json!({
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        }))
    }

    fn array(&mut self, object: &Map<String, Value>, at: &str, depth: usize, times: u64) -> Result<Value, Error> {
        let (min, max) = (count(object, "minItems", at)?, count(object, "maxItems", at)?);
        let repeated = self.repeat(at, min, max, times)?;
        let mut admitted = Map::new();
        admitted.insert("type".to_owned(), json!("array"));
        if let Some(items) = object.get("items") {
            let items = self.within("item", items, &format!("{at}/items"), depth, repeated)?;
            admitted.insert("items".to_owned(), items);
        }
        insert_bounds(&mut admitted, ("minItems", min), ("maxItems", max));
        Ok(Value::Object(admitted))
    }

    fn string(&mut self, object: &Map<String, Value>, at: &str, times: u64) -> Result<Value, Error> {
        let (min, max) = (count(object, "minLength", at)?, count(object, "maxLength", at)?);
        let mut admitted = Map::new();
        admitted.insert("type".to_owned(), json!("string"));
        let bounded = min.is_some() || max.is_some();
        match object.get("pattern") {
            None => {}
            Some(Value::String(_)) if bounded => {
                return Err(refused(at, "pattern cannot be combined with minLength or maxLength"));
            }
            Some(Value::String(pattern)) => {
                let (rewritten, cost) =
                    pattern_guard::admit(pattern).map_err(|reason| refused(at, &format!("pattern: {reason}")))?;
                self.spend(cost.saturating_mul(times))?;
                admitted.insert("pattern".to_owned(), json!(rewritten));
                return Ok(Value::Object(admitted));
            }
            Some(_) => return Err(refused(at, "pattern must be a string")),
        }
        if bounded {
            self.repeat(at, min, max, times)?;
            insert_bounds(&mut admitted, ("minLength", min), ("maxLength", max));
            return Ok(Value::Object(admitted));
        }
        match object.get("format") {
            None => {}
            Some(Value::String(format)) if FORMATS.contains(&format.as_str()) => {
                admitted.insert("format".to_owned(), json!(format));
            }
            Some(Value::String(_)) => {}
            Some(_) => return Err(refused(at, "format must be a string")),
        }
        Ok(Value::Object(admitted))
    }

    fn repeat(&mut self, at: &str, min: Option<u64>, max: Option<u64>, times: u64) -> Result<u64, Error> {
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(refused(at, "a minimum is above its maximum"));
        }
        let total = times.saturating_mul(max.or(min).unwrap_or(1).max(1));
        self.spend(total)?;
        Ok(total)
    }

    fn spend(&mut self, repetitions: u64) -> Result<(), Error> {
        self.repetitions = self.repetitions.saturating_add(repetitions);
        at_most(
            "repetitions of a json schema",
            limits::MAX_SCHEMA_REPETITIONS,
            self.repetitions,
        )
    }
}

fn keywords(kind: &str) -> &'static [&'static str] {
    match kind {
        "object" => &["type", "properties", "required", "additionalProperties"],
        "array" => &["type", "items", "minItems", "maxItems"],
        "string" => &["type", "minLength", "maxLength", "pattern", "format"],
        "integer" => &["type", "minimum", "maximum"],
        _ => &["type"],
    }
}

fn only(object: &Map<String, Value>, at: &str, known: &[&str]) -> Result<(), Error> {
    for key in object.keys() {
        if !known.contains(&key.as_str()) && !ANNOTATIONS.contains(&key.as_str()) {
            return Err(refused(at, &format!("keyword {key:?} cannot be enforced here")));
        }
    }
    Ok(())
}

fn types(object: &Map<String, Value>, at: &str) -> Result<Option<Vec<String>>, Error> {
    let names: Vec<&Value> = match object.get("type") {
        None => return Ok(None),
        Some(Value::Array(names)) => names.iter().collect(),
        Some(name) => vec![name],
    };
    let mut types: Vec<String> = Vec::new();
    for name in names {
        match name.as_str().filter(|name| TYPES.contains(name)) {
            Some(name) if !types.iter().any(|known| known == name) => types.push(name.to_owned()),
            Some(_) => {}
            None => return Err(refused(at, &format!("type {name} is unknown"))),
        }
    }
    if types.is_empty() {
        return Err(refused(at, "type must not be empty"));
    }
    Ok(Some(types))
}

fn constant(object: &Map<String, Value>, at: &str, types: Option<&[String]>) -> Result<Value, Error> {
    only(object, at, &["type", "enum", "const"])?;
    let mut values: Vec<Value> = match (object.get("enum"), object.get("const")) {
        (Some(Value::Array(values)), None) => values.clone(),
        (None, Some(value)) => vec![value.clone()],
        (Some(_), None) => return Err(refused(at, "enum must be an array")),
        _ => return Err(refused(at, "enum and const cannot be combined")),
    };
    at_most(
        "values of an enum in a json schema",
        limits::MAX_SCHEMA_ENUM as u64,
        values.len() as u64,
    )?;
    if let Some(types) = types {
        values.retain(|value| types.iter().any(|kind| is_of(value, kind)));
    }
    if values.is_empty() {
        return Err(refused(at, "no value of the enum is allowed"));
    }
    Ok(json!({ "enum": values }))
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    }
}

fn integer(object: &Map<String, Value>, at: &str) -> Result<Value, Error> {
    let bound = |key: &str| -> Result<Option<i64>, Error> {
        match object.get(key) {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .filter(|bound| bound.unsigned_abs() <= limits::MAX_SCHEMA_INTEGER.unsigned_abs())
                .map(Some)
                .ok_or_else(|| refused(at, &format!("{key} must be an integer within ±10^15"))),
        }
    };
    let (min, max) = (bound("minimum")?, bound("maximum")?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(refused(at, "minimum is above maximum"));
    }
    let mut admitted = Map::new();
    admitted.insert("type".to_owned(), json!("integer"));
    for (key, value) in [("minimum", min), ("maximum", max)] {
        if let Some(value) = value {
            admitted.insert(key.to_owned(), json!(value));
        }
    }
    Ok(Value::Object(admitted))
}

fn count(object: &Map<String, Value>, key: &str, at: &str) -> Result<Option<u64>, Error> {
    match object.get(key) {
        None => Ok(None),
        Some(value) => {
            let count = value
                .as_u64()
                .ok_or_else(|| refused(at, &format!("{key} must be a whole number")))?;
            at_most("a repetition in a json schema", limits::MAX_SCHEMA_REPETITION, count)?;
            Ok(Some(count))
        }
    }
}

fn insert_bounds(into: &mut Map<String, Value>, min: (&str, Option<u64>), max: (&str, Option<u64>)) {
    for (key, value) in [min, max] {
        if let Some(value) = value {
            into.insert(key.to_owned(), json!(value));
        }
    }
}

fn at_most(what: &'static str, limit: u64, got: u64) -> Result<(), Error> {
    if got > limit {
        Err(Error::TooLarge { what, limit, got })
    } else {
        Ok(())
    }
}

/// What the converter makes of a name: runs of other characters become one hyphen.
fn rule_name(name: &str) -> String {
    let mut rule = String::new();
    let mut replacing = false;
    for c in name.chars() {
        let kept = c.is_ascii_alphanumeric() || c == '-';
        if kept {
            rule.push(c);
        } else if !replacing {
            rule.push('-');
        }
        replacing = !kept;
    }
    rule
}

fn refused(at: &str, reason: &str) -> Error {
    let place = if at.is_empty() { "the root" } else { at };
    Error::InvalidArgument(format!("json schema at {place}: {reason}"))
}

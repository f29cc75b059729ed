//! One validation at the end of `prepare`, so that what the validator builds on first use is built when a snapshot is
//! taken.

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::pattern_sample;

/// How deep the sample follows the schema: forms rarely nest deeper, and a recursive `properties` must end.
const MAX_DEPTH: usize = 6;

/// Members of the sample: a schema of thousands of properties need not all be touched.
const MAX_MEMBERS: usize = 200;

/// Errors of the sample that are looked at: finding one walks the members before it.
const MAX_ERRORS: usize = 200;

/// Validates a sample of the schema's own shape.
pub(crate) fn run(validator: &Validator, schema: &Value) {
    let mut left = MAX_MEMBERS;
    let sample = sample(schema, MAX_DEPTH, &mut left);
    // The verdicts do not matter; walking the compiled schema does. The first walk ends at the first error, the second
    // one passes all members.
    let _ = validator.is_valid(&sample);
    let _ = validator.iter_errors(&sample).take(MAX_ERRORS).count();
}

fn sample(schema: &Value, depth: usize, left: &mut usize) -> Value {
    if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return value.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("string"),
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    match kind {
        "object" if depth > 0 => {
            let mut object = Map::new();
            for (name, member) in schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                if *left == 0 {
                    break;
                }
                *left -= 1;
                object.insert(name.clone(), sample(member, depth - 1, left));
            }
            Value::Object(object)
        }
        "object" => json!({}),
        "array" => match schema.get("items") {
            Some(items) if depth > 0 && items.is_object() => {
                json!([sample(items, depth - 1, left)])
            }
            _ => json!([]),
        },
        "integer" | "number" => json!(1),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => json!(string(schema)),
    }
}

/// A string that its format and its pattern accept, so that their machines have the states which good answers use.
fn string(schema: &Value) -> String {
    let pattern = schema.get("pattern").and_then(Value::as_str);
    if let Some(text) = pattern.and_then(pattern_sample::matching) {
        return text;
    }
    let format = schema.get("format").and_then(Value::as_str);
    let text = match format {
        Some("email" | "idn-email") => "ana.lopes@example.org",
        Some("date") => "2026-03-14",
        Some("time") => "15:09:26.535Z",
        Some("date-time") => "2026-03-14T15:09:26.535Z",
        Some("duration") => "P3DT4H",
        Some("uri" | "iri" | "uri-reference" | "iri-reference") => "https://www.example.org/a/b?c=d&e=1#f",
        Some("uri-template") => "https://example.org/{a}/b",
        Some("hostname" | "idn-hostname") => "www.example.org",
        Some("ipv4") => "192.0.2.17",
        Some("ipv6") => "2001:db8::17",
        Some("uuid") => "0192f0c1-2d3e-7a4b-8c5d-6e7f8a9b0c1d",
        Some("json-pointer") => "/a/0",
        Some("relative-json-pointer") => "1/a",
        Some("regex") => "^[a-z]+$",
        _ => "Some text, as people write it: 1 or 2 words.",
    };
    text.to_owned()
}

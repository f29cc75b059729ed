//! One validation at the end of `prepare`, so that what the validator builds on first use is built when a snapshot is
//! taken.

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// How deep the sample follows the schema: forms rarely nest deeper, and a recursive `properties` must end.
const MAX_DEPTH: usize = 6;

/// Members of the sample: a schema of thousands of properties need not all be touched.
const MAX_MEMBERS: usize = 200;

/// Validates a sample of the schema's own shape.
pub(crate) fn run(validator: &Validator, schema: &Value) {
    let mut left = MAX_MEMBERS;
    let sample = sample(schema, MAX_DEPTH, &mut left);
    // The verdict does not matter; walking the compiled schema does.
    let _ = validator.is_valid(&sample);
    let _ = validator.iter_errors(&sample).next();
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
        _ => json!("a"),
    }
}

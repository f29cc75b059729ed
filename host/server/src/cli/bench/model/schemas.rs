//! The schemas that constrained texts are checked under: bounded in length, so that a small model that rambles still comes
//! to an end.

use serde_json::{Value, json};

/// What is extracted from a message.
pub(super) const FIVE_FIELDS: &str = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":40},
    "email":{"type":"string","maxLength":60},"order_number":{"type":"string","maxLength":20},
    "date":{"type":"string","format":"date"},"intent":{"enum":["refund","delivery","complaint","other"]}},
    "required":["name","email","order_number","date","intent"],"additionalProperties":false}"#;

pub(super) fn all() -> Vec<Value> {
    let text = |most: u32| json!({ "type": "string", "maxLength": most });
    let five_fields = serde_json::from_str(FIVE_FIELDS).unwrap_or_default();
    let day = object(json!({ "day": { "type": "string", "format": "date" },
        "n": { "type": "integer", "minimum": 1, "maximum": 9 } }));
    let matrix = json!({ "type": "array", "maxItems": 2,
        "items": { "type": "array", "maxItems": 3, "items": { "type": "boolean" } } });
    vec![
        five_fields,
        object(json!({ "first": text(20), "last": text(20),
            "age": { "type": "integer", "minimum": 0, "maximum": 130 } })),
        object(
            json!({ "tags": { "type": "array", "items": text(12), "minItems": 1, "maxItems": 4 },
            "urgent": { "type": "boolean" } }),
        ),
        object(json!({ "address": object(json!({ "street": text(30),
            "zip": { "type": "string", "pattern": r"^\d{5}$" } })) })),
        json!({ "enum": ["refund", "delivery", "complaint", "other"] }),
        json!({ "type": "integer", "minimum": -20, "maximum": 20 }),
        json!({ "type": "array", "minItems": 2, "maxItems": 3, "items": day }),
        json!({ "anyOf": [{ "type": "null" },
            object(json!({ "id": { "type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$" } }))] }),
        object(json!({ "when": { "type": "string", "format": "date-time" },
            "note": { "type": ["string", "null"], "maxLength": 24 } })),
        object(json!({ "größe \"q\"": { "type": "boolean" }, "root-cause": text(20),
            "score": { "type": "integer", "minimum": 1, "maximum": 5 } })),
        json!({ "type": "object", "properties": { "a": text(10), "b": { "type": "boolean" }, "c": { "const": 3 } },
            "required": ["b"], "additionalProperties": false }),
        object(json!({ "lines": matrix, "id": { "type": "string", "format": "uuid" } })),
    ]
}

/// All of them required, no others allowed.
fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties
        .as_object()
        .into_iter()
        .flat_map(|object| object.keys())
        .collect();
    json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
}

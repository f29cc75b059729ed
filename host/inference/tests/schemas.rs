//! Constrained output validates; schemas that could harm are refused with a reason.
#![allow(clippy::unwrap_used, reason = "a test helper fails the test by panicking")]

mod support;

use formwork_inference::{Error, FinishReason, GenerationRequest};
use serde_json::{Value, json};
use support::{ask, call, service, written};

async fn constrained(schema: &Value, prompt: &str, temperature: f32) -> (Value, FinishReason) {
    let request = GenerationRequest {
        system: "Answer with JSON only.".to_owned(),
        json_schema: Some(schema.to_string()),
        temperature,
        seed: 7,
        ..ask(prompt, 300)
    };
    let mut completion = service().generate("smol", request, &call()).await.unwrap();
    let text = completion.text().await.unwrap();
    let reason = completion.summary().unwrap().reason;
    (
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
        reason,
    )
}

#[tokio::test]
async fn output_validates_against_its_schema() {
    let schemas = [
        json!({ "type": "object", "additionalProperties": false,
            "properties": { "name": { "type": "string", "maxLength": 40 },
                "email": { "type": ["string", "null"], "maxLength": 60 },
                "order_number": { "type": "string", "pattern": r"^[A-Z]{2}-\d{4}$" } },
            "required": ["name", "email", "order_number"] }),
        json!({ "enum": ["refund", "delivery", "complaint", "other"] }),
        json!({ "type": "integer", "minimum": 1, "maximum": 5 }),
        json!({ "type": "integer", "minimum": -20, "maximum": -7 }),
        json!({ "type": "array", "minItems": 1, "maxItems": 3, "items": { "type": "object",
            "properties": { "day": { "type": "string", "format": "date" }, "urgent": { "type": "boolean" } },
            "required": ["day", "urgent"] } }),
        json!({ "anyOf": [ { "type": "null" }, { "const": { "a": [1, "\"quoted\\\" \n line"] } } ] }),
        json!({ "title": "annotated", "type": "object", "properties": {
            "root-cause": { "type": "string", "maxLength": 20, "description": "why" },
            "string": { "type": "number" }, "größe / ~ \"q\"": { "type": "boolean" } },
            "required": ["string", "größe / ~ \"q\""] }),
    ];
    let message = "Anna Berg (anna@example.org) wants her money back for order AB-1234, since 2026-03-01.";
    for schema in &schemas {
        let validator = jsonschema::validator_for(schema).unwrap();
        for temperature in [0.0, 1.2] {
            let (value, reason) = constrained(schema, message, temperature).await;
            assert_eq!(reason, FinishReason::Stop);
            assert!(validator.is_valid(&value), "{value} is not valid for {schema}");
        }
    }
}

#[tokio::test]
async fn hostile_schemas_are_typed_errors_and_the_model_still_answers() {
    let deep = format!(
        r#"{}{{"type":"null"}}{}"#,
        r#"{"type":"array","items":"#.repeat(60),
        "}".repeat(60)
    );
    let abyss = format!("{}{}", r#"{"items":"#.repeat(3_000), "}".repeat(3_000));
    let wide = json!({ "type": "object", "properties": (0..65).map(|n| (n.to_string(), json!({ "type": "null" })))
        .collect::<serde_json::Map<_, _>>() });
    let repeated = json!({ "type": "array", "maxItems": 1000, "items": { "type": "string", "maxLength": 1000 } });
    let hostile = [
        String::new(),
        "not json".to_owned(),
        "7".to_owned(),
        "true".to_owned(),
        "{}".to_owned(),
        deep,
        abyss,
        wide.to_string(),
        repeated.to_string(),
        " ".repeat(20_000),
        json!({ "type": "strnig" }).to_string(),
        json!({ "type": 5 }).to_string(),
        json!({ "type": [] }).to_string(),
        json!({ "$ref": "#" }).to_string(),
        json!({ "allOf": [{ "$ref": "#" }] }).to_string(),
        json!({ "type": "object", "properties": { "a": { "$ref": "https://example.org/x" } } }).to_string(),
        json!({ "type": "object", "properties": { "": { "type": "null" } } }).to_string(),
        json!({ "type": "object", "properties": [] }).to_string(),
        json!({ "type": "object", "required": ["missing"] }).to_string(),
        json!({ "type": "string", "maxLength": -1 }).to_string(),
        json!({ "type": "string", "maxLength": 1e30 }).to_string(),
        json!({ "type": "string", "minLength": 5, "maxLength": 2 }).to_string(),
        json!({ "type": "string", "pattern": "^(((a+)+)+)+$" }).to_string(),
        json!({ "type": "string", "pattern": "unanchored" }).to_string(),
        json!({ "type": "string", "pattern": "^[^a]$" }).to_string(),
        json!({ "type": "integer", "minimum": i64::MIN }).to_string(),
        json!({ "type": "integer", "maximum": 1e300 }).to_string(),
        json!({ "type": "integer", "minimum": 2, "maximum": 1 }).to_string(),
        json!({ "type": "number", "minimum": 0 }).to_string(),
        json!({ "type": "array", "items": false }).to_string(),
        json!({ "enum": [] }).to_string(),
        json!({ "enum": "a" }).to_string(),
        json!({ "type": "string", "enum": [1] }).to_string(),
        json!({ "anyOf": [] }).to_string(),
        json!({ "type": "object", "properties": { "integral_part": { "type": "string" },
            "amount": { "type": "number" } } })
        .to_string(),
        json!({ "not": {} }).to_string(),
    ];
    for schema in hostile {
        let request = GenerationRequest {
            json_schema: Some(schema.clone()),
            ..ask("Hi", 5)
        };
        let outcome = service().generate("smol", request, &call()).await;
        let shown: String = schema.chars().take(80).collect();
        match outcome {
            Err(Error::InvalidArgument(_) | Error::TooLarge { .. }) => {}
            other => panic!("{shown}: {other:?}"),
        }
    }
    written(service(), "smol", "Hi", 2).await;
}

#[tokio::test]
async fn the_largest_schemas_that_are_allowed_work_or_are_refused() {
    let properties: serde_json::Map<_, _> = (0..64)
        .map(|n| (format!("p{n}"), json!({ "type": "string", "maxLength": 300 })))
        .collect();
    let optional = json!({ "type": "object", "properties": properties });
    let mut nested = json!({ "type": "boolean" });
    for _ in 0..11 {
        nested = json!({ "anyOf": [nested, { "type": "null" }] });
    }
    let long = json!({ "type": "string", "maxLength": 1000 });
    let items = json!({ "type": "array", "maxItems": 1000, "items": { "type": "integer" } });
    for schema in [optional, nested, long, items] {
        let request = GenerationRequest {
            json_schema: Some(schema.to_string()),
            ..ask("Hi", 3)
        };
        match service().generate("smol", request, &call()).await {
            Ok(mut completion) => {
                completion.text().await.unwrap();
            }
            Err(Error::InvalidArgument(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

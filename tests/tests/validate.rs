//! What a person reads when a submission is wrong, and an author when a form is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_engine::{CallContext, CallError, FormInput, Plugin, PluginError, Setup};
use formwork_tests::{form, install, submission};
use serde_json::{Value, json};

async fn output(plugin: &Plugin, form: &FormInput, settings: &Value, data: &Value) -> Value {
    let context = CallContext {
        owner: "test".into(),
        ..CallContext::default()
    };
    let report = plugin
        .work(
            &Setup::new(form.clone(), settings.to_string()),
            &submission(data),
            context,
        )
        .await;
    report
        .result
        .unwrap_or_else(|error| panic!("{}: {error}", form.schema))
        .json
}

async fn refusal(plugin: &Plugin, form: &FormInput, settings: &Value) -> PluginError {
    let context = CallContext {
        owner: "test".into(),
        ..CallContext::default()
    };
    match plugin
        .prepare(&Setup::new(form.clone(), settings.to_string()), context)
        .await
        .result
    {
        Err(CallError::Plugin(error)) => error,
        other => panic!("{}: expected a refusal, got {other:?}", form.schema),
    }
}

/// The findings as `pointer code: message`.
fn lines(output: &Value) -> Vec<String> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = output["findings"].as_array().expect("an output has findings");
    findings
        .iter()
        .map(|f| format!("{} {}: {}", text(f, "pointer"), text(f, "code"), text(f, "message")))
        .collect()
}

#[tokio::test]
async fn each_mistake_says_where_and_what_would_be_right() {
    let plugin = install("validate").await;
    let cases = [
        (json!({"minimum": 18}), json!(17), " minimum: must be at least 18"),
        (
            json!({"exclusiveMaximum": 5}),
            json!(5),
            " exclusiveMaximum: must be less than 5",
        ),
        (
            json!({"multipleOf": 0.01}),
            json!(1.234),
            " multipleOf: must have at most 2 decimals",
        ),
        (
            json!({"type": "integer"}),
            json!("7"),
            " type: must be a whole number, written without quotes",
        ),
        (
            json!({"type": ["string", "null"]}),
            json!(7),
            " type: must be null or a text, not a number",
        ),
        (json!({"minLength": 1}), json!(""), " minLength: must not be empty"),
        (
            json!({"maxLength": 2}),
            json!("größe"),
            " maxLength: must have at most 2 characters, it has 5",
        ),
        (json!({"enum": ["a", "b"]}), json!("c"), " enum: must be one of: a, b"),
        (json!({"const": 4}), json!(5), " const: must be 4"),
        (
            json!({"uniqueItems": true}),
            json!([1, 2, 1]),
            " uniqueItems: must not hold the same entry twice: entries 1 and 3 are equal",
        ),
        (
            json!({"format": "email"}),
            json!("ada"),
            " format: must be a valid e-mail address, for example name@example.org",
        ),
        (
            json!({"format": "date"}),
            json!("2026-02-30"),
            " format: must be a date that exists, as year-month-day, for example 2026-03-14",
        ),
        (
            json!({"pattern": "^[A-Z]{2}$", "examples": ["DE"]}),
            json!("de"),
            " pattern: has the wrong form; a right one is, for example, DE",
        ),
        (json!({"not": {"const": 1}}), json!(1), " not: must not be 1"),
        (
            json!({"contains": {"const": 1}, "minContains": 2}),
            json!([1]),
            " contains: must contain at least 2 entries of the kind the form asks for",
        ),
        (
            json!({"properties": {"a/b": false}}),
            json!({"a/b": 1}),
            "/a~1b falseSchema: is not expected here; remove it",
        ),
        (json!(false), json!(1), " falseSchema: no data is accepted by this form"),
        (
            json!({"required": ["a"], "properties": {"a": {"title": "Your age"}}}),
            json!({}),
            "/a required: Your age is required",
        ),
        (
            json!({"dependentRequired": {"card": ["cvc"]}}),
            json!({"card": 1}),
            "/cvc dependentRequired: is required when `card` is given",
        ),
        (
            json!({"additionalProperties": false}),
            json!({"x~y": 1}),
            "/x~0y additionalProperties: is not expected here; remove it",
        ),
        (
            json!({"unevaluatedProperties": false}),
            json!({"x": 1}),
            "/x unevaluatedProperties: is not expected here; remove it or correct its name",
        ),
        (
            json!({"propertyNames": {"maxLength": 2}}),
            json!({"abc": 1}),
            "/abc propertyNames: is not an allowed name here: the name must have at most 2 characters, it has 3",
        ),
        (
            json!({"properties": {"zip": {"title": "Zip code", "$ref": "#/$defs/zip"}}, "$defs": {"zip": {"minLength": 5}}}),
            json!({"zip": "1"}),
            "/zip minLength: Zip code must have at least 5 characters, it has 1",
        ),
        (
            json!({"if": {"properties": {"pet": {"const": true}}}, "then": {"required": ["pet_name"]}}),
            json!({"pet": true}),
            "/pet_name required: is required",
        ),
    ];
    for (schema, data, expected) in cases {
        let answer = output(&plugin, &form(&schema), &json!({}), &data).await;
        assert_eq!(answer["valid"], false, "{schema}");
        assert_eq!(lines(&answer), [expected], "{schema}");
    }
}

#[tokio::test]
async fn details_carry_the_facts_for_programs() {
    let plugin = install("validate").await;
    let schema = json!({"properties": {"age": {"minimum": 18}, "size": {"enum": ["S", "M"]}}});
    let answer = output(&plugin, &form(&schema), &json!({}), &json!({"age": 1, "size": "X"})).await;
    let findings = &answer["findings"];
    assert_eq!(findings[0]["limit"], 18);
    assert_eq!(findings[0]["schema_pointer"], "/properties/age/minimum");
    assert_eq!(findings[1]["allowed"], json!(["S", "M"]));
}

#[tokio::test]
async fn the_nearest_alternative_is_the_one_reported() {
    let plugin = install("validate").await;
    let person =
        json!({"properties": {"kind": {"const": "person"}, "name": {"minLength": 1}}, "required": ["kind", "name"]});
    let company =
        json!({"properties": {"kind": {"const": "company"}, "vat": {"minLength": 9}}, "required": ["kind", "vat"]});
    let schema = json!({"properties": {"buyer": {"oneOf": [person, company]}}});
    let cases = [
        (
            schema,
            json!({"buyer": {"kind": "company"}}),
            "/buyer/vat required: is required",
        ),
        (
            json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}),
            json!([]),
            " anyOf: must be a text or a whole number",
        ),
        (
            json!({"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}),
            json!({}),
            " anyOf: at least one of these is required: `phone` and `email`",
        ),
        (
            json!({"oneOf": [{"const": "a"}, {"enum": ["b", "a"]}]}),
            json!("c"),
            " oneOf: must be one of: a, b",
        ),
        (
            json!({"oneOf": [{"minimum": 1}, {"minimum": 2}]}),
            json!(3),
            " oneOf: matches the alternatives 1 and 2 at once and must match exactly one; remove what belongs to the others",
        ),
    ];
    for (schema, data, expected) in cases {
        let answer = output(&plugin, &form(&schema), &json!({}), &data).await;
        assert_eq!(lines(&answer), [expected], "{schema}");
    }
}

#[tokio::test]
async fn findings_are_capped_and_the_rest_is_counted() {
    let plugin = install("validate").await;
    let schema = json!({"items": {"type": "string"}});
    let data = json!((0..30).collect::<Vec<_>>());
    let answer = output(&plugin, &form(&schema), &json!({"max_findings": 10}), &data).await;
    let findings = answer["findings"].as_array().expect("a list");
    assert_eq!(findings.len(), 11);
    assert_eq!(
        (&findings[10]["code"], &findings[10]["severity"], &findings[10]["count"]),
        (&json!("more-findings"), &json!("info"), &json!(20))
    );
}

#[tokio::test]
async fn formats_are_remarks_where_the_settings_say_so() {
    let plugin = install("validate").await;
    let form = form(&json!({"format": "email"}));
    let answer = output(&plugin, &form, &json!({"formats": "annotate"}), &json!("ada")).await;
    assert_eq!(answer["valid"], true);
}

#[tokio::test]
async fn catastrophic_patterns_end() {
    let plugin = install("validate").await;
    // The look-ahead keeps it off the linear engine.
    let form = form(&json!({"pattern": "^(?=a)(a|a)*\\1$"}));
    let answer = output(&plugin, &form, &json!({}), &json!("a".repeat(60) + "b")).await;
    assert_eq!(answer["valid"], false);
}

#[tokio::test]
async fn a_form_that_cannot_be_used_is_refused_with_the_place_and_the_cure() {
    let plugin = install("validate").await;
    let cases = [
        (
            json!({"properties": {"a": {"type": "strin"}}}),
            "/properties/a/type",
            "must be",
        ),
        (
            json!({"title": "Form", "properties": {"a": {"minLength": -1}}}),
            "/properties/a/minLength",
            "must be at least 0",
        ),
        (
            json!({"properties": {"a": {"pattern": "(" }}}),
            "/properties/a/pattern",
            "regular expression",
        ),
        (
            json!({"properties": {"a": {"$ref": "#/$defs/nope"}}}),
            "/properties/a/$ref",
            "nothing stands at",
        ),
        (
            json!({"properties": {"a": {"$ref": "#nope"}}}),
            "/properties/a/$ref",
            "anchor",
        ),
        (
            json!({"properties": {"a": {"$ref": "https://example.org/a.json#/x"}}}),
            "/properties/a/$ref",
            "not registered",
        ),
        (
            json!({"$schema": "https://example.org/draft"}),
            "/$schema",
            "no draft that is known",
        ),
        (json!(7), "", "must be an object"),
    ];
    for (schema, pointer, cure) in cases {
        let error = refusal(&plugin, &form(&schema), &json!({})).await;
        let problem = error.problems.first().expect("a refusal has problems");
        assert_eq!(
            (error.case, problem.pointer.as_str()),
            ("invalid-form", pointer),
            "{schema}: {problem:?}"
        );
        assert!(problem.message.contains(cure), "{schema}: {}", problem.message);
    }
}

#[tokio::test]
async fn a_mistake_in_a_registered_schema_names_its_uri() {
    let plugin = install("validate").await;
    for wrong in [json!({"items": {"type": "strin"}}), json!({"items": {"pattern": "("}})] {
        let mut form = form(&json!({"$ref": "https://example.org/a.json"}));
        form.schemas
            .push(("https://example.org/a.json".into(), wrong.to_string()));
        let error = refusal(&plugin, &form, &json!({})).await;
        let problem = error.problems.first().expect("a refusal has problems");
        assert!(problem.pointer.starts_with("/items/"), "{problem:?}");
        assert!(
            problem
                .message
                .contains("in the registered schema `https://example.org/a.json`"),
            "{problem:?}"
        );
    }
}

#[tokio::test]
async fn wrong_settings_are_refused() {
    let plugin = install("validate").await;
    for settings in [
        json!({"formats": "maybe"}),
        json!({"max_findings": 0}),
        json!({"max_finding": 5}),
        json!([]),
    ] {
        let error = refusal(&plugin, &form(&json!(true)), &settings).await;
        assert_eq!(error.case, "invalid-settings", "{settings}");
    }
}

#[tokio::test]
async fn a_metaschema_registered_with_the_form_can_be_named() {
    let plugin = install("validate").await;
    let mut form = form(&json!({"$schema": "https://example.org/meta", "minimum": 5}));
    let meta = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.org/meta"});
    form.schemas.push(("https://example.org/meta".into(), meta.to_string()));
    assert_eq!(output(&plugin, &form, &json!({}), &json!(4)).await["valid"], false);
}

//! Plugins in Python and JavaScript: built from this tree, in the sandbox, through the same contract as Rust ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_engine::floor::work_plainly;
use formwork_engine::{CallContext, CallError, Frame, Limit, Plugin, PluginError};
use formwork_tests::{install_folder, setup, submission};
use serde_json::{Value, json};

const PYTHON_VALIDATOR: &str = "examples/plugins/python/cross-field-rules";
const JAVASCRIPT_VALIDATOR: &str = "examples/plugins/javascript/addresses-and-tax-numbers";
const PYTHON_EXPORTER: &str = "tests/guests/python-exporter";
const JAVASCRIPT_EXTRACTOR: &str = "tests/guests/javascript-extractor";

fn context() -> CallContext {
    CallContext {
        owner: "test".into(),
        ..CallContext::default()
    }
}

/// The findings as `pointer code severity`: the same from a snapshot as from an instance that prepares itself.
async fn findings(plugin: &Plugin, settings: &Value, data: &Value) -> Vec<String> {
    let setup = setup(&json!(true), settings);
    let plain = work_plainly(plugin, &setup, &submission(data), &context()).await;
    plugin.snapshot(&setup).await.expect("it can be snapshotted");
    let report = plugin.work(&setup, &submission(data), context()).await;
    let output = report.result.unwrap_or_else(|error| panic!("{data}: {error}")).json;
    assert_eq!(plain.result.expect("the plain path answers too").json, output, "{data}");
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("a text").to_owned();
    let findings = output["findings"].as_array().expect("an output has findings");
    findings
        .iter()
        .map(|f| ["pointer", "code", "severity"].map(|key| text(f, key)).join(" "))
        .collect()
}

/// The problems that `prepare` names, as `case pointer code`.
async fn problems(plugin: &Plugin, settings: &Value) -> Vec<String> {
    match plugin.prepare(&setup(&json!(true), settings), context()).await.result {
        Err(CallError::Plugin(PluginError { case, problems, .. })) => problems
            .iter()
            .map(|problem| format!("{case} {} {}", problem.pointer, problem.code))
            .collect(),
        other => panic!("{settings}: expected a refusal, got {other:?}"),
    }
}

/// How a call ended that a test made fail.
async fn failure(plugin: &Plugin, data: &Value) -> CallError {
    let report = plugin
        .work(&setup(&json!(true), &json!({})), &submission(data), context())
        .await;
    report.result.expect_err(&data.to_string())
}

#[tokio::test]
async fn python_rules_stand_at_their_places() {
    let plugin = install_folder(PYTHON_VALIDATOR).await;
    let settings = json!({ "rules": [
        { "code": "too-young", "message": "m", "at": "/people/*/born", "age": { "min": 18 },
          "when": { "at": "/people/*/role", "in": ["carer"] } },
        { "code": "order", "message": "m", "at": "/stay/to", "after": { "date": "/stay/from", "max_days": 30 } },
        { "code": "iban", "message": "m", "at": "/iban", "checksum": "iban", "severity": "warning" },
        { "code": "total", "message": "m", "at": "/total", "sum": ["/items/*/price", "/shipping"] },
        { "code": "differs", "message": "m", "at": "/again", "equals": "/email" },
        { "code": "reason", "message": "m", "at": "/reason", "required": true,
          "when": { "at": "/late", "in": [true] } },
        { "code": "zip", "message": "m", "at": "/a~1b/zip", "matches": "[0-9]{5}",
          "when": { "at": "/country", "matches": "DE|FR" } },
    ] });
    // Submitted on 2026-03-14.
    let cases = [
        (json!({}), vec![]),
        (
            json!({ "people": [{ "born": "2008-03-15", "role": "carer" }, { "born": "2020-01-01", "role": "child" },
                { "born": "2008-03-14", "role": "carer" }] }),
            vec!["/people/0/born too-young error"],
        ),
        (
            json!({ "stay": { "from": "2026-02-28", "to": "2026-02-27" } }),
            vec!["/stay/to order error"],
        ),
        (
            json!({ "stay": { "from": "2026-01-01", "to": "2026-02-01" } }),
            vec!["/stay/to order error"],
        ),
        (json!({ "stay": { "from": "2026-01-01", "to": "no date" } }), vec![]),
        (
            json!({ "iban": "DE89 3704 0044 0532 0130 01" }),
            vec!["/iban iban warning"],
        ),
        (
            json!({ "items": [{ "price": 0.1 }, { "price": "0.2" }], "shipping": 4.9, "total": 5.2 }),
            vec![],
        ),
        (
            json!({ "items": [{ "price": 1 }], "shipping": 1, "total": 3 }),
            vec!["/total total error"],
        ),
        (
            json!({ "email": "ä@example.org", "again": "a@example.org" }),
            vec!["/again differs error"],
        ),
        (json!({ "late": true }), vec!["/reason reason error"]),
        (json!({ "late": 1 }), vec![]),
        (
            json!({ "country": "FR", "a/b": { "zip": "1234" }, "late": true, "reason": "" }),
            vec!["/reason reason error", "/a~1b/zip zip error"],
        ),
        (json!(["not", "an", "object"]), vec![]),
    ];
    for (data, expected) in cases {
        assert_eq!(findings(&plugin, &settings, &data).await, expected, "{data}");
    }
}

#[tokio::test]
async fn python_names_every_mistake_in_the_settings() {
    let plugin = install_folder(PYTHON_VALIDATOR).await;
    let rule = |changes: Value| {
        let mut rule = json!({ "code": "c", "message": "m", "at": "/a" });
        for (name, value) in changes.as_object().unwrap() {
            rule[name] = value.clone();
        }
        rule
    };
    let settings = json!({ "rules": [
        rule(json!({ "matches": "(" })),
        rule(json!({ "required": true })),
        rule(json!({ "age": { "min": "18" } })),
        rule(json!({})),
        rule(json!({ "required": true, "extra": 1 })),
        rule(json!({ "equals": "no-pointer" })),
        rule(json!({ "checksum": "crc" })),
        7,
    ] });
    let expected = [
        "/rules/0/matches pattern",
        "/rules/2/age/min type",
        "/rules/3 check",
        "/rules/4/extra unknown",
        "/rules/5/equals pointer",
        "/rules/6/checksum enum",
        "/rules/7 type",
    ];
    assert_eq!(
        problems(&plugin, &settings).await,
        expected.map(|line| format!("invalid-settings {line}"))
    );
    assert_eq!(problems(&plugin, &Value::Null).await, ["invalid-settings /rules rules"]);
    assert_eq!(problems(&plugin, &json!([])).await, ["invalid-settings  type"]);
}

#[tokio::test]
async fn javascript_checks_postal_codes_and_tax_numbers() {
    let plugin = install_folder(JAVASCRIPT_VALIDATOR).await;
    let settings = json!({
        "postal_codes": [{ "at": "/zip", "country": "/country", "default_country": "DE" }],
        "vat_numbers": [{ "at": "/vat" }],
    });
    let cases = [
        (json!({}), vec![]),
        (json!({ "zip": "10115" }), vec![]),
        (json!({ "zip": "1011" }), vec!["/zip format error"]),
        (json!({ "zip": "sw1a 1aa", "country": "gb" }), vec![]),
        (json!({ "zip": "QW1A 1AA", "country": "GB" }), vec!["/zip format error"]),
        (json!({ "zip": "anything", "country": "AQ" }), vec![]),
        (json!({ "zip": 10115 }), vec![]),
        (json!({ "vat": "FR 40 303 265 045" }), vec![]),
        (json!({ "vat": "FR41303265045" }), vec!["/vat check-digit error"]),
        (json!({ "vat": "NL004495445B01" }), vec![]),
        (json!({ "vat": "BE0428759498" }), vec!["/vat check-digit error"]),
        (
            json!({ "zip": "ü", "vat": "PL123" }),
            vec!["/zip format error", "/vat format error"],
        ),
    ];
    for (data, expected) in cases {
        assert_eq!(findings(&plugin, &settings, &data).await, expected, "{data}");
    }
    let wrong = json!({
        "postal_codes": [{ "at": "/zip" }, { "at": "zip", "default_country": "DE" }],
        "vat_numbers": [{ "at": "/vat", "default_country": "XX", "more": 1 }],
        "others": [],
    });
    let expected = [
        "/others unknown",
        "/postal_codes/0 required",
        "/postal_codes/1/at pointer",
        "/vat_numbers/0/more unknown",
        "/vat_numbers/0/default_country country",
    ];
    assert_eq!(
        problems(&plugin, &wrong).await,
        expected.map(|line| format!("invalid-settings {line}"))
    );
}

#[tokio::test]
async fn python_writes_an_export() {
    let plugin = install_folder(PYTHON_EXPORTER).await;
    let setup = setup(&json!({ "type": "object" }), &json!({}));
    plugin.snapshot(&setup).await.unwrap();
    let mut file = plugin
        .export_frame(&setup, Frame::Begin, context())
        .await
        .result
        .unwrap();
    let mut given = submission(&json!({ "name": "Zoë 🌍" }));
    given.results = vec![("check".into(), json!({ "valid": true }).to_string())];
    let report = plugin.work(&setup, &given, context()).await;
    let output = report.result.unwrap();
    assert_eq!(output.json["records"], 1);
    file.extend(output.export.unwrap());
    assert_eq!(report.usage.host_calls, 2, "a log line and a write");
    file.extend(plugin.export_frame(&setup, Frame::End, context()).await.result.unwrap());
    assert_eq!(
        String::from_utf8(file).unwrap(),
        "# begin\n{\"form\": \"test {'type': 'object'}\", \"at\": \"2026-03-14T15:09:26.535Z\", \
         \"name\": \"Zoë 🌍\", \"check\": {\"valid\": true}}\n# end – ✓\n"
    );
}

#[tokio::test]
async fn javascript_spans_count_code_points() {
    let plugin = install_folder(JAVASCRIPT_EXTRACTOR).await;
    let setup = setup(&json!({ "type": "object" }), &json!({}));
    plugin.snapshot(&setup).await.unwrap();
    let report = plugin
        .work(&setup, &submission(&json!({ "text": "🌍🌍 ABC é XY" })), context())
        .await;
    let output = report.result.unwrap().json;
    let field = |index: usize| {
        let field = &output["fields"][index];
        (field["value"].clone(), field["spans"][0]["offset"].clone())
    };
    assert_eq!(field(0), (json!("abc"), json!(3)));
    assert_eq!(field(1), (json!("xy"), json!(9)));
    assert_eq!(output["form"], "test {\"type\":\"object\"}");
}

/// What every language must make of a plugin's failures.
async fn failures_reach_the_host_typed(plugin: &Plugin, exception: &[&str]) {
    let case = |error: CallError| match error {
        CallError::Plugin(error) => (error.case, error.message, error.problems),
        other => panic!("expected a plugin's error, got {other:?}"),
    };
    let (name, message, _) = case(failure(plugin, &json!({ "fault": "exception" })).await);
    assert_eq!(name, "internal");
    for part in exception {
        assert!(message.contains(part), "{message}");
    }
    let (name, message, _) = case(failure(plugin, &json!({ "fault": "unavailable" })).await);
    assert_eq!(
        (name, message.as_str()),
        ("unavailable", "the register is being repaired")
    );
    let (name, _, problems) = case(failure(plugin, &json!({ "fault": "refused" })).await);
    assert_eq!((name, problems[0].pointer.as_str()), ("invalid-input", "/name"));

    let (name, message, _) = case(failure(plugin, &json!({ "fault": "model" })).await);
    assert_eq!(name, "unavailable", "what the host refused for now");
    assert!(message.contains("no-such-model"), "{message}");

    let limits = [("memory", Limit::MemoryBytes), ("loop", Limit::CpuMs)];
    for (fault, limit) in limits {
        match failure(plugin, &json!({ "fault": fault })).await {
            CallError::Limit(exceeded) => assert_eq!(exceeded.limit, limit),
            other => panic!("{fault}: expected a limit, got {other:?}"),
        }
    }
    let error = failure(plugin, &json!({ "fault": "recursion" })).await;
    let ended = matches!(&error, CallError::Plugin(error) if error.case == "internal")
        || matches!(&error, CallError::Limit(exceeded) if exceeded.limit == Limit::Stack);
    assert!(ended, "{error:?}");

    let setup = setup(&json!(true), &json!({ "fault": "call" }));
    let error = plugin.prepare(&setup, context()).await.result.unwrap_err();
    // Not an exception the plugin could catch and go on from.
    assert!(matches!(error, CallError::Trap(_)), "{error:?}");
    assert!(error.to_string().contains("prepare called an import"), "{error}");
}

#[tokio::test]
async fn a_failing_python_plugin_says_why() {
    let plugin = install_folder(PYTHON_EXPORTER).await;
    failures_reach_the_host_typed(&plugin, &["KeyError: 'missing'", "app.py", "in exception"]).await;
    let error = failure(&plugin, &json!({ "fault": "leave" })).await;
    assert!(
        matches!(&error, CallError::Plugin(error) if error.message.contains("SystemExit: 3")),
        "{error:?}"
    );
}

#[tokio::test]
async fn sockets_are_imported_and_never_there() {
    let plugin = install_folder(PYTHON_EXPORTER).await;
    let error = failure(&plugin, &json!({ "fault": "network" })).await;
    assert!(
        matches!(&error, CallError::Trap(said) if said.contains("a plugin has no network")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_failing_javascript_plugin_says_why() {
    let plugin = install_folder(JAVASCRIPT_EXTRACTOR).await;
    failures_reach_the_host_typed(&plugin, &["TypeError", "extractor.js"]).await;
    let error = failure(&plugin, &json!({ "fault": "broken" })).await;
    assert!(
        matches!(&error, CallError::Plugin(error) if error.message == "the table is empty"),
        "{error:?}"
    );
    let error = failure(&plugin, &json!({ "fault": "text" })).await;
    assert!(
        matches!(&error, CallError::Plugin(error) if error.message == "thrown: a text"),
        "{error:?}"
    );
}

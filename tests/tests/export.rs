//! What leaves as a file comes back as the same values.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_engine::{CallContext, CallError, FormInput, Frame, Plugin, Setup, SubmissionInput};
use formwork_tests::{form, install, setup, submission};
use serde_json::{Value, json};

fn context() -> CallContext {
    CallContext {
        owner: "test".into(),
        ..CallContext::default()
    }
}

/// `begin`, one `export` a submission, `end`, concatenated.
async fn file(plugin: &Plugin, form: &FormInput, settings: &Value, submissions: &[SubmissionInput]) -> Vec<u8> {
    let setup = Setup::new(form.clone(), settings.to_string());
    let mut file = plugin
        .export_frame(&setup, Frame::Begin, context())
        .await
        .result
        .expect("begin works");
    for submission in submissions {
        let output = plugin
            .work(&setup, submission, context())
            .await
            .result
            .expect("export works");
        assert_eq!(output.json["records"], 1);
        file.extend(output.export.expect("an exporter writes"));
    }
    file.extend(
        plugin
            .export_frame(&setup, Frame::End, context())
            .await
            .result
            .expect("end works"),
    );
    file
}

fn rows(file: &[u8], delimiter: u8) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .from_reader(file);
    reader
        .records()
        .map(|row| row.expect("RFC 4180").iter().map(str::to_owned).collect())
        .collect()
}

#[tokio::test]
async fn csv_cells_come_back_as_they_were() {
    let plugin = install("export").await;
    let texts = [
        "plain",
        "a \"quoted\" word",
        "two\nlines",
        "two\r\nlines",
        "a, b; c",
        " edges ",
        "größe 漢字 🦀",
        "",
        "-5",
        "a=b",
    ];
    let settings = json!({"format": "csv", "columns": [{"name": "text", "pointer": "/text"}, {"name": "when", "meta": "submitted_at"}]});
    let submissions: Vec<_> = texts.iter().map(|text| submission(&json!({"text": text}))).collect();
    let file = file(&plugin, &form(&json!(true)), &settings, &submissions).await;
    let rows = rows(&file, b',');
    assert_eq!(rows[0], ["text", "when"]);
    let came_back: Vec<&str> = rows[1..].iter().map(|row| row[0].as_str()).collect();
    assert_eq!(came_back, texts);
    assert!(rows[1..].iter().all(|row| row[1] == submissions[0].submitted_at));
}

#[tokio::test]
async fn formulas_are_guarded_unless_the_form_says_not() {
    let plugin = install("export").await;
    let submissions = ["=1+1", "+A1", "-A1", "@A1", "\t=1", "-7", "7"].map(|text| submission(&json!({"t": text})));
    for (guard, mark) in [(true, "'"), (false, "")] {
        let settings = json!({"format": "csv", "header": false, "delimiter": ";", "formula_guard": guard, "columns": [{"name": "t", "pointer": "/t"}]});
        let file = file(&plugin, &form(&json!(true)), &settings, &submissions).await;
        let cells: Vec<String> = rows(&file, b';').into_iter().flatten().collect();
        let expected = [
            format!("{mark}=1+1"),
            format!("{mark}+A1"),
            format!("{mark}-A1"),
            format!("{mark}@A1"),
            format!("{mark}\t=1"),
            "-7".into(),
            "7".into(),
        ];
        assert_eq!(cells, expected);
    }
}

#[tokio::test]
async fn default_columns_are_the_leaves_of_the_schema_in_its_order() {
    let plugin = install("export").await;
    let schema = json!({
        "type": "object",
        "properties": {
            "zeta": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "tags": {"type": "array", "items": {"properties": {"deep": {}}}},
            "id": {"type": "integer"},
            "parent": {"$ref": "#"}
        },
        "if": {"required": ["tags"]},
        "then": {"properties": {"why": {}}},
        "$defs": {"address": {"properties": {"zip": {}, "a/b": {}}}}
    });
    let data = json!({"id": 7, "tags": ["x", {"y": null}], "address": {"a/b": true, "zip": "01234"}, "why": null});
    let settings = json!({"format": "csv"});
    let file = file(
        &plugin,
        &form(&schema),
        &settings,
        &[submission(&data), submission(&json!({}))],
    )
    .await;
    let rows = rows(&file, b',');
    assert_eq!(
        rows[0],
        [
            "id",
            "submitted_at",
            "zeta",
            "address.zip",
            "address.a/b",
            "tags",
            "data.id",
            "parent",
            "why"
        ]
    );
    assert_eq!(rows[1][2..], ["", "01234", "true", "[\"x\",{\"y\":null}]", "7", "", ""]);
    assert_eq!(rows[2][2..], [""; 7]);
}

#[tokio::test]
async fn results_of_earlier_steps_become_columns() {
    let plugin = install("export").await;
    let mut submission = submission(&json!({}));
    submission.results = vec![(
        "intent".into(),
        r#"{"label":"refund","scores":[{"score":0.9100}]}"#.into(),
    )];
    let columns = json!([
        {"name": "label", "result": "intent", "pointer": "/label"},
        {"name": "score", "result": "intent", "pointer": "/scores/0/score"},
        {"name": "other", "result": "not_run", "pointer": "/x"},
        {"name": "id", "meta": "id"}
    ]);
    let csv = file(
        &plugin,
        &form(&json!(true)),
        &json!({"format": "csv", "columns": columns}),
        std::slice::from_ref(&submission),
    )
    .await;
    assert_eq!(rows(&csv, b',')[1], ["refund", "0.9100", "", submission.id.as_str()]);
    let lines = file(
        &plugin,
        &form(&json!(true)),
        &json!({"columns": columns}),
        std::slice::from_ref(&submission),
    )
    .await;
    let line: Value = serde_json::from_slice(&lines).expect("one JSON value");
    assert_eq!(
        line,
        json!({"label": "refund", "score": 0.91, "other": null, "id": submission.id})
    );
}

#[tokio::test]
async fn json_lines_hold_the_whole_submission_digit_by_digit() {
    let plugin = install("export").await;
    let mut first = submission(&Value::Null);
    first.data =
        "{ \"sum\": 1.10,\n \"big\": 123456789012345678901234567890, \"text\": \"a \\\"b\\\"\\n c 🦀\" }".into();
    first.results = vec![("check".into(), "{\"valid\": true}".into())];
    let second = submission(&json!([1, 2]));
    let file = file(&plugin, &form(&json!(true)), &json!({}), &[first.clone(), second]).await;
    let text = String::from_utf8(file).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains(r#""data":{"sum":1.10,"big":123456789012345678901234567890,"#),
        "{}",
        lines[0]
    );
    let parsed: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect();
    assert_eq!(
        parsed[0]["data"],
        serde_json::from_str::<Value>(&first.data).expect("it is JSON")
    );
    assert_eq!(parsed[0]["results"]["check"]["valid"], true);
    assert_eq!(
        parsed[1],
        json!({"id": first.id, "submitted_at": first.submitted_at, "data": [1, 2], "results": {}})
    );
}

#[tokio::test]
async fn wrong_settings_are_refused_with_their_place() {
    let plugin = install("export").await;
    let cases = [
        (json!({"format": "xml"}), "/format"),
        (json!({"format": "csv", "columns": []}), "/columns"),
        (
            json!({"format": "csv", "columns": [{"name": "a", "pointer": "a"}]}),
            "/columns/0/pointer",
        ),
        (
            json!({"format": "csv", "columns": [{"name": "a", "pointer": "/a~2"}]}),
            "/columns/0/pointer",
        ),
        (json!({"format": "csv", "columns": [{"name": "a"}]}), "/columns/0"),
        (
            json!({"format": "csv", "columns": [{"name": "a", "meta": "id"}, {"name": "a", "meta": "id"}]}),
            "/columns/1/name",
        ),
        (json!({"format": "csv", "delimiter": "ab"}), "/delimiter"),
        (json!({"delimiter": ";"}), "/delimiter"),
    ];
    for (settings, pointer) in cases {
        let report = plugin.prepare(&setup(&json!(true), &settings), context()).await;
        match report.result {
            Err(CallError::Plugin(error)) => {
                let problem = error.problems.first().expect("a refusal has problems");
                assert_eq!(
                    (error.case, problem.pointer.as_str()),
                    ("invalid-settings", pointer),
                    "{settings}: {problem:?}"
                );
            }
            other => panic!("{settings}: expected a refusal, got {other:?}"),
        }
    }
}

//! The binary as a person or a script uses it: exit codes, output, and how a server ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

fn formwork(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_formwork"));
    command
        .args(arguments)
        .env_remove("FORMWORK_SERVER")
        .env_remove("FORMWORK_CONFIG")
        .env_remove("FORMWORK_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    formwork(arguments).output().unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], code: i32, says: &str) {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(says), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "a failure prints no result");
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    fails(&["nonsense"], 2, "unrecognized subcommand");
    fails(
        &["serve", "--config", "/nonexistent/formwork.toml"],
        2,
        "/nonexistent/formwork.toml",
    );
    fails(&["plugin", "inspect", "/nonexistent/plugin.wasm"], 3, "no such file");
    fails(
        &["plugin", "inspect", env!("CARGO_MANIFEST_PATH")],
        1,
        "not a WebAssembly component",
    );
    // Port 9 (discard) is served nowhere.
    fails(
        &["form", "list", "--server", "http://127.0.0.1:9"],
        5,
        "is `formwork serve` running?",
    );
    fails(&["form", "list", "--server", "127.0.0.1"], 2, "must start with http://");
}

#[test]
fn the_printed_configuration_masks_secrets() {
    let output = formwork(&["serve", "--print-config"])
        .env("FORMWORK_HTTP__TOKEN", "s3cret")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("token = \"********\"") && !text.contains("s3cret"),
        "{text}"
    );
    let unknown = formwork(&["serve", "--print-config"])
        .env("FORMWORK_HTTP__TOKN", "x")
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

/// A server process; killed when the test fails before it ends.
struct Serving {
    child: Child,
    url: String,
    log: BufReader<std::process::ChildStderr>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serving {
    fn start(folder: &Path) -> Self {
        let config = folder.join("formwork.toml");
        let store = folder.join("formwork.db");
        let text = format!(
            "store = \"sqlite:{}\"\nmodels = []\n[http]\nlisten = \"127.0.0.1:0\"\n",
            store.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = formwork(&["serve", "--config", config.to_str().unwrap()])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let url = loop {
            let line = line(&mut log).expect("the server ended before it served");
            if line["message"] == "serving" {
                break format!("http://{}", line["address"].as_str().unwrap());
            }
        };
        Self { child, url, log }
    }

    fn run(&self, arguments: &[&str], input: &dyn std::fmt::Display) -> (Option<i32>, String) {
        let mut child = formwork(arguments)
            .args(["--server", &self.url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

/// The next log line; every one is a JSON object.
fn line(log: &mut impl BufRead) -> Option<Value> {
    let mut text = String::new();
    log.read_line(&mut text).unwrap();
    (!text.is_empty()).then(|| serde_json::from_str(&text).expect(&text))
}

#[test]
fn a_form_is_applied_used_and_looked_at_and_the_server_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Serving::start(folder.path());
    let form = json!({ "schema": { "type": "object", "required": ["name"] },
        "pipeline": [ { "name": "check", "plugin": "validate" } ] });
    let (code, text) = server.run(&["form", "apply", "-", "--id", "people"], &form);
    assert_eq!((code, text.trim()), (Some(0), "people version 1 published"));
    let bad = json!({ "schema": {}, "pipeline": [ { "name": "check", "plugin": "nothing" } ] });
    assert_eq!(server.run(&["form", "apply", "-", "--id", "people"], &bad).0, Some(4));
    assert_eq!(server.run(&["form", "show", "nobody"], &Value::Null).0, Some(3));
    assert_eq!(server.run(&["submit", "nobody", "-"], &json!({})).0, Some(3));

    let many = format!("{}\n\nnot json\n{}\n", json!({ "name": "Bo" }), json!({ "name": "Cy" }));
    let lines = [
        "submit",
        "people",
        "-",
        "--lines",
        "--idempotency-key",
        "import",
        "--json",
    ];
    let submit_lines = || {
        let (code, text) = server.run(&lines, &many);
        let items: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((code, items.len()), (Some(4), 3), "{text}");
        assert_eq!(
            (&items[1]["line"], &items[1]["error"]["code"]),
            (&json!(3), &json!("malformed-json"))
        );
        [items[0]["id"].clone(), items[2]["id"].clone()]
    };
    let first = submit_lines();
    assert_eq!(submit_lines(), first, "repeated, not recorded again");

    let (code, text) = server.run(
        &["submit", "people", "-", "--wait", "30", "--json"],
        &json!({ "name": "Ada" }),
    );
    let submission: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &submission["status"]), (Some(0), &json!("done")));
    let task = submission["steps"][0]["task"].as_str().unwrap();
    let (_, text) = server.run(&["task", "show", task], &Value::Null);
    assert!(text.contains("completed") && text.contains("claimed"), "{text}");
    let (_, text) = server.run(&["task", "list", "--state", "completed", "--json"], &Value::Null);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["items"][0]["id"], task);
    let at_no_time = ["task", "list", "--until", "2020-01-01T00:00:00Z", "--json"];
    let (_, text) = server.run(&at_no_time, &Value::Null);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["items"], json!([]));
    let (code, text) = server.run(&["task", "watch", task], &Value::Null);
    assert!(
        code == Some(0) && text.lines().count() == 3 && text.contains("claimed"),
        "{text}"
    );
    assert_eq!(server.run(&["task", "retry", task], &Value::Null).0, Some(4));
    let (_, text) = server.run(&["pool", "list"], &Value::Null);
    assert!(text.lines().count() == 4 && text.contains("batched"), "{text}");
    let (_, text) = server.run(&["plugin", "list"], &Value::Null);
    assert!(text.contains("validate"), "{text}");

    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let messages: Vec<Value> = std::iter::from_fn(|| line(&mut server.log)).collect();
    assert!(messages.iter().any(|line| line["message"] == "stopped"), "{messages:?}");
    // The submission's correlation id is in the log lines of its task.
    let id = &submission["correlation_id"];
    let in_task = |line: &Value| line["message"] == "step done" && line["span"]["correlation_id"] == *id;
    assert!(messages.iter().any(in_task), "{messages:#?}");
}

#[test]
fn a_cause_that_an_error_names_itself_is_said_once() {
    use formwork_server::cli::exit::Failure;
    let cause = std::io::Error::other("the disk is gone");
    let named = anyhow::Error::new(formwork_server::serve::StartError::Folder {
        path: "data".into(),
        source: cause,
    });
    let text = Failure::Failed(named.context("starting")).to_string();
    assert_eq!(text, "starting: making the folder data: the disk is gone");
}

#[test]
fn a_models_file_is_checked_and_its_declaration_printed() {
    let models = formwork_server::config::load(None).unwrap().config.models;
    assert_eq!(models.len(), 2);
    for model in models {
        let path = model.file.path.display().to_string();
        let output = run(&["--json", "model", "check", &path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["sha256"], model.file.sha256);
        let output = run(&["model", "check", &path]);
        let text = String::from_utf8(output.stdout).unwrap();
        // What is printed is what the configuration takes.
        let (_, declaration) = text.split_once("\n\n").unwrap();
        let declared: toml::Table = toml::from_str(declaration).unwrap();
        assert_eq!(
            declared["models"][0]["file"]["sha256"].as_str(),
            Some(model.file.sha256.as_str())
        );
    }
    fails(
        &["model", "check", "/nonexistent/model.gguf"],
        3,
        "/nonexistent/model.gguf",
    );
    fails(
        &["model", "check", env!("CARGO_MANIFEST_PATH")],
        1,
        "not a usable model file",
    );
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("smaller.gguf").display().to_string();
    let from = formwork_server::config::load(None)
        .unwrap()
        .config
        .models
        .remove(1)
        .file
        .path;
    fails(
        &["model", "quantize", &from.display().to_string(), &to],
        2,
        "--requantize",
    );
}

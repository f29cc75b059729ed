//! What an author meets who writes Python or JavaScript: which folder is what, and what a mistake says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::path::Path;

use formwork_builder::{Language, build};
use tempfile::TempDir;
use wasmparser::{Parser, Payload};

/// A plugin's folder of this kind with these files.
fn plugin(kind: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let manifest = format!(
        "name = \"small\"\nversion = \"1.0.0\"\nkind = \"{kind}\"\ndescription = \"a test\"\nlicence = \"Apache-2.0\"\n\
         contract = \"1.0.0\"\n"
    );
    std::fs::write(folder.path().join("plugin.toml"), manifest).unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn refusal(folder: &Path) -> String {
    build(folder, &folder.join("out"))
        .expect_err("the build fails")
        .to_string()
}

#[test]
fn a_folder_shows_its_language() {
    let cases = [
        (&[("Cargo.toml", "")][..], Some(Language::Rust)),
        (&[("app.py", "")], Some(Language::Python)),
        (&[("package.json", "{}")], Some(Language::JavaScript)),
        (&[], None),
        (&[("app.py", ""), ("package.json", "{}")], None),
    ];
    for (files, expected) in cases {
        let folder = plugin("validator", files);
        assert_eq!(Language::detect(folder.path()).ok(), expected, "{files:?}");
    }
    let both = plugin("validator", &[("app.py", ""), ("package.json", "{}")]);
    assert!(refusal(both.path()).contains("app.py and package.json"));
}

#[test]
fn a_wrong_javascript_plugin_says_what_is_wrong() {
    let package = ("package.json", "{}");
    let cases = [
        (&[("package.json", "{")][..], "package.json: EOF"),
        (&[package], "names index.js, which is not there"),
        (&[package, ("index.js", "export const x = 1;")], "default"),
        (
            &[package, ("index.js", "export default {};")],
            "must export a class as its default",
        ),
        (
            &[package, ("index.js", "export default class {}")],
            "a method named validate",
        ),
        (
            &[package, ("index.js", "import \"formwork:plugin/embeddings@1.0.0\";")],
            "formwork:plugin/embeddings@1.0.0",
        ),
    ];
    for (files, expected) in cases {
        let message = refusal(plugin("validator", files).path());
        assert!(message.contains(expected), "{files:?}: {message}");
    }
    let exporter = plugin("exporter", &[package, ("index.js", "export default class {}")]);
    assert!(refusal(exporter.path()).contains("no exporter can be written in JavaScript yet"));
}

#[test]
fn a_python_plugin_without_its_method_names_it() {
    let folder = plugin("classifier", &[("app.py", "class Plugin:\n    pass\n")]);
    let message = refusal(folder.path());
    assert!(message.contains("must have a method named classify"), "{message}");
}

#[test]
fn a_javascript_component_has_its_modules_at_the_top_and_is_built_once() {
    let module = "export default class { validate() { return []; } }";
    let folder = plugin("validator", &[("package.json", "{}"), ("index.js", module)]);
    let out = TempDir::new().unwrap();
    let built = build(folder.path(), out.path()).unwrap();
    let component = std::fs::read(&built.file).unwrap();
    let mut depth = 0;
    let mut modules = 0;
    for payload in Parser::new(0).parse_all(&component) {
        match payload.unwrap() {
            Payload::ModuleSection { .. } => {
                assert_eq!(depth, 0, "snapshots are made of modules that are not nested");
                modules += 1;
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            _ => {}
        }
    }
    assert!(modules > 1);

    let again = build(folder.path(), out.path()).unwrap();
    assert_eq!(again.digest, built.digest, "the tool would have made another file");
    std::fs::write(folder.path().join("notes.md"), "no source").unwrap();
    assert_eq!(build(folder.path(), out.path()).unwrap().digest, built.digest);
    std::fs::write(folder.path().join("index.js"), format!("{module}\n")).unwrap();
    assert_ne!(build(folder.path(), out.path()).unwrap().digest, built.digest);
}

#[test]
fn messages_name_the_pinned_versions() {
    let python = include_str!("../tools/python/requirements.txt");
    let javascript = include_str!("../tools/javascript/package.json");
    let tool = include_str!("../src/tool.rs");
    assert!(python.contains("componentize-py==0.25.1") && tool.contains("componentize-py==0.25.1"));
    assert!(javascript.contains("\"componentize-qjs\": \"0.4.5\"") && tool.contains("componentize-qjs@0.4.5"));
}

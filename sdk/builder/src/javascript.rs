//! From JavaScript to a component: QuickJS with the plugin's modules evaluated.

use std::path::Path;

use formwork_manifest::{Kind, Manifest};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::tool::JAVASCRIPT;
use crate::{Error, Language, world};

/// The SDK, where an import of `formwork-plugin` finds it.
const SDK: [(&str, &str); 3] = [
    (
        "node_modules/formwork-plugin/package.json",
        include_str!("../../javascript/package.json"),
    ),
    (
        "node_modules/formwork-plugin/index.js",
        include_str!("../../javascript/index.js"),
    ),
    (
        "node_modules/formwork-plugin/errors.js",
        include_str!("../../javascript/errors.js"),
    ),
];

/// The module between the plugin's class and the contract, and the one it finds the class in.
const COMPONENT: &str = "formwork-component.js";
const APP: &str = "formwork-app.js";

/// The entry when `package.json` names none, as Node has it.
const DEFAULT_MAIN: &str = "index.js";

/// Puts the SDK and the two modules beside the plugin's files.
pub(crate) fn complete(plugin: &Path, stage: &mut Stage, manifest: &Manifest) -> Result<(), Error> {
    if manifest.kind == Kind::Exporter {
        return Err(Error::Unsupported {
            language: Language::JavaScript,
            kind: manifest.kind,
            why: "componentize-qjs 0.4.5 does not give the sink back at the end of a call, which the host answers with a \
                  trap; write it in Rust or Python",
        });
    }
    for (place, content) in SDK {
        stage.add(place, content)?;
    }
    let main = json!(format!("./{}", main(plugin)?));
    let methods = json!(world::methods(manifest.kind));
    stage.add(
        APP,
        format!("export {{ default }} from {main};\nexport const methods = {methods};\n"),
    )?;
    stage.add(COMPONENT, include_str!("../../javascript/component.js"))
}

/// Makes a component of the staged folder.
pub(crate) fn componentize(plugin: &Path, stage: &Stage, out: &Path) -> Result<(), Error> {
    JAVASCRIPT.run(plugin, |command| {
        command.arg("--wit").arg(stage.wit());
        command.args(["--world", world::WORLD]);
        command.arg("--js").arg(stage.sources().join(COMPONENT));
        command.arg("--module-root").arg(stage.sources());
        // The host runs WASI 0.2: functions of the asynchronous ABI are not there.
        command.arg("--sync");
        command.arg("--output").arg(out);
    })
}

/// The plugin's module, as `package.json` names it.
fn main(plugin: &Path) -> Result<String, Error> {
    let path = plugin.join(Language::JavaScript.marker());
    let wrong = |message: String| Error::Manifest {
        path: path.clone(),
        message,
    };
    let text = std::fs::read(&path).map_err(Error::io("reading", &path))?;
    let package: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let main = match package.get("main") {
        None => DEFAULT_MAIN,
        Some(Value::String(main)) => main.trim_start_matches("./"),
        Some(_) => return Err(wrong("`main` must be the path of the plugin's module".into())),
    };
    if !plugin.join(main).is_file() {
        return Err(wrong(format!("`main` names {main}, which is not there")));
    }
    Ok(main.to_owned())
}

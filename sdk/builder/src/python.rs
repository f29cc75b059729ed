//! From Python to a component: CPython with the plugin's modules loaded.

use std::path::Path;

use crate::stage::Stage;
use crate::tool::PYTHON;
use crate::{Error, world};

/// The SDK and the module between it and the contract.
const SDK: [(&str, &str); 6] = [
    (
        "formwork_component.py",
        include_str!("../../python/formwork_component.py"),
    ),
    (
        "formwork_plugin/__init__.py",
        include_str!("../../python/formwork_plugin/__init__.py"),
    ),
    (
        "formwork_plugin/errors.py",
        include_str!("../../python/formwork_plugin/errors.py"),
    ),
    (
        "formwork_plugin/host.py",
        include_str!("../../python/formwork_plugin/host.py"),
    ),
    (
        "formwork_plugin/pointers.py",
        include_str!("../../python/formwork_plugin/pointers.py"),
    ),
    (
        "formwork_plugin/types.py",
        include_str!("../../python/formwork_plugin/types.py"),
    ),
];

/// Where an author puts pure Python packages: `pip install --target packages …`.
const PACKAGES: &str = "packages";

/// Puts the SDK beside the plugin's modules.
pub(crate) fn complete(stage: &mut Stage) -> Result<(), Error> {
    SDK.iter().try_for_each(|(place, content)| stage.add(place, *content))
}

/// Makes a component of the staged folder.
pub(crate) fn componentize(plugin: &Path, stage: &Stage, out: &Path) -> Result<(), Error> {
    // An empty environment: otherwise the tool would offer the packages of whatever Python runs it.
    let environment = stage.beside("environment");
    let site_packages = environment.join("lib/python3/site-packages");
    std::fs::create_dir_all(&site_packages).map_err(Error::io("creating", &site_packages))?;
    let packages = stage.sources().join(PACKAGES);
    PYTHON.run(plugin, |command| {
        command.env("VIRTUAL_ENV", &environment);
        command.arg("--wit-path").arg(stage.wit());
        command.args(["--world", world::WORLD, "--quiet", "componentize", "formwork_component"]);
        command.arg("--python-path").arg(stage.sources());
        if packages.is_dir() {
            command.arg("--python-path").arg(&packages);
        }
        command.arg("--output").arg(out);
    })
}

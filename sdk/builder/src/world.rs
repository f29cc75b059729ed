//! The world of one plugin, as WebAssembly Interface Types text.
//!
//! The tools for Python and JavaScript import all that a world names, used or not. So the world is written for the
//! plugin: the imports that need no grant, and those its manifest asks for. A plugin that reaches for another one then
//! fails while it is built, not when it is installed.

use std::path::Path;

use formwork_manifest::{CONTRACT, Grant, Kind, Manifest};

use crate::Error;

/// The world's name.
pub(crate) const WORLD: &str = "plugin";

/// The contract's text, so that a build needs no source tree of Formwork.
const CONTRACT_FILES: [(&str, &str); 3] = [
    ("host.wit", include_str!("../../../wit/1.0.0/host.wit")),
    ("types.wit", include_str!("../../../wit/1.0.0/types.wit")),
    ("worlds.wit", include_str!("../../../wit/1.0.0/worlds.wit")),
];

/// The methods a plugin of this kind has.
pub(crate) fn methods(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Validator => &["validate"],
        Kind::Classifier => &["classify"],
        Kind::Extractor => &["extract"],
        Kind::Exporter => &["begin", "export", "end"],
    }
}

fn work_interface(kind: Kind) -> &'static str {
    match kind {
        Kind::Validator => "validation",
        Kind::Classifier => "classifying",
        Kind::Extractor => "extracting",
        Kind::Exporter => "exporting",
    }
}

fn granted_interface(grant: Grant) -> &'static str {
    match grant {
        Grant::Embeddings => "embeddings",
        Grant::Generation => "generation",
        Grant::Tensors => "tensors",
        Grant::Sink => "sinks",
    }
}

/// The text of the world for `manifest`.
pub(crate) fn text(manifest: &Manifest) -> String {
    let granted = manifest.grants.keys().map(|grant| granted_interface(*grant));
    let imports: String = ["log", "progress"]
        .into_iter()
        .chain(granted)
        .map(|interface| format!("    import formwork:plugin/{interface}@{CONTRACT};\n"))
        .collect();
    let work = work_interface(manifest.kind);
    format!(
        "package formwork:built;\n\nworld {WORLD} {{\n{imports}    \
         use formwork:plugin/types@{CONTRACT}.{{form, json, error}};\n    \
         export prepare: func(form: form, settings: json) -> result<_, error>;\n    \
         export formwork:plugin/{work}@{CONTRACT};\n}}\n"
    )
}

/// Writes the world and the contract below `folder`, as the tools want to find them.
pub(crate) fn write(folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    let contract = folder.join("deps/formwork-plugin");
    std::fs::create_dir_all(&contract).map_err(Error::io("creating", &contract))?;
    let world = ("plugin.wit", text(manifest));
    let files = CONTRACT_FILES.map(|(name, text)| (contract.join(name), text.to_owned()));
    for (path, text) in files.into_iter().chain([(folder.join(world.0), world.1)]) {
        std::fs::write(&path, text).map_err(Error::io("writing", &path))?;
    }
    Ok(())
}

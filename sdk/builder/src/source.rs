//! Reading `plugin.toml` and the files it names.

use std::path::Path;

use formwork_manifest::Manifest;
use serde_json::Value;

use crate::Error;

/// The manifest's file in a plugin's folder.
pub(crate) const MANIFEST_FILE: &str = "plugin.toml";

/// Keys of `plugin.toml` that may name a JSON file, whose content then stands in the manifest.
const FILE_KEYS: [&str; 2] = ["settings_schema", "self_tests"];

/// Reads `plugin.toml` of a plugin's folder.
///
/// `settings_schema` and `self_tests` may be file names: their JSON is put in their place.
///
/// # Errors
/// [`Error::Io`], [`Error::Manifest`] with the key or the line.
pub fn load_manifest(folder: &Path) -> Result<Manifest, Error> {
    let path = folder.join(MANIFEST_FILE);
    let text = std::fs::read_to_string(&path).map_err(Error::io("reading", &path))?;
    let wrong = |message: String| Error::Manifest {
        path: path.clone(),
        message,
    };
    let mut value: Value = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    for key in FILE_KEYS {
        if let Some(Value::String(name)) = value.get(key) {
            let file = folder.join(name);
            let json = std::fs::read(&file).map_err(Error::io("reading", &file))?;
            let content: Value = serde_json::from_slice(&json).map_err(|error| Error::Manifest {
                path: file,
                message: error.to_string(),
            })?;
            value[key] = content;
        }
    }
    Manifest::from_json(value.to_string().as_bytes()).map_err(|error| wrong(error.to_string()))
}

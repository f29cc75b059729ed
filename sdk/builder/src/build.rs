//! One plugin folder in, one component file out.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use formwork_manifest::{Digest, Manifest, embed};
use wasm_encoder::{ComponentSection as _, CustomSection};

use crate::flatten::flatten;
use crate::stage::Stage;
use crate::tool::{JAVASCRIPT, PYTHON};
use crate::{Error, Language, javascript, load_manifest, python, rust};

/// The custom section at the end of a file that says what it was built from. componentize-py and componentize-qjs make
/// another file at each run (a hash seed is inside), so equal sources could not be told from the result.
const SOURCES_SECTION: &str = "formwork:sources";

/// Part of every sources digest: raised when the builder itself makes another file of the same sources.
const BUILDER: &str = "1 ";

/// A built plugin.
#[derive(Debug)]
pub struct Built {
    /// The component file, named `NAME-VERSION.wasm`.
    pub file: PathBuf,
    /// Its address.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: usize,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// Makes a component of the plugin in `folder`, puts the manifest inside and writes it to `out`.
///
/// What has not changed is not compiled again, and a file that would come out equal is left alone.
///
/// # Errors
/// See [`Error`].
pub fn build(folder: &Path, out: &Path) -> Result<Built, Error> {
    let manifest = load_manifest(folder)?;
    let language = Language::detect(folder)?;
    let file = out.join(format!("{}-{}.wasm", manifest.name, manifest.version));
    let there = std::fs::read(&file).ok();
    let component = match language {
        Language::Rust => embed(&rust::build(folder)?, &manifest)?,
        Language::Python | Language::JavaScript => interpreted(folder, language, &manifest, there.as_deref())?,
    };
    if there.as_deref() != Some(component.as_slice()) {
        std::fs::create_dir_all(out).map_err(Error::io("creating", out))?;
        let draft = file.with_extension("wasm.new");
        std::fs::write(&draft, &component).map_err(Error::io("writing", &draft))?;
        std::fs::rename(&draft, &file).map_err(Error::io("writing", &file))?;
    }
    Ok(Built {
        file,
        digest: Digest::of(&component),
        bytes: component.len(),
        manifest,
    })
}

/// The component of a plugin whose language brings its interpreter along; `there` again when it was built from the same.
fn interpreted(folder: &Path, language: Language, manifest: &Manifest, there: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let mut stage = Stage::new(folder, manifest)?;
    let tool = if language == Language::Python {
        python::complete(&mut stage)?;
        PYTHON
    } else {
        javascript::complete(folder, &mut stage, manifest)?;
        JAVASCRIPT
    };
    let builder = format!("{BUILDER}{}", tool.pin);
    let mark = sources_section(&stage.digest(manifest, &builder));
    if let Some(there) = there.filter(|there| there.ends_with(&mark)) {
        return Ok(there.to_vec());
    }
    let made = stage.beside("component.wasm");
    if language == Language::Python {
        python::componentize(folder, &stage, &made)?;
    } else {
        javascript::componentize(folder, &stage, &made)?;
    }
    let component = std::fs::read(&made).map_err(Error::io("reading", &made))?;
    let component = if language == Language::JavaScript {
        flatten(component)
    } else {
        component
    };
    let mut component = embed(&component, manifest)?;
    component.extend_from_slice(&mark);
    Ok(component)
}

fn sources_section(digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    let section = CustomSection {
        name: SOURCES_SECTION.into(),
        data: Cow::Borrowed(digest.as_str().as_bytes()),
    };
    section.append_to_component(&mut bytes);
    bytes
}

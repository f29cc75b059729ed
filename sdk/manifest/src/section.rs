//! Reading and writing the manifest's custom section.

use wasmparser::{Encoding, Parser, Payload};

use crate::{Error, MAX_MANIFEST_BYTES, Manifest};

/// Name of the custom section that holds the manifest, as JSON.
pub const SECTION: &str = "formwork:manifest";

/// The manifest inside a component.
///
/// Only the component's own top-level sections are looked at: what a nested module carries is not its manifest.
///
/// # Errors
/// [`Error::NotAComponent`] for other files (a core module, precompiled code, text), [`Error::Missing`],
/// [`Error::Duplicate`], and whatever [`Manifest::from_json`] finds.
pub fn read(component: &[u8]) -> Result<Manifest, Error> {
    let mut found = None;
    for section in top_level_sections(component)? {
        let (name, data) = section?;
        if name == SECTION && found.replace(data).is_some() {
            return Err(Error::Duplicate);
        }
    }
    Manifest::from_json(found.ok_or(Error::Missing)?)
}

/// The component with `manifest` as its last section.
///
/// # Errors
/// [`Error::NotAComponent`] for other files, [`Error::Duplicate`] when it carries a manifest already.
pub fn embed(component: &[u8], manifest: &Manifest) -> Result<Vec<u8>, Error> {
    for section in top_level_sections(component)? {
        if section?.0 == SECTION {
            return Err(Error::Duplicate);
        }
    }
    let json = manifest.to_json();
    if json.len() > MAX_MANIFEST_BYTES {
        return Err(Error::TooLarge {
            got: json.len(),
            limit: MAX_MANIFEST_BYTES,
        });
    }
    let mut out = component.to_vec();
    let section = wasm_encoder::CustomSection {
        name: SECTION.into(),
        data: json.into_bytes().into(),
    };
    wasm_encoder::ComponentSection::append_to_component(&section, &mut out);
    Ok(out)
}

/// Components and modules inside each other at most. Composed components nest two or three deep; each level costs whoever
/// reads the rest hundreds of kilobytes.
const MAX_NESTING: usize = 32;

type Section<'a> = Result<(&'a str, &'a [u8]), Error>;

fn top_level_sections(component: &[u8]) -> Result<impl Iterator<Item = Section<'_>>, Error> {
    match Parser::new(0).parse_all(component).next() {
        Some(Ok(Payload::Version {
            encoding: Encoding::Component,
            ..
        })) => {}
        Some(Ok(Payload::Version {
            encoding: Encoding::Module,
            ..
        })) => {
            return Err(Error::NotAComponent("it is a core module".into()));
        }
        Some(Err(error)) => return Err(Error::NotAComponent(error.to_string())),
        _ => return Err(Error::NotAComponent("no WebAssembly header".into())),
    }
    let mut depth = 0_usize;
    Ok(Parser::new(0)
        .parse_all(component)
        .filter_map(move |payload| match payload {
            Ok(Payload::ModuleSection { .. } | Payload::ComponentSection { .. }) => {
                depth += 1;
                let too_deep = || Error::NotAComponent(format!("it nests more than {MAX_NESTING} deep"));
                (depth > MAX_NESTING).then(|| Err(too_deep()))
            }
            Ok(Payload::End(_)) => {
                depth = depth.saturating_sub(1);
                None
            }
            Ok(Payload::CustomSection(custom)) if depth == 0 => Some(Ok((custom.name(), custom.data()))),
            Ok(_) => None,
            Err(error) => Some(Err(Error::NotAComponent(error.to_string()))),
        }))
}

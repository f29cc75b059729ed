//! From text to a plugin file.

use formwork_manifest::{Kind, Manifest};
use serde_json::{Value, json};
use wasm_encoder::{ComponentSection, ComponentSectionId, Encode, InstanceSection, ModuleArg};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, SourceMap};

use crate::imports::WIT;

/// The contract's files.
const CONTRACT: [(&str, &str); 3] = [
    ("host.wit", include_str!("../../../wit/1.0.0/host.wit")),
    ("types.wit", include_str!("../../../wit/1.0.0/types.wit")),
    ("worlds.wit", include_str!("../../../wit/1.0.0/worlds.wit")),
];

/// A component of a kind's world from a core module, without its manifest.
///
/// # Panics
/// When the text is not a module of that world.
pub fn assemble(kind: Kind, module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}"));
    let mut resolve = Resolve::default();
    let mut contract = SourceMap::default();
    for (name, text) in CONTRACT {
        contract.push_str(name, text);
    }
    let contract = contract
        .parse()
        .map_err(|(_, error)| error)
        .expect("the contract is WIT");
    resolve.push_group(contract).expect("the contract is whole");
    let package = resolve
        .push_str("guest.wit", WIT)
        .expect("the guests' interfaces can be read");
    let world = resolve
        .select_world(&[package], Some(&kind.to_string()))
        .expect("every kind has a world");
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .expect("the module takes a section");
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// The component with further core modules, each instantiated.
pub(crate) fn add_modules(component: &[u8], modules: &[String]) -> Vec<u8> {
    let first = top_level_modules(component);
    let mut out = component.to_vec();
    let mut instances = InstanceSection::new();
    for (index, module) in (first..).zip(modules) {
        let module = wat::parse_str(module).unwrap_or_else(|error| panic!("{error}"));
        out.push(ComponentSectionId::CoreModule.into());
        module.as_slice().encode(&mut out);
        instances.instantiate::<[(&str, ModuleArg); 0], &str>(index, []);
    }
    if !modules.is_empty() {
        instances.append_to_component(&mut out);
    }
    out
}

fn top_level_modules(component: &[u8]) -> u32 {
    let (mut depth, mut modules) = (0_u32, 0);
    for payload in Parser::new(0).parse_all(component) {
        match payload.expect("the component is well-formed") {
            Payload::ModuleSection { .. } => {
                modules += u32::from(depth == 0);
                depth += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    modules
}

/// The manifest of a validator with small limits, with changes; `limits` are merged.
pub fn manifest(changes: &Value) -> Value {
    let mut manifest = json!({
        "name": "guest", "version": "1.0.0", "kind": "validator", "description": "a test guest",
        "licence": "Apache-2.0", "contract": "1.0.0",
        "limits": { "cpu_ms": 100, "wall_ms": 10_000, "memory_mib": 2, "host_calls": 100 }
    });
    for (key, value) in changes.as_object().into_iter().flatten() {
        match (&mut manifest[key], value) {
            (Value::Object(limits), Value::Object(changes)) if key == "limits" => limits.extend(changes.clone()),
            (place, value) => *place = value.clone(),
        }
    }
    manifest
}

/// A component with its manifest.
///
/// # Panics
/// When the manifest is not accepted.
pub fn package(component: &[u8], changes: &Value) -> Vec<u8> {
    let manifest = Manifest::from_json(manifest(changes).to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    formwork_manifest::embed(component, &manifest).unwrap_or_else(|error| panic!("{error}"))
}

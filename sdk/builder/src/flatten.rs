//! Takes the component out of the wrapping that componentize-qjs puts around it.
//!
//! **Problem.** The tool composes two components: QuickJS with the plugin's modules, and one that answers `resolve` and
//! `load` for modules that nobody asks for any more. The host's snapshots are made of components whose modules are their
//! own (wasmtime-wizer refuses nested ones), so a JavaScript plugin could not be snapshotted. **Promise.** The inner
//! component alone, with both functions replaced by core functions that trap; anything that does not look as expected is
//! left as it is, which costs the snapshot and nothing else. **Cost.** One more core module of 60 bytes. **Rejected.** A
//! general flattening of compositions: what has to be renumbered then is a linker.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;

use wasm_encoder::reencode::{Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, CodeSection, Component, ComponentAliasSection, ComponentExportSection,
    ComponentImportSection, ComponentInstanceSection, ExportKind, ExportSection, Function, FunctionSection,
    InstanceSection, Module, ModuleSection, RawSection, TypeSection, ValType,
};
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload, Validator,
    WasmFeatures,
};

/// The import that the second component is there for.
const LOADER: &str = "local:init/module-loader";

/// Its functions with the number of their core parameters: two texts or one, and where the result goes.
const LOADER_FUNCTIONS: [(&str, usize); 2] = [("resolve", 5), ("load", 3)];

/// `component` without the composition, or as it is.
pub(crate) fn flatten(component: Vec<u8>) -> Vec<u8> {
    let flat = inner(&component).and_then(|inner| without_loader(&component[inner]));
    let valid = |bytes: &Vec<u8>| {
        Validator::new_with_features(WasmFeatures::all())
            .validate_all(bytes)
            .is_ok()
    };
    flat.filter(valid).unwrap_or(component)
}

/// The first nested component, when modules are only in nested ones.
fn inner(component: &[u8]) -> Option<Range<usize>> {
    let mut found = None;
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.ok()? {
            Payload::ModuleSection { .. } if depth == 0 => return None,
            Payload::ModuleSection { .. } => depth += 1,
            Payload::ComponentSection { unchecked_range, .. } => {
                if depth == 0 && found.is_none() {
                    found = Some(unchecked_range);
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found
}

/// The inner component with its import of the loader replaced.
fn without_loader(component: &[u8]) -> Option<Vec<u8>> {
    let mut out = Component::new();
    let mut indices = Indices::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.ok()?;
        if depth == 0 {
            indices.section(&payload, component, &mut out)?;
        }
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    indices.loader.is_some().then(|| out.finish())
}

/// What is counted while the sections pass by, and how indices change: one core module and one core instance come first,
/// one component instance and its functions are gone.
#[derive(Default)]
struct Indices {
    /// Component instances and functions defined so far.
    instances: u32,
    functions: u32,
    /// The loader's instance.
    loader: Option<u32>,
    /// The loader's functions, by their index.
    gone: BTreeMap<u32, String>,
}

impl Indices {
    /// Writes one section of the component; `None` when it holds something unexpected.
    fn section(&mut self, payload: &Payload<'_>, component: &[u8], out: &mut Component) -> Option<()> {
        match payload {
            Payload::Version {
                encoding: Encoding::Component,
                ..
            }
            | Payload::End(_) => {}
            Payload::ComponentImportSection(reader) => {
                for import in reader.clone() {
                    let import = import.ok()?;
                    if import.name.name == LOADER {
                        self.loader = Some(self.instances);
                        traps(out);
                    } else {
                        let mut section = ComponentImportSection::new();
                        section.import(import.name, self.component_type_ref(import.ty).ok()?);
                        out.section(&section);
                    }
                    match import.ty {
                        ComponentTypeRef::Instance(_) => self.instances += 1,
                        ComponentTypeRef::Func(_) => self.functions += 1,
                        ComponentTypeRef::Type(_) => {}
                        _ => return None,
                    }
                }
            }
            Payload::ComponentAliasSection(reader) => {
                for alias in reader.clone() {
                    self.alias(alias.ok()?, out)?;
                }
            }
            Payload::ComponentCanonicalSection(reader) => {
                for function in reader.clone() {
                    self.canonical(function.ok()?, out)?;
                }
            }
            Payload::ComponentInstanceSection(reader) => {
                let mut section = ComponentInstanceSection::new();
                self.parse_component_instance_section(&mut section, reader.clone())
                    .ok()?;
                self.instances += reader.count();
                out.section(&section);
            }
            Payload::InstanceSection(reader) => {
                let mut section = InstanceSection::new();
                self.parse_instance_section(&mut section, reader.clone()).ok()?;
                out.section(&section);
            }
            Payload::ComponentExportSection(reader) => {
                let mut section = ComponentExportSection::new();
                self.parse_component_export_section(&mut section, reader.clone()).ok()?;
                for export in reader.clone() {
                    match export.ok()?.kind {
                        ComponentExternalKind::Instance => self.instances += 1,
                        ComponentExternalKind::Func => self.functions += 1,
                        _ => {}
                    }
                }
                out.section(&section);
            }
            // Names by index, which are others now.
            Payload::CustomSection(_) => {}
            // A core module would be numbered before the one that comes first.
            Payload::ModuleSection { .. } if self.loader.is_none() => return None,
            other => {
                let (id, range) = other.as_section()?;
                let data = component.get(range)?;
                out.section(&RawSection { id, data });
            }
        }
        Some(())
    }

    fn alias(&mut self, alias: ComponentAlias<'_>, out: &mut Component) -> Option<()> {
        if let ComponentAlias::InstanceExport {
            kind,
            instance_index,
            name,
        } = alias
        {
            if Some(instance_index) == self.loader {
                if kind != ComponentExternalKind::Func {
                    return None;
                }
                self.gone.insert(self.functions, name.to_owned());
                self.functions += 1;
                return Some(());
            }
            match kind {
                ComponentExternalKind::Instance => self.instances += 1,
                ComponentExternalKind::Func => self.functions += 1,
                _ => {}
            }
        }
        let mut section = ComponentAliasSection::new();
        section.alias(self.component_alias(alias).ok()?);
        out.section(&section);
        Some(())
    }

    fn canonical(&mut self, function: CanonicalFunction, out: &mut Component) -> Option<()> {
        match &function {
            CanonicalFunction::Lower { func_index, .. } => {
                if let Some(name) = self.gone.get(func_index) {
                    let mut section = ComponentAliasSection::new();
                    section.alias(Alias::CoreInstanceExport {
                        instance: 0,
                        kind: ExportKind::Func,
                        name,
                    });
                    out.section(&section);
                    return Some(());
                }
            }
            CanonicalFunction::Lift { .. } => self.functions += 1,
            _ => {}
        }
        let mut section = CanonicalFunctionSection::new();
        self.parse_component_canonical(&mut section, function).ok()?;
        out.section(&section);
        Some(())
    }
}

impl Reencode for Indices {
    type Error = Infallible;
}

impl ReencodeComponent for Indices {
    fn component_instance_index(&mut self, index: u32) -> u32 {
        index - u32::from(self.loader.is_some_and(|loader| loader < index))
    }

    fn component_func_index(&mut self, index: u32) -> u32 {
        let before = self.gone.range(..index).count();
        index - u32::try_from(before).unwrap_or(0)
    }

    fn module_index(&mut self, index: u32) -> u32 {
        index + 1
    }

    fn instance_index(&mut self, index: u32) -> u32 {
        index + 1
    }
}

/// A core module whose functions trap, and its instance.
fn traps(out: &mut Component) {
    let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    for (index, (name, parameters)) in (0..).zip(LOADER_FUNCTIONS) {
        types.ty().function(vec![ValType::I32; parameters], []);
        functions.function(index);
        exports.export(name, ExportKind::Func, index);
        let mut body = Function::new([]);
        body.instructions().unreachable().end();
        code.function(&body);
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&exports)
        .section(&code);
    out.section(&ModuleSection(&module));
    let mut instances = InstanceSection::new();
    instances.instantiate::<_, &str>(0, []);
    out.section(&instances);
}

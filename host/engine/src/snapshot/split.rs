//! Splits a component into code and state.
//!
//! The component that comes out does the same, but the memories and mutable globals of its core modules are not its own:
//! it imports them, as core modules without code (see [`state_module`](super::state_module)). So the code is compiled
//! once per plugin version, and a snapshot is nothing but another state module: made in milliseconds, as large as the
//! memory it holds.

use std::collections::HashMap;

use wasm_encoder::reencode::{Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, Component, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentImportSection, ComponentSectionId, ComponentTypeRef, ComponentTypeSection,
    ComponentValType, CoreTypeSection, ExportKind, InstanceSection, ModuleArg, PrimitiveValType, RawSection,
};
use wasmparser::{ComponentExternalKind, Encoding, Instance, Parser, Payload, Validator, WasmFeatures};

use super::Unsupported;
use super::core_module::{INIT, STATE, Shape, Stateless, take_state};
use super::state_module::{self, Reader};

/// A component without state.
#[derive(Debug)]
pub(crate) struct Split {
    /// The component.
    pub(crate) component: Vec<u8>,
    /// What it imports: the state of all its modules.
    pub(crate) state: StateImport,
    /// Its exports that do what instantiation did, in order.
    pub(crate) inits: Vec<String>,
}

/// The name under which a split component imports its state module.
pub(crate) const STATE_IMPORT: &str = "formwork-state";

/// The state module that a split component imports.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateImport {
    pub(super) shape: Shape,
    /// The component's exports that read this state, as [`state_module::readers`] lists them.
    pub(super) readers: Vec<String>,
}

/// Moves indices of core modules and core instances behind the state's, which is put before them.
struct Shift;

/// How many modules, and instances, the state is.
const STATE_MODULES: u32 = 1;

/// The state's instance.
const STATE_INSTANCE: u32 = 0;

impl Reencode for Shift {
    type Error = std::convert::Infallible;
}

impl ReencodeComponent for Shift {
    fn module_index(&mut self, module: u32) -> u32 {
        module + STATE_MODULES
    }

    fn instance_index(&mut self, instance: u32) -> u32 {
        instance + STATE_MODULES
    }
}

/// The component without its state.
pub(crate) fn split(component: &[u8]) -> Result<Split, Unsupported> {
    let modules = Modules::of(component)?;
    let mut out = Component::new();
    modules.write_import(&mut out)?;
    // Instances of modules that have an init function, in the order they are made.
    let mut initialized = Vec::new();
    let mut instance_count = 0;
    let (mut depth, mut module_index) = (0_u32, 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                if depth == 0 {
                    let wasm = modules.stateful.get(&module_index).map(|stateful| &stateful.wasm);
                    out.section(&RawSection {
                        id: ComponentSectionId::CoreModule as u8,
                        data: wasm.map_or(&component[unchecked_range], |wasm| wasm),
                    });
                    module_index += 1;
                }
                depth += 1;
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                if depth == 0 {
                    out.section(&RawSection {
                        id: ComponentSectionId::Component as u8,
                        data: &component[unchecked_range],
                    });
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            Payload::Version { .. } => {}
            Payload::InstanceSection(section) => {
                let mut instances = InstanceSection::new();
                for instance in section {
                    let instance = instance?;
                    if let Instance::Instantiate { module_index, args } = &instance
                        && let Some(stateful) = modules.stateful.get(module_index)
                    {
                        let mut args: Vec<_> = args
                            .iter()
                            .map(|arg| (arg.name, ModuleArg::Instance(arg.index + STATE_MODULES)))
                            .collect();
                        if stateful.has_state {
                            args.push((STATE, ModuleArg::Instance(STATE_INSTANCE)));
                        }
                        instances.instantiate(module_index + STATE_MODULES, args);
                        if stateful.has_init {
                            initialized.push(instance_count + STATE_MODULES);
                        }
                    } else {
                        Shift.parse_instance(&mut instances, instance)?;
                    }
                    instance_count += 1;
                }
                out.section(&instances);
            }
            Payload::ComponentAliasSection(section) => {
                let mut aliases = ComponentAliasSection::new();
                Shift.parse_component_alias_section(&mut aliases, section)?;
                out.section(&aliases);
            }
            Payload::CoreTypeSection(_) => return Err(Unsupported::new("it defines core types")),
            Payload::ComponentExportSection(section) => {
                if section
                    .clone()
                    .into_iter()
                    .any(|export| export.is_ok_and(|export| export.kind == ComponentExternalKind::Module))
                {
                    return Err(Unsupported::new("it exports a core module"));
                }
                copy(&mut out, component, &Payload::ComponentExportSection(section));
            }
            // The manifest and producers' notes are the installed file's; nothing reads them here.
            Payload::CustomSection(_) => {}
            other => copy(&mut out, component, &other),
        }
    }
    let mut access = Access::new(component)?;
    let inits = initialized
        .iter()
        .enumerate()
        .map(|(index, &instance)| access.init(index, instance))
        .collect();
    let state = StateImport {
        readers: access.readers(&modules.shape),
        shape: modules.shape,
    };
    access.write(&mut out);
    let component = out.finish();
    // What is wrong here is wrong in this file, not in the plugin; it must not reach the compiler.
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(&component)
        .map_err(|error| Unsupported::new(format!("splitting it gave no valid component: {error}")))?;
    Ok(Split {
        component,
        state,
        inits,
    })
}

fn copy(out: &mut Component, component: &[u8], payload: &Payload<'_>) {
    if let Some((id, range)) = payload.as_section() {
        out.section(&RawSection {
            id,
            data: &component[range],
        });
    }
}

/// The core modules at the component's top level.
#[derive(Default)]
struct Modules {
    stateful: HashMap<u32, Stateless>,
    shape: Shape,
}

impl Modules {
    fn of(component: &[u8]) -> Result<Self, Unsupported> {
        let mut modules = Self::default();
        let mut instantiated: HashMap<u32, u32> = HashMap::new();
        // Whether each open level is a component: a module inside a nested one is not at the top.
        let mut open: Vec<Encoding> = Vec::new();
        let mut next = 0;
        for payload in Parser::new(0).parse_all(component) {
            match payload? {
                Payload::Version { encoding, .. } => open.push(encoding),
                Payload::End(_) => {
                    open.pop();
                }
                Payload::ModuleSection { unchecked_range, .. } => {
                    if open.len() > 1 {
                        return Err(Unsupported::new("a component inside it holds code"));
                    }
                    if let Some(stateless) = take_state(&component[unchecked_range], &mut modules.shape)? {
                        modules.stateful.insert(next, stateless);
                    }
                    next += 1;
                }
                Payload::InstanceSection(section) if open.len() == 1 => {
                    for instance in section {
                        if let Instance::Instantiate { module_index, .. } = instance? {
                            *instantiated.entry(module_index).or_default() += 1;
                        }
                    }
                }
                _ => {}
            }
        }
        if modules
            .stateful
            .keys()
            .any(|module| instantiated.get(module).is_some_and(|&times| times > 1))
        {
            return Err(Unsupported::new(
                "a core module with state is instantiated more than once",
            ));
        }
        Ok(modules)
    }

    /// The state module's type, its import and its instance: before everything else.
    fn write_import(&self, out: &mut Component) -> Result<(), Unsupported> {
        let mut types = CoreTypeSection::new();
        let mut imports = ComponentImportSection::new();
        let mut instances = InstanceSection::new();
        types.ty().module(&state_module::ty(&self.shape)?);
        imports.import(STATE_IMPORT, ComponentTypeRef::Module(0));
        instances.instantiate::<_, &str>(0, []);
        out.section(&types).section(&imports).section(&instances);
        Ok(())
    }
}

/// Component functions that reach the state from outside, appended behind everything.
struct Access {
    types: ComponentTypeSection,
    aliases: ComponentAliasSection,
    lifts: CanonicalFunctionSection,
    exports: ComponentExportSection,
    type_count: u32,
    core_functions: u32,
    functions: u32,
    core_memories: u32,
}

impl Access {
    fn new(component: &[u8]) -> Result<Self, Unsupported> {
        // How many of each there are behind the component's last section.
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut counts = None;
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload?;
            if matches!(payload, Payload::End(_))
                && let Some(types) = validator.types(0)
            {
                counts = Some((
                    types.component_type_count(),
                    types.function_count(),
                    types.component_function_count(),
                    types.memory_count(),
                ));
            }
            validator.payload(&payload)?;
        }
        let Some((type_count, core_functions, functions, core_memories)) = counts else {
            return Err(Unsupported::new("it has no end"));
        };
        Ok(Self {
            types: ComponentTypeSection::new(),
            aliases: ComponentAliasSection::new(),
            lifts: CanonicalFunctionSection::new(),
            exports: ComponentExportSection::new(),
            type_count,
            core_functions,
            functions,
            core_memories,
        })
    }

    fn init(&mut self, index: usize, instance: u32) -> String {
        let ty = self.function_type(None);
        self.lift(instance, INIT, ty, None, format!("formwork-init-n{index}"))
    }

    /// Exports what reads the state.
    fn readers(&mut self, shape: &Shape) -> Vec<String> {
        let readers = state_module::readers(shape);
        let mut names = Vec::new();
        for (reader, place) in readers.iter().zip(0_u32..) {
            let (ty, memory) = match reader {
                Reader::Memory { memory, .. } => {
                    self.aliases.alias(Alias::CoreInstanceExport {
                        instance: STATE_INSTANCE,
                        kind: ExportKind::Memory,
                        name: memory,
                    });
                    self.core_memories += 1;
                    self.types.defined_type().list(PrimitiveValType::U8);
                    let list = ComponentValType::Type(self.next_type());
                    (self.function_type(Some(list)), Some(self.core_memories - 1))
                }
                Reader::Global { .. } => {
                    let bits = ComponentValType::Primitive(PrimitiveValType::U64);
                    (self.function_type(Some(bits)), None)
                }
            };
            names.push(self.lift(
                STATE_INSTANCE,
                reader.function(),
                ty,
                memory,
                format!("formwork-read-n{place}"),
            ));
        }
        names
    }

    fn next_type(&mut self) -> u32 {
        self.type_count += 1;
        self.type_count - 1
    }

    fn function_type(&mut self, result: Option<ComponentValType>) -> u32 {
        let no_params: [(&str, ComponentValType); 0] = [];
        self.types.function().params(no_params).result(result);
        self.next_type()
    }

    fn lift(&mut self, instance: u32, function: &str, ty: u32, memory: Option<u32>, export: String) -> String {
        self.aliases.alias(Alias::CoreInstanceExport {
            instance,
            kind: ExportKind::Func,
            name: function,
        });
        let options: Vec<_> = memory.map(CanonicalOption::Memory).into_iter().collect();
        self.lifts.lift(self.core_functions, ty, options);
        self.exports
            .export(export.as_str(), ComponentExportKind::Func, self.functions, None);
        self.core_functions += 1;
        // One for the function, one for its export.
        self.functions += 1;
        export
    }

    fn write(&self, out: &mut Component) {
        out.section(&self.types)
            .section(&self.aliases)
            .section(&self.lifts)
            .section(&self.exports);
    }
}

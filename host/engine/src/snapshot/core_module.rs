//! Takes the state out of a core module: its memories and mutable globals become imports.
//!
//! Nothing of the code changes: imports are appended behind the imports there are, so that every index stays. The data
//! that instantiation would copy and the start function it would run move into one new function, [`INIT`], which the
//! host calls once, before the snapshot is taken.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    GlobalSection, ImportSection, Instruction, Module, RawSection, SectionId, TypeSection,
};
use wasmparser::{
    ConstExpr, DataKind, GlobalType, KnownCustom, MemoryType, Operator, OperatorsReader, Parser, Payload, TypeRef,
};

use super::Unsupported;

/// The module name under which a module without state imports it.
pub(super) const STATE: &str = "formwork:state";

/// The export that does what instantiation did: copies the data, runs the start function.
pub(super) const INIT: &str = "formwork:init";

/// A global in the state: its type and the bits of its first value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StateGlobal {
    pub(super) ty: GlobalType,
    pub(super) bits: u64,
}

/// What was taken out of the modules of a component, all together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) memories: Vec<MemoryType>,
    pub(super) globals: Vec<StateGlobal>,
}

/// A module without its state.
#[derive(Debug)]
pub(super) struct Stateless {
    pub(super) wasm: Vec<u8>,
    /// It imports state.
    pub(super) has_state: bool,
    /// It exports [`INIT`].
    pub(super) has_init: bool,
}

pub(super) fn memory_name(index: usize) -> String {
    format!("m{index}")
}

pub(super) fn global_name(index: usize) -> String {
    format!("g{index}")
}

/// The module without its state, which is added to `shape`; `None` when it has none and instantiating it twice does
/// nothing twice.
pub(super) fn take_state(wasm: &[u8], shape: &mut Shape) -> Result<Option<Stateless>, Unsupported> {
    let mut sections = Sections::default();
    for payload in Parser::new(0).parse_all(wasm) {
        sections.read(payload?, wasm)?;
    }
    let has_init = sections.start.is_some() || !sections.active_data.is_empty();
    let has_state = !sections.memories.is_empty() || !sections.state_globals.is_empty();
    if !has_state && !has_init {
        return Ok(None);
    }
    let wasm = sections.write(has_init, shape)?;
    Ok(Some(Stateless {
        wasm,
        has_state,
        has_init,
    }))
}

/// Data that instantiation copies.
struct ActiveData<'a> {
    segment: u32,
    memory: u32,
    offset: ConstExpr<'a>,
    bytes: u32,
}

/// The module's sections on their way from the old module to the new one.
#[derive(Default)]
struct Sections<'a> {
    memories: Vec<MemoryType>,
    state_globals: Vec<StateGlobal>,
    type_count: u32,
    types: TypeSection,
    imports: ImportSection,
    function_count: u32,
    functions: FunctionSection,
    tables: Option<&'a [u8]>,
    tags: Option<&'a [u8]>,
    globals: GlobalSection,
    exports: ExportSection,
    start: Option<u32>,
    elements: Option<&'a [u8]>,
    code: CodeSection,
    active_data: Vec<ActiveData<'a>>,
    data: DataSection,
    names: Option<&'a [u8]>,
}

impl<'a> Sections<'a> {
    fn read(&mut self, payload: Payload<'a>, wasm: &'a [u8]) -> Result<(), Unsupported> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    self.type_count += u32::try_from(group?.types().len()).unwrap_or(u32::MAX);
                }
                RoundtripReencoder.parse_type_section(&mut self.types, section)?;
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    if matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)) {
                        self.function_count += 1;
                    }
                }
                RoundtripReencoder.parse_import_section(&mut self.imports, section)?;
            }
            Payload::FunctionSection(section) => {
                self.function_count += section.count();
                RoundtripReencoder.parse_function_section(&mut self.functions, section)?;
            }
            Payload::TableSection(section) => self.tables = Some(&wasm[section.range()]),
            Payload::TagSection(section) => self.tags = Some(&wasm[section.range()]),
            Payload::MemorySection(section) => {
                for memory in section {
                    let memory = memory?;
                    if memory.memory64 || memory.shared {
                        return Err(Unsupported::new("it has a 64-bit or shared memory"));
                    }
                    self.memories.push(memory);
                }
            }
            Payload::GlobalSection(section) => {
                self.state_globals = state_globals(section.clone())?;
                for global in section.into_iter().skip(self.state_globals.len()) {
                    RoundtripReencoder.parse_global(&mut self.globals, global?)?;
                }
            }
            Payload::ExportSection(section) => RoundtripReencoder.parse_export_section(&mut self.exports, section)?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => self.elements = Some(&wasm[section.range()]),
            Payload::CodeSectionEntry(body) => {
                check_code(body.get_operators_reader()?)?;
                self.code.raw(body.as_bytes());
            }
            Payload::DataSection(section) => {
                for (segment, data) in (0..).zip(section) {
                    let data = data?;
                    if let DataKind::Active {
                        memory_index,
                        offset_expr,
                    } = data.kind
                    {
                        self.active_data.push(ActiveData {
                            segment,
                            memory: memory_index,
                            offset: offset_expr,
                            bytes: u32::try_from(data.data.len()).unwrap_or(u32::MAX),
                        });
                    }
                    // Passive: the new function copies it, once.
                    self.data.passive(data.data.iter().copied());
                }
            }
            // The names of functions stay right, since none moves.
            Payload::CustomSection(custom) if matches!(custom.as_known(), KnownCustom::Name(_)) => {
                self.names = Some(&wasm[custom.range()]);
            }
            _ => {}
        }
        Ok(())
    }

    fn write(mut self, has_init: bool, shape: &mut Shape) -> Result<Vec<u8>, Unsupported> {
        for memory in &self.memories {
            let (name, ty) = (
                memory_name(shape.memories.len()),
                RoundtripReencoder.memory_type(*memory)?,
            );
            self.imports.import(STATE, &name, EntityType::Memory(ty));
            shape.memories.push(*memory);
        }
        for global in &self.state_globals {
            let (name, ty) = (
                global_name(shape.globals.len()),
                RoundtripReencoder.global_type(global.ty)?,
            );
            self.imports.import(STATE, &name, EntityType::Global(ty));
            shape.globals.push(*global);
        }
        if has_init {
            let init = self.init()?;
            self.types.ty().function([], []);
            self.functions.function(self.type_count);
            self.exports.export(INIT, ExportKind::Func, self.function_count);
            self.code.function(&init);
        }
        let raw = |id: SectionId, data| RawSection { id: id as u8, data };
        let mut module = Module::new();
        module
            .section(&self.types)
            .section(&self.imports)
            .section(&self.functions);
        if let Some(tables) = self.tables {
            module.section(&raw(SectionId::Table, tables));
        }
        if let Some(tags) = self.tags {
            module.section(&raw(SectionId::Tag, tags));
        }
        module.section(&self.globals).section(&self.exports);
        if let Some(elements) = self.elements {
            module.section(&raw(SectionId::Element, elements));
        }
        let count = self.data.len();
        module.section(&DataCountSection { count });
        module.section(&self.code).section(&self.data);
        if let Some(names) = self.names {
            module.section(&raw(SectionId::Custom, names));
        }
        Ok(module.finish())
    }

    /// Copies the data where instantiation copied it, then runs the start function.
    fn init(&self) -> Result<Function, Unsupported> {
        let mut function = Function::new([]);
        for data in &self.active_data {
            for operator in data.offset.get_operators_reader() {
                match operator? {
                    Operator::End => {}
                    operator => {
                        let instruction = RoundtripReencoder.instruction(operator)?;
                        function.instruction(&instruction);
                    }
                }
            }
            function
                .instruction(&Instruction::I32Const(0))
                .instruction(&Instruction::I32Const(data.bytes.cast_signed()))
                .instruction(&Instruction::MemoryInit {
                    mem: data.memory,
                    data_index: data.segment,
                });
        }
        if let Some(start) = self.start {
            function.instruction(&Instruction::Call(start));
        }
        function.instruction(&Instruction::End);
        Ok(function)
    }
}

/// The globals up to the last mutable one: a prefix, so that no index changes.
fn state_globals(section: wasmparser::GlobalSectionReader<'_>) -> Result<Vec<StateGlobal>, Unsupported> {
    let globals = section.into_iter().collect::<Result<Vec<_>, _>>()?;
    let count = globals
        .iter()
        .rposition(|global| global.ty.mutable)
        .map_or(0, |last| last + 1);
    let prefix = globals.iter().take(count);
    prefix
        .map(|global| {
            Ok(StateGlobal {
                ty: global.ty,
                bits: constant(&global.init_expr)?,
            })
        })
        .collect()
}

/// The bits of a number that is written as one constant.
fn constant(expression: &ConstExpr<'_>) -> Result<u64, Unsupported> {
    let mut operators = expression.get_operators_reader();
    let bits = match operators.read()? {
        Operator::I32Const { value } => u64::from(value.cast_unsigned()),
        Operator::I64Const { value } => value.cast_unsigned(),
        Operator::F32Const { value } => u64::from(value.bits()),
        Operator::F64Const { value } => value.bits(),
        _ => {
            return Err(Unsupported::new(
                "a global of its state does not begin as a plain number",
            ));
        }
    };
    match operators.read()? {
        Operator::End => Ok(bits),
        _ => Err(Unsupported::new("a global of its state begins as a sum")),
    }
}

/// Refuses what a snapshot would lose: changed tables and dropped segments.
fn check_code(operators: OperatorsReader<'_>) -> Result<(), Unsupported> {
    for operator in operators {
        let lost = match operator? {
            Operator::TableSet { .. } => "table.set",
            Operator::TableGrow { .. } => "table.grow",
            Operator::TableFill { .. } => "table.fill",
            Operator::TableCopy { .. } => "table.copy",
            Operator::TableInit { .. } => "table.init",
            Operator::ElemDrop { .. } => "elem.drop",
            Operator::DataDrop { .. } => "data.drop",
            _ => continue,
        };
        return Err(Unsupported::new(format!(
            "its code uses `{lost}`, whose effect a snapshot does not hold"
        )));
    }
    Ok(())
}

//! A core module that is nothing but state: memories and globals with their values, and functions that read them out.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    GlobalSection, Ieee32, Ieee64, MemArg, MemorySection, MemoryType, Module, ModuleType, TypeSection, ValType,
};

use super::Unsupported;
use super::core_module::{Shape, StateGlobal, global_name, memory_name};

/// Bytes of a page of linear memory. Memories with pages of other sizes are refused.
pub(super) const PAGE: usize = 64 << 10;

/// The grain in which zeros are left out of a snapshot: what the operating system maps.
const GRAIN: usize = 4 << 10;

/// A function of a state module that reads a part of it.
pub(super) enum Reader {
    /// Answers a whole memory as `list<u8>`: grows it by a page and writes pointer and length there.
    Memory { function: String, memory: String },
    /// Answers the bits of a global as `u64`.
    Global { function: String },
}

impl Reader {
    pub(super) fn function(&self) -> &str {
        match self {
            Self::Memory { function, .. } | Self::Global { function } => function,
        }
    }
}

/// The readers of a shape's state: its memories, then its globals.
pub(super) fn readers(shape: &Shape) -> Vec<Reader> {
    let memories = (0..shape.memories.len()).map(|index| Reader::Memory {
        function: format!("read-{}", memory_name(index)),
        memory: memory_name(index),
    });
    let globals = (0..shape.globals.len()).map(|index| Reader::Global {
        function: format!("read-{}", global_name(index)),
    });
    memories.chain(globals).collect()
}

/// The values of a state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// Content of each memory, whole pages.
    pub(super) memories: Vec<MemoryValue>,
    /// Bits of each global.
    pub(super) globals: Vec<u64>,
}

/// The content of a memory without its zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MemoryValue {
    pub(super) pages: u64,
    pub(super) segments: Vec<(u32, Vec<u8>)>,
}

impl MemoryValue {
    /// Keeps what is not zero of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut segments: Vec<(u32, Vec<u8>)> = Vec::new();
        for (index, grain) in bytes.chunks(GRAIN).enumerate() {
            if grain.iter().all(|&byte| byte == 0) {
                continue;
            }
            let at = u32::try_from(index * GRAIN).unwrap_or(u32::MAX);
            match segments.last_mut() {
                Some((start, data)) if *start as usize + data.len() == at as usize => data.extend_from_slice(grain),
                _ => segments.push((at, grain.to_vec())),
            }
        }
        Self {
            pages: (bytes.len() / PAGE) as u64,
            segments,
        }
    }
}

impl Values {
    /// The state before anything ran: empty memories, globals as the module declares them.
    pub(super) fn pristine(shape: &Shape) -> Self {
        Self {
            memories: shape
                .memories
                .iter()
                .map(|memory| MemoryValue {
                    pages: memory.initial,
                    segments: Vec::new(),
                })
                .collect(),
            globals: shape.globals.iter().map(|global| global.bits).collect(),
        }
    }
}

/// The type under which a split component imports the state module of a shape.
pub(super) fn ty(shape: &Shape) -> Result<ModuleType, Unsupported> {
    let mut ty = ModuleType::new();
    for (index, memory) in shape.memories.iter().enumerate() {
        ty.export(
            &memory_name(index),
            EntityType::Memory(RoundtripReencoder.memory_type(*memory)?),
        );
    }
    for (index, global) in shape.globals.iter().enumerate() {
        ty.export(
            &global_name(index),
            EntityType::Global(RoundtripReencoder.global_type(global.ty)?),
        );
    }
    for (reader, index) in readers(shape).iter().zip(0_u32..) {
        let result = match reader {
            Reader::Memory { .. } => ValType::I32,
            Reader::Global { .. } => ValType::I64,
        };
        ty.ty().function([], [result]);
        ty.export(reader.function(), EntityType::Function(index));
    }
    Ok(ty)
}

/// A state module of `shape` that holds `values`.
pub(super) fn build(shape: &Shape, values: &Values) -> Result<Vec<u8>, Unsupported> {
    let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    let (mut memories, mut globals) = (MemorySection::new(), GlobalSection::new());
    let (mut exports, mut data) = (ExportSection::new(), DataSection::new());
    types.ty().function([], [ValType::I32]);
    types.ty().function([], [ValType::I64]);
    for ((memory, value), index) in shape.memories.iter().zip(&values.memories).zip(0_u32..) {
        memories.memory(MemoryType {
            minimum: value.pages,
            ..RoundtripReencoder.memory_type(*memory)?
        });
        exports.export(&memory_name(index as usize), ExportKind::Memory, index);
        functions.function(0);
        code.function(&read_memory(index));
        for (at, bytes) in &value.segments {
            data.active(index, &ConstExpr::i32_const(at.cast_signed()), bytes.iter().copied());
        }
    }
    for ((global, &bits), index) in shape.globals.iter().zip(&values.globals).zip(0_u32..) {
        let ty = RoundtripReencoder.global_type(global.ty)?;
        globals.global(ty, &constant(ty.val_type, bits)?);
        exports.export(&global_name(index as usize), ExportKind::Global, index);
        functions.function(1);
        code.function(&read_global(global, index));
    }
    for (reader, index) in readers(shape).iter().zip(0_u32..) {
        exports.export(reader.function(), ExportKind::Func, index);
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories)
        .section(&globals)
        .section(&exports)
        .section(&code)
        .section(&data);
    Ok(module.finish())
}

fn read_memory(memory: u32) -> Function {
    let word = |offset| MemArg {
        align: 2,
        offset,
        memory_index: memory,
    };
    let mut function = Function::new([(1, ValType::I32)]);
    function
        .instructions()
        .i32_const(1)
        .memory_grow(memory)
        .local_tee(0)
        .i32_const(-1)
        .i32_eq()
        .if_(wasm_encoder::BlockType::Empty)
        .unreachable()
        .end()
        // From pages to bytes: the address of the new page and the length of what was there.
        .local_get(0)
        .i32_const(16)
        .i32_shl()
        .local_set(0)
        .local_get(0)
        .i32_const(0)
        .i32_store(word(0))
        .local_get(0)
        .local_get(0)
        .i32_store(word(4))
        .local_get(0)
        .end();
    function
}

fn read_global(global: &StateGlobal, index: u32) -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.global_get(index);
    match global.ty.content_type {
        wasmparser::ValType::I32 => {
            code.i64_extend_i32_u();
        }
        wasmparser::ValType::F32 => {
            code.i32_reinterpret_f32().i64_extend_i32_u();
        }
        wasmparser::ValType::F64 => {
            code.i64_reinterpret_f64();
        }
        // The others were refused when the module's state was taken out.
        _ => {}
    }
    code.end();
    function
}

fn constant(ty: ValType, bits: u64) -> Result<ConstExpr, Unsupported> {
    let low = (bits & u64::from(u32::MAX)) as u32;
    Ok(match ty {
        ValType::I32 => ConstExpr::i32_const(low.cast_signed()),
        ValType::I64 => ConstExpr::i64_const(bits.cast_signed()),
        ValType::F32 => ConstExpr::f32_const(Ieee32::new(low)),
        ValType::F64 => ConstExpr::f64_const(Ieee64::new(bits)),
        _ => return Err(Unsupported::new("it has a global that is no number")),
    })
}

//! Components that would have the compiler work for minutes or take all memory: its process dies, the server does not.
//!
//! Those that are refused before the compiler sees them are in `tests/hostile/bombs.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use formwork_engine::{CompileOptions, Engine, EngineOptions, InstallError};
use formwork_guests::{Guest, package};
use formwork_inference::{Inference, Options};
use formwork_server::cli::compiler_command;
use serde_json::json;
use wasm_encoder::{
    BlockType, CodeSection, Component, ConstExpr, DataSection, Encode, Function, FunctionSection, Instruction,
    MemorySection, MemoryType, Module, ModuleSection, TypeSection, ValType,
};

/// What compiling may use here: the hello of a plugin takes a tenth of it.
const LIMITS: CompileOptions = CompileOptions {
    seconds: 3,
    memory_bytes: 1 << 30,
};

/// From file to verdict: the compiler's time, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(20);

/// What this process may take meanwhile, bytes: files and their machine code, not what the compiler needs.
const PARENT_BYTES: u64 = 512 << 20;

fn engine() -> Engine {
    let options = EngineOptions {
        slots: 2,
        compile: LIMITS,
        compiler: Some(compiler_command(env!("CARGO_BIN_EXE_formwork").into())),
        ..EngineOptions::default()
    };
    Engine::new(options, Inference::start(Options::default(), Vec::new()).unwrap()).unwrap()
}

/// Installs the file or has it refused: in time, and without much memory of this process. A good plugin is installed
/// after it.
async fn defused(file: Vec<u8>) -> Option<InstallError> {
    let engine = engine();
    let (size, before, began) = (file.len(), peak_bytes(), Instant::now());
    let verdict = engine.install(file, &BTreeSet::new()).await.err();
    let (took, grown) = (began.elapsed(), peak_bytes().saturating_sub(before));
    println!("{size} bytes: {verdict:?} after {took:?}, {} MiB", grown >> 20);
    assert!(took < PATIENCE, "{verdict:?} after {took:?}");
    assert!(grown < PARENT_BYTES, "{verdict:?} with {} MiB", grown >> 20);
    let good = engine.install(Guest::validator().file(), &BTreeSet::new()).await;
    good.expect("a good plugin is installed after a bad one");
    verdict
}

/// The most memory this process has had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A plugin file around one core module.
fn around(module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    package(component.as_slice(), &json!({ "limits": { "memory_mib": 128 } }))
}

/// A plugin file with one function.
fn function(body: &Function) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    functions.function(0);
    code.function(body);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    around(&module)
}

/// Each branch could have changed any of the locals: 280 kB that take the compiler half a minute and seven gigabytes.
#[tokio::test]
async fn many_branches_over_many_locals() {
    const MANY: u32 = 20_000;
    let mut body = Function::new([(MANY, ValType::I64)]);
    for number in 0..MANY {
        body.instruction(&Instruction::LocalGet(number));
        body.instruction(&Instruction::I32WrapI64);
        body.instruction(&Instruction::If(BlockType::Empty));
        body.instruction(&Instruction::I64Const(number.into()));
        body.instruction(&Instruction::LocalSet((number * 31) % MANY));
        body.instruction(&Instruction::End);
    }
    body.instruction(&Instruction::End);
    let error = defused(function(&body)).await.unwrap();
    assert_eq!(error.code(), "plugin-compile-limit", "{error}");
}

/// All of them live at once: half a megabyte that takes half a minute.
#[tokio::test]
async fn forty_thousand_locals_alive_at_once() {
    const MANY: u32 = 40_000;
    let mut body = Function::new([(MANY, ValType::I64)]);
    body.instruction(&Instruction::Loop(BlockType::Empty));
    for number in 0..MANY {
        body.instruction(&Instruction::LocalGet(number));
        body.instruction(&Instruction::LocalGet((number * 7_919 + 1) % MANY));
        body.instruction(&Instruction::I64Mul);
        body.instruction(&Instruction::LocalSet(number));
    }
    body.instruction(&Instruction::Br(0));
    body.instruction(&Instruction::End);
    body.instruction(&Instruction::End);
    let error = defused(function(&body)).await.unwrap();
    assert_eq!(error.code(), "plugin-compile-limit", "{error}");
}

/// Each segment is searched for among all others: 800 kB that take twenty seconds and two gigabytes.
#[tokio::test]
async fn ninety_thousand_data_segments_of_one_byte() {
    let mut memory = MemorySection::new();
    memory.memory(MemoryType {
        minimum: 1_024,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut data = DataSection::new();
    for number in 0..90_000 {
        data.active(0, &ConstExpr::i32_const(number * 700), b"x".iter().copied());
    }
    let mut module = Module::new();
    module.section(&memory).section(&data);
    let error = defused(around(&module)).await.unwrap();
    assert_eq!(error.code(), "plugin-compile-limit", "{error}");
}

/// Components in components: 120 kB for ten thousand, which take gigabytes.
#[tokio::test]
async fn components_nested_as_deep_as_a_file_holds() {
    for depth in [10_000, 200_000] {
        let mut file = package(Component::new().as_slice(), &json!({}));
        // The manifest stands before it: behind it, nobody would find it.
        file.extend(&nested(depth)[HEADER.len()..]);
        assert!(defused(file).await.is_some());
    }
}

/// How a component begins.
const HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// Written from the end, inside out: lengths are known when they are needed.
fn nested(depth: usize) -> Vec<u8> {
    const COMPONENT_SECTION: u8 = 4;
    let mut backwards: Vec<u8> = HEADER.iter().rev().copied().collect();
    for _ in 0..depth {
        let mut length = Vec::new();
        u32::try_from(backwards.len()).unwrap().encode(&mut length);
        backwards.extend(length.iter().rev());
        backwards.push(COMPONENT_SECTION);
        backwards.extend(HEADER.iter().rev());
    }
    backwards.reverse();
    backwards
}

//! Components that are small to send and large to read or compile.
//!
//! Each must be refused with a code or be compiled within the time given here, and the host must live.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use formwork_guests::{Guest, package};
use formwork_tests::Arena;
use serde_json::json;
use wasm_encoder::{
    CodeSection, Component, ComponentSection, ConstExpr, Encode, Function, FunctionSection, GlobalSection, GlobalType,
    Instruction, Module, ModuleSection, NestedComponentSection, RawSection, TypeSection, ValType,
};

/// Longest time from file to verdict. On an idle machine each takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Installs the guest or has it refused; answers the refusal's code.
async fn defused(file: Vec<u8>) -> Option<&'static str> {
    let arena = Arena::shared().await;
    let began = Instant::now();
    let verdict = arena.install(file).await;
    let took = began.elapsed();
    let code = verdict.as_ref().err().map(formwork_engine::InstallError::code);
    println!("{code:?} after {took:?}");
    assert!(took < PATIENCE, "{code:?} after {took:?}");
    arena.serves().await;
    code
}

async fn beside(module: &str) -> Option<&'static str> {
    defused(Guest::validator().beside(module).file()).await
}

/// A component around one core module.
fn component(module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    package(component.as_slice(), &json!({}))
}

/// A module with `functions` copies of `body`.
fn functions(count: u32, body: &Function) -> Module {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let (mut declared, mut code) = (FunctionSection::new(), CodeSection::new());
    for _ in 0..count {
        declared.function(0);
        code.function(body);
    }
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&code);
    module
}

#[tokio::test]
async fn too_many_functions_are_refused() {
    let mut empty = Function::new([]);
    empty.instruction(&Instruction::End);
    // More than the limit of a component, in modules that each stay below the validator's.
    let mut component = Component::new();
    for _ in 0..3 {
        component.section(&ModuleSection(&functions(90_000, &empty)));
    }
    let code = defused(package(component.as_slice(), &json!({}))).await;
    assert_eq!(code, Some("plugin-too-many-functions"));
}

#[tokio::test]
async fn a_count_of_functions_that_is_not_there_is_refused() {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    module.section(&types);
    for id in [3, 10] {
        let mut data = Vec::new();
        u32::MAX.encode(&mut data);
        module.section(&RawSection { id, data: &data });
    }
    // The manifest stands before it: behind it, nobody would find it.
    let mut file = package(Component::new().as_slice(), &json!({}));
    ModuleSection(&module).append_to_component(&mut file);
    let code = defused(file).await;
    assert!(
        matches!(
            code,
            Some("plugin-invalid" | "plugin-manifest" | "plugin-too-many-functions")
        ),
        "{code:?}"
    );
}

#[tokio::test]
async fn one_enormous_function_is_refused_or_compiled_in_time() {
    let mut body = Function::new([(1, ValType::I64)]);
    for number in 0..40_000 {
        body.instruction(&Instruction::LocalGet(0));
        body.instruction(&Instruction::I64Const(number));
        body.instruction(&Instruction::I64Mul);
        body.instruction(&Instruction::LocalSet(0));
    }
    body.instruction(&Instruction::End);
    defused(component(&functions(1, &body))).await;
}

#[tokio::test]
async fn a_function_larger_than_any_compiler_emits_is_refused() {
    let mut body = Function::new([]);
    for _ in 0..8_000_000 {
        body.instruction(&Instruction::Nop);
    }
    body.instruction(&Instruction::End);
    let code = defused(component(&functions(1, &body))).await;
    assert!(code.is_some());
}

#[tokio::test]
async fn blocks_nested_a_hundred_thousand_deep_are_refused_or_compiled_in_time() {
    const DEPTH: u32 = 100_000;
    let mut body = Function::new([]);
    for _ in 0..DEPTH {
        body.instruction(&Instruction::Block(wasm_encoder::BlockType::Empty));
    }
    for _ in 0..=DEPTH {
        body.instruction(&Instruction::End);
    }
    defused(component(&functions(1, &body))).await;
}

#[tokio::test]
async fn an_enormous_jump_table_is_refused_or_compiled_in_time() {
    for labels in [60_000, 1_000_000] {
        let mut body = Function::new([]);
        body.instruction(&Instruction::I32Const(0));
        body.instruction(&Instruction::BrTable(vec![0; labels].into(), 0));
        body.instruction(&Instruction::End);
        defused(component(&functions(1, &body))).await;
    }
}

#[tokio::test]
async fn very_many_locals_are_refused_or_compiled_in_time() {
    for locals in [49_000, u32::MAX] {
        let mut body = Function::new([(locals, ValType::I64)]);
        body.instruction(&Instruction::End);
        let code = defused(component(&functions(1, &body))).await;
        assert!(locals < 50_000 || code.is_some(), "{locals} locals were compiled");
    }
}

#[tokio::test]
async fn a_huge_type_section_is_refused_or_compiled_in_time() {
    let mut types = TypeSection::new();
    for _ in 0..200_000 {
        types.ty().function(vec![ValType::I64; 20], [ValType::I32]);
    }
    let mut module = Module::new();
    module.section(&types);
    defused(component(&module)).await;
}

#[tokio::test]
async fn a_hundred_thousand_globals_are_refused_or_compiled_in_time() {
    let mut globals = GlobalSection::new();
    for number in 0..100_000 {
        let kind = GlobalType {
            val_type: ValType::I64,
            mutable: true,
            shared: false,
        };
        globals.global(kind, &ConstExpr::i64_const(number));
    }
    let mut module = Module::new();
    module.section(&globals);
    defused(component(&module)).await;
}

/// Each type is a pair of the one before: forty lines that stand for a million million values.
#[tokio::test]
async fn a_type_that_doubles_forty_times_is_refused() {
    let mut text = String::from("(component (type $t0 (tuple u8 u8))");
    for level in 1..40 {
        let _infallible = write!(text, "(type $t{level} (tuple $t{0} $t{0}))", level - 1);
    }
    text.push_str(r#"(import "f" (func (param "x" $t39))))"#);
    let code = defused(package(&wat::parse_str(text).unwrap(), &json!({}))).await;
    assert_eq!(code, Some("plugin-invalid"));
}

#[tokio::test]
async fn components_in_components_in_components_are_refused() {
    for (depth, expected) in [
        (20, "plugin-wrong-world"),
        (40, "plugin-manifest"),
        (2_000, "plugin-manifest"),
    ] {
        let mut inner = Component::new();
        for _ in 1..depth {
            let mut outer = Component::new();
            outer.section(&NestedComponentSection(&inner));
            inner = outer;
        }
        let mut file = package(Component::new().as_slice(), &json!({}));
        NestedComponentSection(&inner).append_to_component(&mut file);
        let code = defused(file).await;
        assert_eq!(code, Some(expected), "{depth} levels");
    }
}

#[tokio::test]
async fn a_thousand_modules_are_refused() {
    let guest = (0..1_000).fold(Guest::validator(), |guest, _| guest.beside("(module)"));
    let code = defused(guest.file()).await;
    assert!(code.is_some());
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_unread() {
    let mut file = Guest::validator().file();
    file.resize(65 << 20, 0);
    assert_eq!(defused(file).await, Some("plugin-too-large"));
}

#[tokio::test]
async fn a_long_name_is_refused() {
    let name = "x".repeat(200_000);
    let code = beside(&format!(r#"(module (func (export "{name}")))"#)).await;
    assert!(code.is_some());
}

#[tokio::test]
async fn proposals_the_engine_does_not_run_are_refused() {
    for module in [
        "(module (type (struct (field i32))))",
        "(module (tag $t) (func (throw $t)))",
        "(module (memory 1 1 shared) (func (drop (i32.atomic.load (i32.const 0)))))",
        "(module (memory i64 1))",
        "(module (func (param v128 v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))",
    ] {
        let code = beside(module).await;
        assert_eq!(code, Some("plugin-invalid"), "{module}");
    }
}

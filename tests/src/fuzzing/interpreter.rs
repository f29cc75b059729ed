//! A guest that does what its submission says: a program of host calls.
//!
//! The program comes as the submission's id, two hexadecimal digits a byte, because ids are text. It is laid at address 0,
//! so that addresses in it can point into itself. Each step is an operation and its arguments, see [`OPERATIONS`].

use std::fmt::Write as _;

use formwork_guests::{Guest, imports};
use serde_json::json;

/// Where the text of hexadecimal digits ends up: behind everything a short address reaches.
const HEAP: u32 = 128 << 10;

/// Reads the hexadecimal digits of a text into the memory at 0; sets where the program begins and ends.
pub(super) const DECODE: &str = "
    (global $pc (mut i32) (i32.const 0))
    (global $end (mut i32) (i32.const 0))
    (func $digit (param i32) (result i32)
      (select (i32.sub (local.get 0) (i32.const 48)) (i32.sub (local.get 0) (i32.const 87))
        (i32.lt_u (local.get 0) (i32.const 58))))
    (func $decode (param $from i32) (param $length i32)
      (global.set $end (i32.shr_u (local.get $length) (i32.const 1)))
      (loop $again
        (if (i32.lt_u (global.get $pc) (global.get $end)) (then
          (i32.store8 (global.get $pc) (i32.or
            (i32.shl (call $digit (i32.load8_u (local.get $from))) (i32.const 4))
            (call $digit (i32.load8_u offset=1 (local.get $from)))))
          (local.set $from (i32.add (local.get $from) (i32.const 2)))
          (global.set $pc (i32.add (global.get $pc) (i32.const 1)))
          (br $again))))
      (global.set $pc (i32.const 0)))";

/// Arguments: a byte below 128 is itself, one below 240 an address in steps of 64, the others announce four bytes.
const ARGUMENTS: &str = "
    (func $byte (result i32)
      (if (i32.ge_u (global.get $pc) (global.get $end)) (then (return (i32.const 0))))
      (global.set $pc (i32.add (global.get $pc) (i32.const 1)))
      (i32.load8_u (i32.sub (global.get $pc) (i32.const 1))))
    (func $a (result i32) (local $b i32)
      (local.set $b (call $byte))
      (if (i32.lt_u (local.get $b) (i32.const 128)) (then (return (local.get $b))))
      (if (i32.lt_u (local.get $b) (i32.const 240)) (then
        (return (i32.mul (i32.sub (local.get $b) (i32.const 128)) (i32.const 64)))))
      (i32.or (i32.or (call $byte) (i32.shl (call $byte) (i32.const 8)))
        (i32.or (i32.shl (call $byte) (i32.const 16)) (i32.shl (call $byte) (i32.const 24)))))
    (func $l (result i64) (local $b i32)
      (local.set $b (call $a))
      (if (i32.ge_s (local.get $b) (i32.const 0)) (then (return (i64.extend_i32_u (local.get $b)))))
      (i64.shl (i64.extend_i32_u (call $a)) (i64.const 32)))";

/// What a program can do, by its number; `A` is an argument, `L` a wide one.
pub(super) const OPERATIONS: [&str; 30] = [
    "(call $log A A A A A)",
    "(call $report L L A A)",
    "(call $embed A A A A A)",
    "(call $start_generation A A A A A A A (f32.reinterpret_i32 A) L A A A A A A)",
    "(call $next A A)",
    "(call $summary A A)",
    "(call $drop_completion A)",
    "(call $run A A A A A)",
    "(call $write_sink A A A A)",
    "(call $write_sink (local.get 2) A A A)",
    "(call $drop_sink A)",
    "(call $random L A)",
    "(drop (call $now))",
    "(drop (call $subscribe L))",
    "(call $block A)",
    "(call $poll A A A)",
    "(call $drop_pollable A)",
    "(drop (call $stdout))",
    "(drop (call $stdin))",
    "(call $check_write A A)",
    "(call $write A A A A)",
    "(call $write_flush A A A A)",
    "(call $write_zeroes A L A)",
    "(call $splice A A L A)",
    "(call $read A L A)",
    "(call $environment A) (call $arguments A) (call $preopens A)",
    "(call $exit (i32.and A (i32.const 1)))",
    "(i32.store A A)",
    "(drop (memory.grow A))",
    "(global.set $pc A)",
];

/// An exporter, because exporters may call everything.
pub(super) fn guest() -> Guest {
    let mut work = String::from(
        "(local $op i32)
         (call $decode (i32.load (local.get 0)) (i32.load offset=4 (local.get 0)))
         (loop $again (if (i32.lt_u (global.get $pc) (global.get $end)) (then (local.set $op (call $byte))",
    );
    for (number, operation) in OPERATIONS.iter().enumerate() {
        let code = operation.replace(" A", " (call $a)").replace(" L", " (call $l)");
        let _infallible = write!(work, "(if (i32.eq (local.get $op) (i32.const {number})) (then {code}))");
    }
    work.push_str("(br $again)))) (call $drop_sink (local.get 2)) (i32.const 98304)");
    let all = [
        imports::LOG,
        imports::PROGRESS,
        imports::EMBED,
        imports::GENERATION,
        imports::TENSORS,
        imports::SINK,
        imports::RANDOM,
        imports::CLOCK,
        imports::POLL,
        imports::CLI,
        imports::STREAMS,
        imports::SURROUNDINGS,
    ];
    all.iter()
        .fold(Guest::exporter(), |guest, import| guest.import(import))
        .manifest(&json!({ "grants": { "embeddings": "x", "generation": "x", "tensors": "x", "sink": "x" } }))
        .limits(&json!({ "cpu_ms": 20, "wall_ms": 40, "host_calls": 500, "output_kib": 64, "host_call_kib": 256 }))
        .pages("3")
        .heap(HEAP)
        .with(DECODE)
        .with(ARGUMENTS)
        .work(&work)
}

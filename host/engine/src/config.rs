//! The one place where wasmtime is configured. Compiler, server, command line and tests all use it: a component compiled
//! under another configuration would be compiled again at every load.

use std::num::NonZeroUsize;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::EngineOptions;
use crate::limits::{MAX_INSTANCES, MAX_MEMORIES, MAX_TABLES};
use crate::slot_reset::Reset;

/// Host functions get what is left of the fiber's stack after the guest's share.
pub(crate) const GUEST_STACK_BYTES: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 2 << 20;

/// Frames of a trap's backtrace: enough to find the function, short enough for a log line.
const BACKTRACE_FRAMES: NonZeroUsize = match NonZeroUsize::new(20) {
    Some(frames) => frames,
    None => NonZeroUsize::MIN,
};

/// Elements of a table: components made from JavaScript and C# exceed 10,000.
const TABLE_ELEMENTS: usize = 100_000;

/// Host-side state of one component instance, bytes.
const COMPONENT_INSTANCE_BYTES: usize = 8 << 20;

/// What decides the machine code: the same in the compiler's process and in the engine that runs it.
pub(crate) fn compiler_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES))
        .memory_init_cow(true)
        // WASI 0.2 only: without concurrency a call needs no task bookkeeping.
        .concurrency_support(false)
        // Multi-memory stays on: wasmtime's own adapters for composed components use it.
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .shared_memory(false)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .parallel_compilation(true);
    config
}

/// The engine that runs guests, in slots that are reset as `reset` says.
pub(crate) fn engine_config(options: &EngineOptions, reset: Reset) -> Config {
    let mut config = compiler_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(options, reset)));
    config
}

fn pooling(options: &EngineOptions, reset: Reset) -> PoolingAllocationConfig {
    // One more for the snapshot that is being made: it must not take a call's place.
    let slots = options.slots.max(1).saturating_add(options.snapshots.enabled.into());
    // As many of each as a call may have: one plugin must not use up what others wait for. They cost address space only.
    let of_a_call = |most: usize| slots.saturating_mul(u32::try_from(most).unwrap_or(u32::MAX));
    let mut pooling = PoolingAllocationConfig::new();
    pooling
        .total_component_instances(slots)
        .total_core_instances(of_a_call(MAX_INSTANCES))
        .total_memories(of_a_call(MAX_MEMORIES))
        .total_tables(of_a_call(MAX_TABLES))
        .total_stacks(slots)
        .max_memory_size(usize::try_from(options.caps.memory_bytes).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS)
        .max_component_instance_size(COMPONENT_INSTANCE_BYTES)
        .max_memories_per_module(u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX))
        .max_core_instances_per_component(u32::try_from(MAX_INSTANCES).unwrap_or(u32::MAX))
        .max_memories_per_component(u32::try_from(MAX_MEMORIES).unwrap_or(u32::MAX))
        .max_tables_per_component(u32::try_from(MAX_TABLES).unwrap_or(u32::MAX))
        .linear_memory_keep_resident(options.keep_resident_bytes)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(slots)
        .pagemap_scan(match reset {
            Reset::Scan => Enabled::Yes,
            Reset::Decommit => Enabled::No,
        });
    pooling
}

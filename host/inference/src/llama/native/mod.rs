//! llama.cpp behind safe types: the only place of this crate's generator that calls C.
//!
//! Problem: the published safe binding hides the pointers that an abort callback and a thread pool
//! need, copies where a borrow would do, and has no safe way to give a kept state back. Promise: no
//! pointer leaves this module; every length is checked here before C sees it; what C borrows is kept
//! alive by a lifetime. Cost: about 40 C functions called by hand. Rejected: a fork of the binding.
//! Not covered: llama.cpp ends the process when its own assertions fail; nothing here can stop that,
//! so inputs are checked before they get here ([`super::gguf_header`], [`super::schema_guard`]).
#![allow(unsafe_code, reason = "llama.cpp is a C library")]

mod backend;
mod context;
mod grammar;
mod model;
mod quantise;
mod threads;

use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

pub(crate) use context::{Context, Shape, Step};
pub(crate) use grammar::{Candidate, Grammar};
pub(crate) use model::Model;
pub(crate) use quantise::quantise;

use crate::native_log;

/// A number in the model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(crate) struct Token(pub(crate) i32);

/// Prepares the library once for the whole process; it is never taken down, because models may be
/// loaded again.
pub(crate) fn initialise() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        native_log::install();
        // SAFETY: takes no arguments; called once, before any other function of the library.
        unsafe { sys::llama_backend_init() };
        if let Some(variant) = super::cpu_variant::selected() {
            backend::install(variant);
        }
    });
}

/// What the library is: kept states are only read by the build that wrote them.
pub(crate) fn version() -> String {
    // SAFETY: answers a static, null-terminated string.
    let version = unsafe { std::ffi::CStr::from_ptr(sys::llama_version()) };
    version.to_string_lossy().into_owned()
}

/// How many tensor types ggml knows, those it has dropped among them.
#[cfg(test)]
pub(super) fn tensor_types() -> u32 {
    sys::GGML_TYPE_COUNT
}

/// Elements and bytes of one block of a tensor type; nothing for one that ggml does not know or has dropped.
#[cfg(test)]
pub(super) fn tensor_block(kind: u32) -> Option<(u64, u64)> {
    if kind >= tensor_types() {
        return None;
    }
    // SAFETY: both read ggml's table of types, which has an entry for each number below the count.
    let (elements, bytes) = unsafe { (sys::ggml_blck_size(kind), sys::ggml_type_size(kind)) };
    let elements = u64::try_from(elements).ok().filter(|elements| *elements > 0)?;
    Some((elements, bytes as u64)).filter(|(_, bytes)| *bytes > 0)
}

/// A reason with the last line the library logged on this thread.
fn reason(what: &str) -> String {
    match native_log::take_last_error() {
        Some(line) => format!("{what}: {line}"),
        None => what.to_owned(),
    }
}

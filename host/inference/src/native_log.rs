//! Routes llama.cpp's log lines to `tracing`.
//!
//! Problem: llama.cpp prints a hundred lines to stderr per model. Promise: below warning nothing is
//! logged; the last error line of a thread can be asked for, because llama.cpp answers a failed load
//! with a null pointer only; error lines of a step can be held back, because llama.cpp also writes them when
//! it stops because it was told to. Cost: one `unsafe` callback. Rejected: the binding's own bridge, which
//! logs the hundred lines at level info and panics on levels it does not know.
#![allow(unsafe_code, reason = "llama.cpp takes its log callback as a C function pointer")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use llama_cpp_sys_2 as sys;

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
    /// Error lines of the step under way.
    static HELD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Installs the callback; safe to call more than once.
pub(crate) fn install() {
    // SAFETY: `on_line` is a static function with the signature llama.cpp declares, it takes no user
    // data, does not unwind, and may be called from any thread.
    unsafe {
        sys::llama_log_set(Some(on_line), std::ptr::null_mut());
        sys::ggml_log_set(Some(on_line), std::ptr::null_mut());
    }
}

/// The last error llama.cpp logged on this thread, forgotten by asking.
pub(crate) fn take_last_error() -> Option<String> {
    let line = LAST_ERROR.with(RefCell::take);
    (!line.is_empty()).then_some(line)
}

/// Runs a step; its error lines are logged only if `is_failure` says so of what it answers, else forgotten.
pub(crate) fn held<T>(step: impl FnOnce() -> T, is_failure: impl FnOnce(&T) -> bool) -> T {
    HELD.set(Some(Vec::new()));
    let answer = step();
    let lines = HELD.take().unwrap_or_default();
    if is_failure(&answer) {
        for line in lines {
            tracing::error!(target: "llama_cpp", "{line}");
        }
    } else {
        LAST_ERROR.take();
    }
    answer
}

unsafe extern "C" fn on_line(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() || (level != sys::GGML_LOG_LEVEL_ERROR && level != sys::GGML_LOG_LEVEL_WARN) {
        return;
    }
    // SAFETY: llama.cpp passes a null-terminated string that lives for the duration of the call.
    let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = line.trim();
    if level == sys::GGML_LOG_LEVEL_WARN {
        tracing::warn!(target: "llama_cpp", "{line}");
        return;
    }
    // A thread that is ending has no slots any more; then the line is only logged.
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            line.clone_into(&mut last);
        }
    });
    let hold = |held: &RefCell<Option<Vec<String>>>| {
        held.try_borrow_mut()
            .ok()?
            .as_mut()
            .map(|lines| lines.push(line.to_owned()))
    };
    if HELD.try_with(hold).ok().flatten().is_none() {
        tracing::error!(target: "llama_cpp", "{line}");
    }
}

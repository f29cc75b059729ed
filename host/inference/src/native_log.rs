//! Routes llama.cpp's log lines to `tracing`.
//!
//! Problem: llama.cpp prints a hundred lines to stderr per model. Promise: below warning nothing is
//! logged; the last error line of a thread can be asked for, because llama.cpp answers a failed load
//! with a null pointer only. Cost: one `unsafe` callback. Rejected: the binding's own bridge, which
//! logs the hundred lines at level info and panics on levels it does not know.
#![allow(unsafe_code, reason = "llama.cpp takes its log callback as a C function pointer")]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use llama_cpp_sys_2 as sys;

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
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
    tracing::error!(target: "llama_cpp", "{line}");
    // A thread that is ending has no slot any more; then the line is only logged.
    let _ = LAST_ERROR.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            line.clone_into(&mut last);
        }
    });
}

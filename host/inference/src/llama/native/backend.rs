//! Puts a variant of the CPU backend in the place of the one that is built in.
//!
//! libllama finds devices, buffer types and the functions of the thread pool through ggml's registry, by kind or by name; it
//! calls nothing of a CPU backend directly. So the registry decides, and whoever changes it before the first model is loaded
//! has changed everything.

use formwork_ggml_variants::Variant;
use llama_cpp_sys_2 as sys;

/// Must be called before any model is loaded, on one thread.
pub(super) fn install(variant: &Variant) {
    let Some(backend) = variant.backend() else {
        return;
    };
    // SAFETY: the name is null-terminated; the caller promises that no model or context holds a device of the backend that
    // goes, which is a static of its own; the new one has its tables filled and lives as long as the process.
    unsafe {
        let built_in = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
        if !built_in.is_null() {
            sys::ggml_backend_unload(built_in);
        }
        sys::ggml_backend_register(backend);
    }
}

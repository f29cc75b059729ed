//! ggml's CPU backend in variants, from AVX2 to AVX-512 with VNNI and BF16, all in the one binary.
//!
//! **Problem.** llama.cpp's build for several CPUs is fourteen shared libraries that must lie where the program looks; built
//! into the program it is compiled for one CPU. **Promise.** The binding's own sources, compiled once more for each row of
//! `VARIANTS` in `build.rs`, are linked in statically and share no code; none of it runs unless the CPU has every feature it
//! was compiled for. **Cost.** Per variant: about 40 s of one core at build time and 1.3 MB of the binary. **Rejected.** The
//! binding's feature `dynamic-backends` (see `docs/decisions/0012-cpu-variants.md`).
//!
//! Elsewhere than on x86-64 Linux with glibc there are no variants.
#![allow(unsafe_code, reason = "a variant is one C function")]

use llama_cpp_sys_2 as sys;

include!(concat!(env!("OUT_DIR"), "/variants.rs"));

/// One build of the backend.
#[derive(Debug)]
pub struct Variant {
    name: &'static str,
    backend: unsafe extern "C" fn() -> sys::ggml_backend_reg_t,
    /// Each feature that the compiler was allowed to use, and whether CPU and operating system have it.
    features: fn() -> Vec<(&'static str, bool)>,
}

/// All variants, the best first.
#[must_use]
pub fn all() -> &'static [Variant] {
    VARIANTS
}

impl Variant {
    /// What upstream calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The features of the CPU that it needs and that are not there; empty: it can run.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let features = (self.features)().into_iter();
        features.filter(|(_, there)| !there).map(|(name, _)| name).collect()
    }

    /// The backend, ready to be registered; nothing if this CPU cannot run it.
    #[must_use]
    pub fn backend(&self) -> Option<sys::ggml_backend_reg_t> {
        if !self.missing().is_empty() {
            return None;
        }
        // SAFETY: ggml's `ggml_backend_cpu_reg` under another name: it takes nothing, may be called from any thread and
        // answers a static. The CPU has every feature that it was compiled for.
        Some(unsafe { (self.backend)() })
    }
}

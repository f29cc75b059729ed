//! llama.cpp's quantiser.

use std::ffi::CString;
use std::path::Path;

use llama_cpp_sys_2 as sys;

use super::{initialise, reason};
use crate::llama::quantise::Quantisation;

/// Reads `from` and writes `to`; blocks for as long as that takes.
pub(crate) fn quantise(
    from: &Path,
    to: &Path,
    kind: Quantisation,
    requantise: bool,
    threads: usize,
) -> Result<(), String> {
    initialise();
    let path = |path: &Path| {
        let text = path
            .to_str()
            .ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        CString::new(text).map_err(|error| error.to_string())
    };
    let (from, to) = (path(from)?, path(to)?);
    // SAFETY: default parameters hold no pointer of ours; both paths live through the call.
    let failed = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.nthread = i32::try_from(threads.max(1)).unwrap_or(1);
        params.allow_requantize = requantise;
        params.ftype = match kind {
            Quantisation::Q8_0 => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
            Quantisation::Q6K => sys::LLAMA_FTYPE_MOSTLY_Q6_K,
            Quantisation::Q5KM => sys::LLAMA_FTYPE_MOSTLY_Q5_K_M,
            Quantisation::Q4KM => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
            Quantisation::Q4_1 => sys::LLAMA_FTYPE_MOSTLY_Q4_1,
            Quantisation::Q4_0 => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
        };
        sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params)
    };
    match failed {
        0 => Ok(()),
        _ => Err(reason("llama.cpp cannot do it")),
    }
}

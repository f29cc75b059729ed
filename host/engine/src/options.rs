//! What an operator may set of the engine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Limits;

/// The engine's options, each with its default and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineOptions {
    /// What a call gets when its manifest asks for nothing.
    pub defaults: Limits,
    /// What a call gets at most, whatever its manifest asks.
    pub caps: Limits,
    /// Calls that can run at once. 64: more than all pools' permits and the HTTP lane together; a slot costs address
    /// space, not memory.
    pub slots: u32,
    /// Length of an epoch, milliseconds: how late a spinning guest notices a limit or a cancel. 5: well under the
    /// 50 ms promised for a cancel, and 200 wake-ups a second cost nothing measurable.
    pub epoch_ms: u64,
    /// Memory of a slot that is kept and zeroed instead of given back to the kernel, bytes. 512 KiB: what `validate`
    /// touches.
    pub keep_resident_bytes: usize,
    /// Where compiled components are kept between starts; none: they are compiled at each start.
    pub cache_folder: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            defaults: Limits::default(),
            caps: Limits::default_caps(),
            slots: 64,
            epoch_ms: 5,
            keep_resident_bytes: 512 << 10,
            cache_folder: None,
        }
    }
}

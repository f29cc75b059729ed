//! The peer for Extism: submission in, findings out.

use extism_pdk::{FnResult, plugin_fn};

#[plugin_fn]
pub fn validate(submission: Vec<u8>) -> FnResult<String> {
    Ok(formwork_peer_logic::answer(&submission))
}

/// Called by Wizer before it saves the memory.
#[unsafe(export_name = "wizer-initialize")]
pub extern "C" fn initialise() {
    formwork_peer_logic::initialise();
}

//! From a core module to a component.

use wit_component::ComponentEncoder;

use crate::Error;

/// Makes a component of a core module that carries the contract's type section, as `wit-bindgen` leaves it.
///
/// # Errors
/// [`Error::Componentize`] when the module lacks an export the world asks for or imports what no interface has.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, Error> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| {
            encoder.adapter(
                "wasi_snapshot_preview1",
                wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| Error::Componentize(format!("{error:#}")))
}

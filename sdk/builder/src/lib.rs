//! Builds a plugin crate into one component file: `formwork plugin build`.
//!
//! A plugin author writes Rust and `plugin.toml` and gets one file, whichever way their machine compiles to
//! WebAssembly: see [`Toolchain`] for the two routes. Both produce a core module for `wasm32-wasip1`, which becomes a
//! component here, so the result does not depend on the route's own componentising. The alternative, `wasm32-wasip2` on
//! the first route, was rejected for that: two ways to the same file are two sets of bugs.

mod build;
mod componentize;
mod error;
mod source;
mod toolchain;

pub use build::{Built, build, compile};
pub use componentize::componentize;
pub use error::Error;
pub use source::load_manifest;
pub use toolchain::Toolchain;

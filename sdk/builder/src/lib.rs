//! Builds a plugin's folder into one component file: `formwork plugin build`.
//!
//! A plugin author writes Rust, Python or JavaScript and `plugin.toml`, and gets one file; the folder shows which
//! language it is ([`Language`]).
//!
//! Rust: see [`Toolchain`] for the two routes. Both produce a core module for `wasm32-wasip1`, which becomes a component
//! here, so the result does not depend on the route's own componentising. The alternative, `wasm32-wasip2` on the first
//! route, was rejected for that: two ways to the same file are two sets of bugs.
//!
//! Python and JavaScript: a tool puts the interpreter and the author's modules into one component. The tools are not
//! linked in (they hold a compiler and an interpreter each, and their versions move faster than Formwork's): they are
//! installed where they are wanted, and pinned in `tools/`.

mod build;
mod componentize;
mod error;
mod flatten;
mod javascript;
mod language;
mod python;
mod rust;
mod source;
mod stage;
mod tool;
mod toolchain;
mod world;

pub use build::{Built, build};
pub use componentize::componentize;
pub use error::Error;
pub use language::Language;
pub use rust::compile;
pub use source::load_manifest;
pub use toolchain::Toolchain;

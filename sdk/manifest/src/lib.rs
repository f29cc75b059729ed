//! The plugin manifest: what a component says of itself, inside its own file.
//!
//! A plugin is one component file. Its manifest travels in a custom section named [`SECTION`], so that name, version,
//! grants and self-tests are covered by the same digest as the code: there is no second file to lose or to swap.
//! Authors write `plugin.toml`; the builder embeds it as JSON. Unknown keys are errors, so that a misspelt limit is
//! not silently unlimited.
//!
//! The alternative, a package format (zip or tar) around the component, was rejected: it adds a parser that faces
//! hostile input and gives nothing that a custom section does not.

mod digest;
mod error;
mod model;
mod section;

pub use digest::Digest;
pub use error::Error;
pub use model::{
    CONTRACT, Expectation, ExpectedError, Grant, Kind, LimitRequest, MAX_MANIFEST_BYTES, MAX_SELF_TESTS, Manifest,
    SelfTest, SelfTestForm,
};
pub use section::{SECTION, embed, read};

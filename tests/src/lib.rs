//! What the end-to-end tests share.
//!
//! **Problem.** A plugin is only tested when it runs as a component in the sandbox. **Promise.** Each test gets the
//! plugin built from this tree's sources, installed with its self-tests, in the real engine. **Cost.** The first build of
//! the guests takes minutes, later ones under a second. **Rejected.** Components left by an earlier build: they may be
//! older than the sources, and a test that passes on them says nothing.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot be set up should stop with a message"
)]

mod arena;
pub mod fuzzing;
mod installed;
mod test_data;

pub use arena::{Arena, call, echo};
pub use installed::{build, build_folder, engine, form, install, install_folder, setup, submission};
pub use test_data::test_data;

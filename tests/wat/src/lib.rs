//! Plugins written as WebAssembly text.
//!
//! **Problem.** A plugin that means harm does what no compiler would emit: it answers addresses outside its memory, forges
//! handles, spins while it is being set up. **Promise.** A [`Guest`] is such a plugin in a few lines, put together from
//! pieces that each say one thing: what it imports, what stands in its memory, what its functions do. **Cost.** Addresses
//! and record layouts are the author's business ([`words`] and the constants help). **Rejected.** Guests in Rust: minutes of
//! toolchain, and the interesting ones cannot be written. Patching one text with string replacement: nobody can read what
//! comes out.
#![allow(
    clippy::expect_used,
    reason = "a guest that cannot be built stops its test with a message"
)]

mod guest;
pub mod imports;
mod package;

pub use guest::{Guest, OK, SCRATCH, text, words};
pub use package::{assemble, manifest, package};

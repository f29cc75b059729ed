//! Plugins that mean harm, each with the end it must come to.
//!
//! **Problem.** A sandbox is worth what it withstands, not what it intends. **Promise.** Every case is a plugin of a few
//! lines and an expected, typed outcome: which limit and how much was used, a trap, a refusal with its code. After each of
//! them a good plugin answers in the same engine. **Cost.** Half a minute. **Rejected.** One engine a case: what one guest
//! leaves behind for the next would never show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod artefacts;
mod bombs;
mod cpu;
mod harness;
mod host_calls;
mod lifting;
mod memory;
mod meters;
mod operations;
mod packages;
mod reuse;
mod snapshots;

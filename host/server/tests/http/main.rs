//! The API over real TCP, with the real store, pools, sandboxes and plugins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod concurrency;
mod errors;
mod events;
mod flow;
mod openapi;
mod operations;
mod selection;
mod step_rules;
mod submit_lines;
mod support;
mod validation;

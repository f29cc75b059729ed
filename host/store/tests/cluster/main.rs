//! What MongoDB and Redis may suffer while work goes on, each as a test: nothing acknowledged is lost, each effect is
//! recorded once, no task is left running. Every test has servers of its own where it harms them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

#[path = "../ledger/mod.rs"]
mod ledger;
mod mongodb;
mod nodes;
mod redis;
mod world;

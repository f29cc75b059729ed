//! The API over real TCP, with the real store, pools, sandboxes and plugins.

mod concurrency;
mod errors;
mod flow;
mod openapi;
mod support;

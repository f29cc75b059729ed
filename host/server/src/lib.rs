//! What the `formwork` binary is made of: configuration, wiring, HTTP API and command line.
//!
//! **Problem.** The rooms below (store, scheduler, engine, inference, pipeline) know nothing of each other's start, end and
//! faults; somebody has to. **Promise.** [`serve`] builds the whole product from one configuration and takes it down again
//! in order; everything a client can see is in [`http`], everything a person types is in [`cli`]. **Cost.** One more library
//! target beside the binary. **Rejected.** Wiring inside `main`: the tests, the demo and `formwork run` would each wire
//! their own, slightly different product.

pub mod cli;
pub mod clock;
pub mod config;
pub mod examples;
pub mod forms;
pub mod http;
pub mod logging;
pub mod plugin_library;
pub mod pool_cpu;
pub mod retention;
pub mod runner;
pub mod serve;
pub mod waiters;

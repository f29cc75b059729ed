//! A campaign of kills against a running Formwork.
//!
//! **Problem.** "Nothing is lost" cannot be read off the code; it must survive processes that die at any moment. **Promise.**
//! Clients submit without pause and keep a ledger of what was acknowledged, while one process after another is killed
//! with SIGKILL at random moments and started again. At the end every line of the ledger is checked through the public
//! API: recorded, ended, with its effect exactly once and a history that has only legal edges; and no task is left
//! running. **Cost.** About a second a kill. **Rejected.** Killing at chosen points in the code: they would be the points
//! somebody thought of. Whether random moments hit the one that matters (recorded, not yet answered) is counted: a
//! client that repeats such a request under its idempotency key is told that it was recorded before.

mod api;
mod campaign;
mod check;
mod clients;
mod cluster;
pub mod kill_ai;

pub use campaign::{Plan, Report, run};
pub use cluster::{Cluster, ClusterFile, ProcessSpec};

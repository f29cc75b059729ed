//! Sandboxed plugins: install, instantiate, call, meter.
//!
//! **Problem.** A form's submission is judged by code its operator did not write. **Promise.** Each call runs in memory
//! no other submission has touched, with CPU time, wall time, memory, output, host calls and handles limited and
//! metered, and ends in a typed [`CallError`] that names the limit; what a plugin was not granted it cannot even
//! import. **Cost.** A store and an instance per call: tens of microseconds with the pooling allocator. **Rejected.**
//! Warm instances shared between submissions: faster to write, but one person's answers would stay in memory for the
//! next.
//!
//! Guests run on the thread that polls the call, which must not own timers or sockets of anybody else.

mod call;
mod clock;
mod compile;
mod config;
mod convert;
mod error;
#[doc(hidden)]
pub mod floor;
mod guest;
mod host;
mod install;
mod limits;
mod linker;
mod meter;
mod metrics;
mod no_network;
mod options;
mod output;
mod plugin;
mod private_files;
mod sandbox;
mod self_test;
mod setup;
mod slot_reset;
mod snapshot;
mod spans;
mod state;
mod ticker;
mod turns;

pub use call::{CallContext, FormInput, Frame, Output, ProgressSink, ProgressUpdate, Report, SubmissionInput};
pub use compile::{CompilerCommand, compile_in_this_process};
pub use error::{CallError, Error, InstallError, PluginError, Problem, SnapshotError};
pub use formwork_inference::{CpuBudget, ModelId, Priority};
pub use formwork_manifest::{Digest, Grant, Kind, Manifest};
pub use install::{Engine, manifest_name};
pub use limits::{Limit, LimitExceeded, Limits};
pub use meter::Usage;
pub use options::{CompileOptions, EngineOptions, SnapshotOptions};
pub use plugin::{Plugin, SnapshotInfo, SnapshotStatus};
pub use setup::Setup;
pub use slot_reset::SlotReset;

//! Snapshots: fresh memory for every submission, with the form's work already done in it.
//!
//! **Problem.** `prepare` compiles a form's schema and settings; doing that for every submission costs hundreds of times
//! the work itself, and keeping a prepared instance would leave one person's answers in memory for the next.
//! **Promise.** `prepare` runs once per plugin version and setup; what it left in memory becomes an image, and every call
//! starts from a fresh copy-on-write mapping of it. Until there is one, calls take the plain path: fresh instance,
//! `prepare`, work. A plugin that cannot be snapshotted says why and keeps the plain path. Images are made here only:
//! none is ever accepted from outside, and what is kept on disk is memory, never code. **Cost.** The image: as large as
//! what the guest's memory holds, within [`SnapshotOptions`](crate::SnapshotOptions). **Rejected.** Rewriting the whole
//! component with its memory inside (what `wasmtime-wizer` does): every form version would compile the plugin again,
//! seconds of CPU and megabytes of code each; here the code is compiled once and a snapshot takes milliseconds.
//! Decision 6 has the figures.
//!
//! | file | does |
//! |---|---|
//! | `core_module` | takes memories and globals out of a core module |
//! | `split` | does so for a whole component |
//! | `state_module` | makes a module of memories and globals, from values |
//! | `take` | runs `prepare` and reads the values out |
//! | `keeper` | which snapshots there are: making, finding, evicting them |
//! | `disk` | keeps values between starts |

mod core_module;
mod disk;
mod keeper;
mod split;
mod state_module;
mod take;

pub(crate) use disk::Disk;
pub(crate) use keeper::{Keeper, Lookup, Origin};
pub(crate) use split::{STATE_IMPORT, Split, split};
pub(crate) use state_module::Values;
pub(crate) use take::{Code, Image, Until, take};

/// Why a component's state cannot be taken out of it. The plain path serves it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unsupported(String);

impl Unsupported {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<wasmparser::Error> for Unsupported {
    fn from(error: wasmparser::Error) -> Self {
        Self(format!("it cannot be read: {error}"))
    }
}

impl<E: std::fmt::Display> From<wasm_encoder::reencode::Error<E>> for Unsupported {
    fn from(error: wasm_encoder::reencode::Error<E>) -> Self {
        Self(format!("it cannot be written anew: {error}"))
    }
}

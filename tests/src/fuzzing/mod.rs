//! What is fuzzed, for libFuzzer (`make fuzz`) and for the bounded run in `make test`.
//!
//! **Problem.** A list of hostile cases holds what somebody thought of. **Promise.** Each [`Target`] takes any bytes and
//! panics when a promise is broken: a panic of the host, an end that blames the host, a limit that did not hold, a good
//! plugin that is not served afterwards. **Cost.** One input takes a tenth of a millisecond to some milliseconds. **Rejected.**
//! Mocked host functions: what a guest reaches is the whole path, from its instruction through the lifting to the meter.

mod corpus;
mod host_calls;
mod interpreter;
mod lifting;
pub mod model_file;
mod package;

use std::sync::{Mutex, OnceLock, PoisonError};

use formwork_engine::{CallError, Output, Report};
use tokio::runtime::{Builder, Runtime};

pub use corpus::{Ends, bounded, write_seeds};

use crate::Arena;

/// Something that takes hostile bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Manifests and component files, up to their installation.
    Package,
    /// A guest that makes the host calls its submission tells it to.
    HostCalls,
    /// A guest that answers whatever its submission says.
    Lifting,
    /// Headers of model files, before a native library reads them.
    ModelFile,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Package, Self::HostCalls, Self::Lifting, Self::ModelFile];

    /// Its name: that of its corpus and its program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::HostCalls => "host_calls",
            Self::Lifting => "lifting",
            Self::ModelFile => "model_file",
        }
    }

    /// Runs one input; answers how it ended: `ok` or a code.
    ///
    /// # Panics
    /// When a promise is broken: that is what is looked for.
    pub fn run(self, input: &[u8]) -> &'static str {
        // One input at a time: what it leaves behind is met by the next.
        static RUNTIME: OnceLock<Mutex<Runtime>> = OnceLock::new();
        let runtime = RUNTIME.get_or_init(|| {
            let runtime = Builder::new_current_thread().enable_time().build();
            Mutex::new(runtime.expect("a runtime starts"))
        });
        let runtime = runtime.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(async {
            let end = match self {
                Self::Package => package::run(input).await,
                Self::HostCalls => host_calls::run(input).await,
                Self::Lifting => lifting::run(input).await,
                Self::ModelFile => model_file::run(input),
            };
            // Where no guest takes part, none has to be served afterwards.
            if self != Self::ModelFile {
                Arena::shared().await.serves().await;
            }
            end
        })
    }

    /// Inputs to begin with.
    fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Package => package::seeds(),
            Self::HostCalls => host_calls::seeds(),
            Self::Lifting => lifting::seeds(),
            Self::ModelFile => model_file::seeds(),
        }
    }
}

/// The promises every call keeps, however it ends; answers how it did.
fn check(report: &Report<Output>, limits: &formwork_engine::Limits) -> &'static str {
    if let Err(CallError::Host(message)) = &report.result {
        panic!("the host is blamed for what a guest did: {message}");
    }
    let usage = &report.usage;
    assert!(usage.memory_bytes <= limits.memory_bytes, "{usage:?}");
    // The one that is refused is counted.
    assert!(usage.host_calls <= limits.host_calls + 1, "{usage:?}");
    let text = match &report.result {
        Ok(output) => {
            let export = output.export.as_ref().map_or(0, Vec::len);
            assert!(export as u64 <= limits.output_bytes, "{export} bytes exported");
            output.json.to_string()
        }
        Err(error) => error.to_string(),
    };
    assert!(
        text.len() as u64 <= limits.output_bytes,
        "{} bytes answered",
        text.len()
    );
    report.result.as_ref().map_or_else(CallError::code, |_| OK)
}

/// How an input ends that is accepted.
const OK: &str = "ok";
/// How one ends that is not long enough to say anything.
const EMPTY: &str = "empty";

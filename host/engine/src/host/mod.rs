//! The host functions of the contract, one module an interface.
//!
//! Every function counts itself first ([`State::enter`](crate::state::State::enter)). What a plugin may not do or did
//! wrong is a typed value; an error of these functions ends the call and means a limit or a fault of the host.

mod embeddings;
mod generation;
mod log;
mod progress;
mod sinks;
mod tensors;

pub(crate) use sinks::SinkBuffer;

use formwork_bindings::v1::host::host_types::{self, HostError, LimitExceeded, ModelId};
use formwork_inference::Error;

use crate::state::State;

impl host_types::Host for State {}

impl State {
    /// Inference refused something: the guest gets it as a value, the call's report its code.
    fn refused(&self, error: &Error) -> HostError {
        self.meter.inference_failed(error.code());
        host_error(error)
    }
}

/// A model's identity in the contract's words.
fn model_id(model: &formwork_inference::ModelId) -> ModelId {
    ModelId {
        name: model.name.clone(),
        version: model.version.clone(),
        sha256: model.sha256.clone(),
    }
}

/// An inference error in the contract's words.
fn host_error(error: &Error) -> HostError {
    match error {
        Error::UnknownModel { .. } => HostError::UnknownModel(error.to_string()),
        Error::WrongTask { .. } | Error::InvalidArgument(_) => HostError::InvalidArgument(error.to_string()),
        Error::TooLarge { what, limit, got } => HostError::LimitExceeded(LimitExceeded {
            name: (*what).to_owned(),
            limit: *limit,
            asked: *got,
        }),
        Error::Busy { .. } | Error::ShuttingDown | Error::Memory { .. } => HostError::Unavailable(error.to_string()),
        // Why stands in the host's log: paths are not a plugin's business.
        Error::LoadFailed { model, .. } => {
            HostError::Unavailable(format!("model {model} could not be loaded, it will be tried again"))
        }
        Error::DeadlineExceeded => HostError::DeadlineExceeded,
        Error::Cancelled => HostError::Cancelled,
        _ => HostError::Internal(error.to_string()),
    }
}

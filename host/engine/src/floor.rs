//! What wasmtime alone takes for a call: the yardstick of [`Plugin::work`] in benches, and for nothing else.
//!
//! The same image in a store without limiter, deadlines, epochs, fuel, cancel or metrics. The host's state is what
//! linking asks for; nothing is measured against it.

use std::sync::Arc;

use wasmtime::Store;

use crate::guest::Guest;
use crate::meter::Meter;
use crate::output::BoundedOutput;
use crate::snapshot::{Lookup, Origin, ReadyImage};
use crate::state::State;
use crate::{CallContext, CallError, Output, Plugin, Report, Setup, SubmissionInput};

/// An epoch that never comes.
const NEVER: u64 = u64::MAX / 2;

/// A plugin ready to be instantiated.
pub struct Floor {
    origin: Arc<Origin>,
    snapshot: Option<ReadyImage>,
}

/// An instance that is prepared.
pub struct Instance {
    store: Store<State>,
    guest: Guest,
}

impl Floor {
    /// The component as it was installed: each instance prepares itself.
    #[must_use]
    pub fn plain(plugin: &Plugin) -> Self {
        Self {
            origin: Arc::clone(plugin.origin()),
            snapshot: None,
        }
    }

    /// The setup's snapshot; `None` where it is not ready.
    pub fn snapshot(plugin: &Plugin, setup: &Setup) -> Option<Self> {
        match plugin.find(setup) {
            Lookup::Ready(image) => Some(Self {
                origin: Arc::clone(plugin.origin()),
                snapshot: Some(image),
            }),
            Lookup::Plain => None,
        }
    }

    /// A fresh instance, prepared.
    ///
    /// # Errors
    /// Whatever the engine or the plugin says.
    pub async fn instance(&self, setup: &Setup) -> Result<Instance, CallError> {
        let sandbox = &self.origin.sandbox;
        let state = State::new(
            Meter::new(sandbox.limits.clone()),
            sandbox.inference.clone(),
            Arc::clone(&sandbox.name),
            &CallContext::default(),
            &BoundedOutput::default(),
        );
        let mut store = Store::new(&sandbox.engine, state);
        store.set_epoch_deadline(NEVER);
        let image = self.snapshot.as_deref().unwrap_or(&self.origin.base);
        let guest = image.world.instantiate(&mut store).await.map_err(host)?;
        if self.snapshot.is_none() {
            guest.prepare(&mut store, setup).await.map_err(host)??;
        }
        Ok(Instance { store, guest })
    }
}

impl Instance {
    /// Runs the work function on a submission.
    ///
    /// # Errors
    /// Whatever the engine or the plugin says.
    pub async fn work(&mut self, submission: &SubmissionInput) -> Result<Output, CallError> {
        self.guest.work(&mut self.store, submission).await.map_err(host)?
    }
}

/// A call on the plain path, also where there is a snapshot.
pub async fn work_plainly(
    plugin: &Plugin,
    setup: &Setup,
    submission: &SubmissionInput,
    context: &CallContext,
) -> Report<Output> {
    plugin.work_plainly(setup, submission, context).await
}

fn host(error: wasmtime::Error) -> CallError {
    CallError::Host(format!("{error:#}"))
}

//! What wasmtime alone takes for a call: the yardstick of [`Plugin::work`] in benches, and for nothing else.
//!
//! The same image in a store without limits, meters, deadlines, cancel or metrics. The host's state is only what
//! linking asks for; it is not measured against anything.

use std::sync::Arc;

use formwork_bindings::v1::validator::{Validator, ValidatorPre};
use wasmtime::Store;

use crate::meter::Meter;
use crate::output::BoundedOutput;
use crate::plugin::World;
use crate::state::State;
use crate::{CallContext, CallError, Plugin, Setup, SubmissionInput, convert};

/// An epoch that never comes.
const NEVER: u64 = u64::MAX / 2;

/// A validator ready to be instantiated.
pub struct Floor {
    plugin: Arc<Plugin>,
    pre: ValidatorPre<State>,
}

/// An instance that is prepared.
pub struct Instance {
    store: Store<State>,
    validator: Validator,
}

impl Floor {
    /// The component as it was installed: each instance prepares itself.
    ///
    /// # Errors
    /// When the plugin is not a validator.
    pub fn plain(plugin: &Arc<Plugin>) -> Result<Self, CallError> {
        match &plugin.world {
            World::Validator(pre) => Ok(Self {
                plugin: Arc::clone(plugin),
                pre: pre.clone(),
            }),
            _ => Err(CallError::Host("only validators have a floor".into())),
        }
    }

    /// A fresh instance, prepared.
    ///
    /// # Errors
    /// Whatever the engine or the plugin says.
    pub async fn instance(&self, setup: &Setup) -> Result<Instance, CallError> {
        let plugin = &self.plugin;
        let meter = Meter::new(plugin.limits.clone());
        let (name, context) = (Arc::clone(&plugin.name), CallContext::default());
        let state = State::new(
            meter,
            plugin.inference.clone(),
            name,
            &context,
            &BoundedOutput::default(),
        );
        let mut store = Store::new(&plugin.engine, state);
        store.set_epoch_deadline(NEVER);
        let validator = self.pre.instantiate_async(&mut store).await.map_err(host)?;
        let (form, settings) = (convert::form(setup.form()), setup.settings().to_owned());
        let prepared = validator.call_prepare(&mut store, &form, &settings);
        prepared.await.map_err(host)?.map_err(convert::plugin_error)?;
        Ok(Instance { store, validator })
    }
}

impl Instance {
    /// Validates a submission; answers how many findings there are.
    ///
    /// # Errors
    /// Whatever the engine or the plugin says.
    pub async fn validate(&mut self, submission: &SubmissionInput) -> Result<usize, CallError> {
        let submission = convert::submission(submission);
        let validation = self.validator.formwork_plugin_validation();
        let answer = validation.call_validate(&mut self.store, &submission).await;
        let findings = answer.map_err(host)?.map_err(convert::plugin_error)?;
        Ok(findings.len())
    }
}

fn host(error: wasmtime::Error) -> CallError {
    CallError::Host(format!("{error:#}"))
}

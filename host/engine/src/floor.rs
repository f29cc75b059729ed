//! What wasmtime alone takes for a call: the yardstick of [`Plugin::work`] in benches, and for nothing else.
//!
//! The same image in a store that holds WASI's context and nothing of Formwork's: no limiter, deadlines, fuel, cancel,
//! meters or metrics, no host functions of the contract, and the answer stays as the component gives it.

use formwork_bindings::v1::validator::{Validator, ValidatorPre};
use wasmtime::Store;
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxView, WasiView};

use crate::snapshot::{Image, Lookup};
use crate::{CallContext, CallError, Kind, Output, Plugin, Report, Setup, SubmissionInput, convert};

/// An epoch that never comes.
const NEVER: u64 = u64::MAX / 2;

/// A validator ready to be instantiated.
pub struct Floor {
    pre: ValidatorPre<Bare>,
    engine: wasmtime::Engine,
    prepared: bool,
}

/// An instance that is prepared.
pub struct Instance {
    store: Store<Bare>,
    validator: Validator,
}

struct Bare {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Bare {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl Floor {
    /// The component as it was installed: each instance prepares itself.
    ///
    /// # Errors
    /// When the plugin is no validator.
    pub fn plain(plugin: &Plugin) -> Result<Self, CallError> {
        Self::of(plugin, &plugin.origin().base, false)
    }

    /// The setup's snapshot; `None` where it is not ready.
    ///
    /// # Errors
    /// When the plugin is no validator.
    pub fn snapshot(plugin: &Plugin, setup: &Setup) -> Result<Option<Self>, CallError> {
        match plugin.find(setup) {
            Lookup::Ready(image) => Self::of(plugin, &image, true).map(Some),
            Lookup::Plain => Ok(None),
        }
    }

    fn of(plugin: &Plugin, image: &Image, prepared: bool) -> Result<Self, CallError> {
        if plugin.manifest().kind != Kind::Validator {
            return Err(CallError::Host("only validators have a floor".into()));
        }
        let sandbox = &plugin.origin().sandbox;
        let pre = sandbox.code.bare(image).and_then(ValidatorPre::new).map_err(host)?;
        Ok(Self {
            pre,
            engine: sandbox.engine.clone(),
            prepared,
        })
    }

    /// A fresh instance, prepared.
    ///
    /// # Errors
    /// Whatever the engine or the plugin says.
    pub async fn instance(&self, setup: &Setup) -> Result<Instance, CallError> {
        let bare = Bare {
            wasi: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, bare);
        store.set_epoch_deadline(NEVER);
        let validator = self.pre.instantiate_async(&mut store).await.map_err(host)?;
        if !self.prepared {
            let form = convert::form(setup.form());
            let answer = validator.call_prepare(&mut store, &form, setup.settings()).await;
            answer.map_err(host)?.map_err(convert::plugin_error)?;
        }
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

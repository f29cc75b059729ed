//! One installed component and how calls of it start: the limits, the store, the image an instance begins from.

use std::sync::Arc;

use formwork_inference::Inference;
use tokio_util::sync::CancellationToken;
use wasmtime::Store;

use crate::call::{drive, store};
use crate::limits::Limits;
use crate::meter::Meter;
use crate::output::BoundedOutput;
use crate::snapshot::{Code, Image, Until, Values, take};
use crate::state::State;
use crate::{CallContext, CallError, Report};

/// How many times its CPU time a computation may take on a machine that has other things to do.
const BUSY_MACHINE: u64 = 10;

/// What is the same for every call of a plugin version.
pub(crate) struct Sandbox {
    pub(crate) engine: wasmtime::Engine,
    pub(crate) inference: Inference,
    pub(crate) name: Arc<str>,
    pub(crate) limits: Limits,
    pub(crate) code: Code,
}

/// What belongs to one call.
pub(crate) struct Call {
    pub(crate) meter: Arc<Meter>,
    pub(crate) stdio: BoundedOutput,
    pub(crate) store: Store<State>,
}

impl Call {
    /// Begins the accounts anew for the next submission of a batch; the memory in use stays in use.
    pub(crate) fn renew(&mut self, limits: &Limits) {
        self.meter = self.meter.next(limits.clone());
        self.store.data_mut().renew(&self.meter);
    }
}

impl Sandbox {
    /// A fresh store with the plugin's limits armed.
    pub(crate) fn call(&self, context: &CallContext) -> Call {
        self.call_within(context, self.limits.clone())
    }

    fn call_within(&self, context: &CallContext, limits: Limits) -> Call {
        let meter = Meter::new(limits);
        let stdio = BoundedOutput::default();
        let state = State::new(
            Arc::clone(&meter),
            self.inference.clone(),
            Arc::clone(&self.name),
            context,
            &stdio,
        );
        let store = store(&self.engine, state, context.deadline);
        Call { meter, stdio, store }
    }

    /// The state that an instance of `image` is in after running `until`, under the limits of a call.
    pub(crate) async fn take(
        &self,
        image: &Image,
        until: Until<'_>,
        owner: &str,
        cancel: CancellationToken,
    ) -> Report<Values> {
        let context = CallContext {
            owner: owner.into(),
            cancel,
            ..CallContext::default()
        };
        let mut limits = self.limits.clone();
        // Reading a memory out grows it by a page.
        limits.memory_bytes = limits.memory_bytes.saturating_add(self.code.reading_bytes());
        // It computes and waits for nothing; asleep, it would keep those that wait for it waiting.
        limits.wall_ms = limits.wall_ms.min(limits.cpu_ms.saturating_mul(BUSY_MACHINE));
        // The memory is lifted as one list.
        limits.output_bytes = limits.output_bytes.max(limits.memory_bytes);
        let Call { meter, stdio, store } = self.call_within(&context, limits);
        drive(&meter, &context, &stdio, take(&self.code, image, until, store)).await
    }

    /// The image that instances of the plain path begin from: started, not prepared.
    pub(crate) async fn base(&self, pristine: Image) -> Result<Image, CallError> {
        let host = |error: wasmtime::Error| CallError::Host(format!("{error:#}"));
        if !self.code.is_split() {
            return Ok(pristine);
        }
        let started = self
            .take(&pristine, Until::Started, "install", CancellationToken::new())
            .await
            .result?;
        self.code.image(&started).map_err(host)
    }
}

//! What a store holds for one call.

use std::sync::Arc;
use std::time::Instant;

use formwork_inference::{CallContext as InferenceContext, Inference};
use wasmtime::component::Resource;
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::limits::MAX_RANDOM_BYTES;
use crate::meter::{MemoryLimiter, Meter};
use crate::output::BoundedOutput;
use crate::{CallContext, ProgressSink};

/// The store's data: one call's view of the host.
pub(crate) struct State {
    /// Made when the guest first asks for it: a validation never does, and making it is a tenth of what a call adds to
    /// the engine's own work.
    wasi: Option<WasiCtx>,
    stdio: BoundedOutput,
    pub(crate) table: ResourceTable,
    pub(crate) limiter: MemoryLimiter,
    pub(crate) meter: Arc<Meter>,
    pub(crate) inference: Inference,
    pub(crate) inference_call: InferenceContext,
    pub(crate) plugin: Arc<str>,
    pub(crate) correlation_id: String,
    pub(crate) progress: Option<ProgressSink>,
    /// The caller's deadline, or its soft one.
    inference_deadline: Option<Instant>,
    /// False during `prepare`, whose state may be given to many submissions.
    pub(crate) imports_allowed: bool,
}

impl State {
    /// No environment, no arguments, no files, no network; clocks and randomness only.
    pub(crate) fn new(
        meter: Arc<Meter>,
        inference: Inference,
        plugin: Arc<str>,
        context: &CallContext,
        stdio: &BoundedOutput,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(meter.limits.max_handles());
        Self {
            wasi: None,
            stdio: stdio.clone(),
            table,
            limiter: MemoryLimiter(Arc::clone(&meter)),
            inference,
            inference_call: InferenceContext {
                deadline: None,
                cancel: context.cancel.clone(),
                owner: context.owner.clone(),
                budget: context.budget.clone(),
                form: context.form.clone(),
                priority: context.priority,
            },
            meter,
            plugin,
            correlation_id: context.correlation_id.clone(),
            progress: context.progress.clone(),
            inference_deadline: earlier(context.deadline, context.soft_deadline),
            imports_allowed: false,
        }
    }

    /// Goes on under another meter.
    pub(crate) fn renew(&mut self, meter: &Arc<Meter>) {
        self.meter = Arc::clone(meter);
        self.limiter = MemoryLimiter(Arc::clone(meter));
    }

    /// Gives the guest a handle of the contract.
    pub(crate) fn open<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        let handle = self.table.push(value)?;
        self.meter.handle_opened();
        Ok(handle)
    }

    /// Takes it back.
    pub(crate) fn close<T: Send + 'static>(&mut self, handle: Resource<T>) -> wasmtime::Result<T> {
        let value = self.table.delete(handle)?;
        self.meter.handle_closed();
        Ok(value)
    }

    /// Counts a host call and refuses it during `prepare`. Inference has until the limits as they are now.
    pub(crate) fn enter(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.meter.host_call(bytes)?;
        self.inference_call.deadline = earlier(self.inference_deadline, Some(self.meter.wall_limit()));
        if self.imports_allowed {
            Ok(())
        } else {
            Err(wasmtime::Error::msg(
                "prepare called an import: do it in the work function",
            ))
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| {
            WasiCtxBuilder::new()
                .stdout(self.stdio.clone())
                .stderr(self.stdio.clone())
                .max_random_size(MAX_RANDOM_BYTES)
                .build()
        });
        WasiCtxView {
            ctx,
            table: &mut self.table,
        }
    }
}

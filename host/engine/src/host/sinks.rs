//! `sinks`: what an exporter writes, kept until the task's result is recorded with it.

use formwork_bindings::v1::host::host_types::HostError;
use formwork_bindings::v1::host::sinks::{Host, HostSink, Sink};
use wasmtime::component::Resource;

use crate::state::State;

/// The bytes written so far.
#[derive(Debug, Default)]
pub(crate) struct SinkBuffer(pub(crate) Vec<u8>);

impl Host for State {}

impl HostSink for State {
    fn write(&mut self, handle: Resource<Sink>, bytes: Vec<u8>) -> wasmtime::Result<Result<u64, HostError>> {
        self.enter(bytes.len())?;
        self.meter.output(bytes.len())?;
        let buffer = self.table.get_mut(&Resource::<SinkBuffer>::new_borrow(handle.rep()))?;
        buffer.0.extend_from_slice(&bytes);
        Ok(Ok(buffer.0.len() as u64))
    }

    fn drop(&mut self, handle: Resource<Sink>) -> wasmtime::Result<()> {
        self.close(Resource::<SinkBuffer>::new_own(handle.rep()))?;
        Ok(())
    }
}

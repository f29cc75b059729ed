//! `progress`: how far a task has come, to whoever called.

use formwork_bindings::v1::host::progress::Host;

use crate::ProgressUpdate;
use crate::state::State;

impl Host for State {
    fn report(&mut self, done: u64, total: u64, message: String) -> wasmtime::Result<()> {
        self.enter(message.len())?;
        if let Some(progress) = &self.progress {
            progress(ProgressUpdate { done, total, message });
        }
        Ok(())
    }
}

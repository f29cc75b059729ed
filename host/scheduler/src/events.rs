//! Turns the store's events into wake-ups. Events are hints: whatever is missed here is found by a poll or a heartbeat.

use crate::scheduler::Shared;
use formwork_store::StoreEvent;
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};

pub(crate) async fn listen(shared: Arc<Shared>, mut events: Receiver<StoreEvent>) {
    loop {
        match events.recv().await {
            Ok(StoreEvent::TasksAvailable { pool }) => shared.pool(pool).wake.notify_one(),
            Ok(StoreEvent::CancelRequested { task }) => shared.runs.cancel(task),
            Ok(StoreEvent::ControlsChanged) => shared.controls_changed.notify_one(),
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "store events missed, looking everywhere");
                shared.wake_all();
                shared.runs.beat_now.notify_one();
                shared.controls_changed.notify_one();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

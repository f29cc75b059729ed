//! Waiting until a submission is settled (`Prefer: wait`).
//!
//! **Problem.** Every waiting request would have to look at every event of the store. **Promise.** One listener does, and
//! wakes only those that wait for the submission; when it has missed events it wakes all of them to look for themselves.
//! **Cost.** A map entry per waiting request. **Rejected.** Polling: late, or expensive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_store::{Store, StoreEvent, SubmissionId};
use tokio::sync::{Notify, broadcast::error::RecvError};

type Waiting = HashMap<SubmissionId, (usize, Arc<Notify>)>;

/// Who waits for which submission.
#[derive(Clone, Debug, Default)]
pub struct Waiters {
    waiting: Arc<Mutex<Waiting>>,
}

/// A place in the queue of a submission; leave by dropping it.
#[derive(Debug)]
pub struct Waiter {
    id: SubmissionId,
    notify: Arc<Notify>,
    waiters: Waiters,
}

impl Waiters {
    /// Starts the listener; it ends with the store.
    #[must_use]
    pub fn start(store: &Arc<dyn Store>) -> Self {
        let waiters = Self::default();
        let mut events = store.subscribe();
        let listener = waiters.clone();
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(StoreEvent::SubmissionSettled { id }) => listener.wake(Some(id)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => listener.wake(None),
                    Err(RecvError::Closed) => return listener.wake(None),
                }
            }
        });
        waiters
    }

    /// Takes a place. Do so before looking at the submission, so that nothing falls between.
    #[must_use]
    pub fn join(&self, id: SubmissionId) -> Waiter {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = waiting.entry(id).or_default();
        entry.0 += 1;
        Waiter {
            id,
            notify: Arc::clone(&entry.1),
            waiters: self.clone(),
        }
    }

    fn wake(&self, id: Option<SubmissionId>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match id {
            Some(id) => waiting
                .get(&id)
                .into_iter()
                .for_each(|(_, notify)| notify.notify_waiters()),
            None => waiting.values().for_each(|(_, notify)| notify.notify_waiters()),
        }
    }
}

impl Waiter {
    /// A future that ends at the next hint. Wakes from the moment it is made, not from its first poll.
    pub fn hint(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.get_mut(&self.id) {
            entry.0 -= 1;
            if entry.0 == 0 {
                waiting.remove(&self.id);
            }
        }
    }
}

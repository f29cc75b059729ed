//! Waiting until a submission is settled (`Prefer: wait`) or a task has changed (its events).
//!
//! **Problem.** Every waiting request would have to look at every event of the store. **Promise.** One listener does, and
//! wakes only those that wait for this one; when it has missed events it wakes all of them to look for themselves.
//! **Cost.** A map entry per waiting request. **Rejected.** Polling: late, or expensive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use formwork_store::{Store, StoreEvent, SubmissionId, TaskId};
use tokio::sync::{Notify, broadcast::error::RecvError, futures::OwnedNotified};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Topic {
    /// That a submission is settled.
    Settled(SubmissionId),
    /// That a task moves, or says how far it is.
    Changed(TaskId),
}

impl From<SubmissionId> for Topic {
    fn from(id: SubmissionId) -> Self {
        Self::Settled(id)
    }
}

impl From<TaskId> for Topic {
    fn from(id: TaskId) -> Self {
        Self::Changed(id)
    }
}

type Waiting = HashMap<Topic, (usize, Arc<Notify>)>;

/// Who waits for what.
#[derive(Clone, Debug, Default)]
pub struct Waiters {
    waiting: Arc<Mutex<Waiting>>,
}

/// A place in the queue for a topic; leave by dropping it.
#[derive(Debug)]
pub struct Waiter {
    topic: Topic,
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
                    Ok(StoreEvent::SubmissionSettled { id }) => listener.wake(Some(id.into())),
                    Ok(StoreEvent::TaskChanged { task }) => listener.wake(Some(task.into())),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => listener.wake(None),
                    Err(RecvError::Closed) => return listener.wake(None),
                }
            }
        });
        waiters
    }

    /// Takes a place. Do so before looking at the submission or task, so that nothing falls between.
    #[must_use]
    pub fn join(&self, topic: impl Into<Topic>) -> Waiter {
        let topic = topic.into();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = waiting.entry(topic).or_default();
        entry.0 += 1;
        Waiter {
            topic,
            notify: Arc::clone(&entry.1),
            waiters: self.clone(),
        }
    }

    fn wake(&self, topic: Option<Topic>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match topic {
            Some(topic) => waiting
                .get(&topic)
                .into_iter()
                .for_each(|(_, notify)| notify.notify_waiters()),
            None => waiting.values().for_each(|(_, notify)| notify.notify_waiters()),
        }
    }
}

impl Waiter {
    /// A future that ends at the next hint. Wakes from the moment it is made, not from its first poll.
    pub fn hint(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.get_mut(&self.topic) {
            entry.0 -= 1;
            if entry.0 == 0 {
                waiting.remove(&self.topic);
            }
        }
    }
}

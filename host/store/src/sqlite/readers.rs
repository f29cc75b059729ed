//! A few threads that answer questions while the writer writes.

use super::connection::open_reader;
use crate::{Error, Result, limits};
use rusqlite::Connection;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot};

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// A bounded pool of threads with one `query_only` connection each.
pub(super) struct Readers {
    questions: Mutex<Option<mpsc::Sender<Question>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    /// Opens `count` connections and their threads.
    pub(super) fn start(path: &Path, count: usize) -> Result<Self> {
        let (sender, receiver) = mpsc::channel::<Question>(limits::READ_BACKLOG);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::with_capacity(count);
        for index in 0..count.max(1) {
            let connection = open_reader(path)?;
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new()
                .name(format!("store-read-{index}"))
                .spawn(move || {
                    loop {
                        // The lock is held while waiting: whoever has it takes the next question.
                        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                        let Some(question) = next else { return };
                        question(&connection);
                    }
                })
                .map_err(|error| Error::backend("start reader thread", error))?;
            threads.push(thread);
        }
        Ok(Self {
            questions: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
        })
    }

    /// Runs `question` on a reader, all of it in one snapshot.
    pub(super) async fn ask<T, F>(&self, operation: &'static str, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let sender = {
            let guard = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
            guard.clone().ok_or(Error::Closed)?
        };
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            if reply.is_closed() {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| {
                let snapshot = connection
                    .unchecked_transaction()
                    .map_err(super::failure::sql(operation))?;
                let result = question(&snapshot);
                drop(snapshot);
                result
            }));
            let result = result.unwrap_or_else(|_| Err(Error::backend(operation, "a reader panicked, see the log")));
            // The one who asked may have gone.
            let _ = reply.send(result);
        });
        sender.send(question).await.map_err(|_| Error::Closed)?;
        match answer.await.map_err(|_| Error::Closed)? {
            // A failed read says nothing about what was written; only the writer stops the store.
            Err(Error::Fatal(why)) => Err(Error::backend(operation, why)),
            other => other,
        }
    }

    /// Answers what was asked and ends the threads.
    pub(super) fn stop(&self) {
        drop(self.questions.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a reader thread of the store panicked");
            }
        }
    }
}

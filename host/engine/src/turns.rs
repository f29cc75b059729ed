//! Guests that compute take turns on their thread, an epoch each; whoever was told to stop goes first.
//!
//! Without that a cancelled guest would stop only after the turns of all others: sixteen of 5 ms.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The calls that wait for their turn on one thread, by what tells them to stop.
type Line = Arc<Mutex<Vec<CancellationToken>>>;

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// A place in the line of the thread that made it.
struct Place {
    line: Line,
    own: CancellationToken,
}

impl Place {
    fn take(own: &CancellationToken) -> Self {
        let line = LINE.with_borrow(Arc::clone);
        line.lock().unwrap_or_else(PoisonError::into_inner).push(own.clone());
        Self { line, own: own.clone() }
    }

    fn must_wait(&self) -> bool {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        !self.own.is_cancelled() && line.iter().any(CancellationToken::is_cancelled)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // Any entry that is told to stop together with ours is as good.
        if let Some(index) = line.iter().position(|token| *token == self.own) {
            line.swap_remove(index);
        }
    }
}

/// Lets the others on this thread have their turns, those that were told to stop first.
pub(crate) async fn next(own: CancellationToken) {
    let place = Place::take(&own);
    loop {
        // tokio's own yield goes to the end of the queue; a plain one may be polled again at once.
        tokio::task::yield_now().await;
        if !place.must_wait() {
            return;
        }
    }
}

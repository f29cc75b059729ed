//! How many transactions a node has under way.
//!
//! **Problem.** A MongoDB that is slow for a moment is asked by all nodes for everything at once: each transaction then takes
//! longer than a lease, its work is done again elsewhere, and the overload keeps itself alive. **Promise.** A node whose
//! transactions take longer than [`limits::TRANSACTION_SLOW_MS`] has half as many of them under way, down to
//! [`limits::TRANSACTIONS_LEAST`], and one more for each that was quick, up to [`limits::TRANSACTIONS_MOST`]: what waits does
//! so here, in its order, and costs MongoDB nothing. Heartbeats do not wait. **Cost.** None while MongoDB is quick.
//! **Rejected.** A fixed number: too small for a large replica set, or too large for a small one.

use crate::{limits, metrics};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The places for transactions.
pub(super) struct Pace {
    places: Semaphore,
    state: Mutex<State>,
}

struct State {
    limit: usize,
    /// Places to take away as soon as they come back.
    owed: usize,
    cut_at: Instant,
}

/// The right to run one transaction; says how long it took when it is dropped.
pub(super) struct Turn<'a> {
    pace: &'a Pace,
    place: Option<SemaphorePermit<'a>>,
    began: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        let limit = limits::TRANSACTIONS_MOST;
        Self {
            places: Semaphore::new(limit),
            state: Mutex::new(State {
                limit,
                owed: 0,
                cut_at: Instant::now(),
            }),
        }
    }
}

impl Pace {
    /// Waits for a place.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn {
            // The places are never closed.
            place: self.places.acquire().await.ok(),
            pace: self,
            began: Instant::now(),
        }
    }

    /// A transaction that began at `began` took `took`; whether its place may be used again.
    fn settle(&self, began: Instant, took: Duration) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if took >= Duration::from_millis(limits::TRANSACTION_SLOW_MS) {
            // Those that were under way at the last cut say nothing about what it brought.
            if began >= state.cut_at {
                let limit = (state.limit / 2).max(limits::TRANSACTIONS_LEAST);
                state.owed += state.limit - limit;
                state.limit = limit;
                state.cut_at = began + took;
            }
        } else if state.limit < limits::TRANSACTIONS_MOST {
            state.limit += 1;
            if state.owed > 0 {
                state.owed -= 1;
            } else {
                self.places.add_permits(1);
            }
        }
        metrics::TRANSACTION_PLACES.set(i64::try_from(state.limit).unwrap_or(i64::MAX));
        let kept = state.owed == 0;
        state.owed = state.owed.saturating_sub(1);
        kept
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let kept = self.pace.settle(self.began, self.began.elapsed());
        if let (false, Some(place)) = (kept, self.place.take()) {
            place.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(limits::TRANSACTION_SLOW_MS);

    fn free(pace: &Pace) -> usize {
        pace.places.available_permits()
    }

    #[test]
    fn slow_transactions_halve_and_quick_ones_bring_back() {
        let pace = Pace::default();
        let most = limits::TRANSACTIONS_MOST;
        let start = Instant::now();
        let mut taken: Vec<_> = (0..most).map(|_| pace.places.try_acquire().expect("is free")).collect();
        let mut end = |began: Instant, took: Duration| {
            let place = taken.pop().expect("is under way");
            if pace.settle(began, took) {
                drop(place);
            } else {
                place.forget();
            }
        };
        // All that were under way together count once.
        for _ in 0..most {
            end(start, SLOW);
        }
        assert_eq!(free(&pace), most / 2);
        for _ in 0..most {
            assert!(pace.settle(start, Duration::ZERO));
        }
        assert_eq!(free(&pace), most, "as many as there were, no more");
    }

    #[test]
    fn some_always_remain() {
        let pace = Pace::default();
        let mut began = Instant::now();
        for _ in 0..100 {
            began += SLOW;
            let place = pace.places.try_acquire().expect("one is free");
            if !pace.settle(began, SLOW) {
                place.forget();
            }
        }
        assert_eq!(pace.state.lock().expect("is whole").limit, limits::TRANSACTIONS_LEAST);
    }
}

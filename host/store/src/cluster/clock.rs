//! The time that decides leases and due times: the MongoDB primary's, as this node knows it.
//!
//! **Problem.** Nodes' wall clocks disagree and jump; a lease judged by two clocks ends too early or too late.
//! **Promise.** Every node judges by one clock, known to within half a round trip. **Cost.** One `hello` every
//! few seconds. **Rejected.** `$$NOW` in every update: exact, but the rules need the time before they write, so
//! they would have to be written a second time in aggregation language. An error of some milliseconds cannot
//! break anything: the fence, not the clock, keeps two runs apart.

use super::options::TimeSource;
use formwork_tasks::Millis;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The store's time.
pub(super) struct Clock {
    source: TimeSource,
    started: Instant,
    /// The server's time at `started`, in milliseconds.
    server_start: AtomicI64,
}

impl Clock {
    pub(super) fn new(source: TimeSource) -> Self {
        Self {
            source,
            started: Instant::now(),
            server_start: AtomicI64::new(wall().0),
        }
    }

    /// Learns the server's time from an answer to a question sent at `asked`: the server read its clock
    /// about half-way.
    pub(super) fn synchronise(&self, server: Millis, asked: Instant) {
        let half_way = (asked.duration_since(self.started) + self.started.elapsed()) / 2;
        let start = server.0.saturating_sub(millis(half_way));
        self.server_start.store(start, Ordering::Relaxed);
    }

    /// The time that counts now; `caller` is what the caller's clock says.
    pub(super) fn now(&self, caller: Millis) -> Millis {
        match self.source {
            TimeSource::Caller => caller,
            TimeSource::Server => self.server(),
        }
    }

    /// The time that counts now, for what the store does by itself; `None` where only calls have a time.
    pub(super) fn own(&self) -> Option<Millis> {
        (self.source == TimeSource::Server).then(|| self.server())
    }

    /// A point of the caller's time as a point of the store's, when the caller's clock says `caller`.
    pub(super) fn of_caller(&self, point: Millis, caller: Millis) -> Millis {
        let ahead = point.0.saturating_sub(caller.0);
        Millis(self.now(caller).0.saturating_add(ahead))
    }

    /// A point of the store's time as this machine's wall clock will show it, for callers that sleep until then.
    pub(super) fn to_wall(&self, point: Millis) -> Millis {
        match self.source {
            TimeSource::Caller => point,
            TimeSource::Server => Millis(wall().0.saturating_add(point.0.saturating_sub(self.server().0))),
        }
    }

    fn server(&self) -> Millis {
        let start = self.server_start.load(Ordering::Relaxed);
        Millis(start.saturating_add(millis(self.started.elapsed())))
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(millis(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_clock_may_be_wrong_by_a_day() {
        let clock = Clock::new(TimeSource::Server);
        let asked = Instant::now();
        let server = Millis(1_700_000_000_000);
        clock.synchronise(server, asked);
        let callers_now = Millis(server.0 + 86_400_000);
        assert!(clock.now(callers_now).since(server) < 1_000);
        let due = clock.of_caller(callers_now.plus(5_000), callers_now);
        assert!((5_000..6_000).contains(&due.since(server)));
        let shown = clock.to_wall(due);
        assert!((4_000..=5_000).contains(&shown.since(wall())));
    }
}

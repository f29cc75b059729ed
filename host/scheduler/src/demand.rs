//! How many workers a pool could use: the signal for whoever starts and stops them.
//!
//! The age of the oldest waiting task decides, not how many wait: ten thousand tasks of a millisecond are gone in seconds, ten
//! of a minute are not. The rule is the one of Kubernetes' horizontal autoscaler, with the age as its metric:
//! `workers × age ÷ target`, from the workers that what runs takes now; at most twice as many at a time, since new ones need
//! a while to show an effect, and never more than there are tasks for.

use std::time::Duration;

/// The most by which one look asks for more.
const GROWTH_MOST: f64 = 2.0;

/// The load of one pool over all workers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    /// Tasks that wait for a worker.
    pub waiting: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// Tasks that are being run.
    pub running: u64,
    /// Nobody claims: what waits is not to be worked on.
    pub paused: bool,
    /// Tasks one worker runs at once.
    pub permits: u32,
    /// How long a task may wait.
    pub target: Duration,
}

impl Demand {
    /// Workers that the pool could use now; 0 when there is nothing to do.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of workers; what is lost above 2^53 tasks does not matter"
    )]
    pub fn wanted_workers(&self) -> u64 {
        let permits = u64::from(self.permits.max(1));
        let at_work = self.running.div_ceil(permits);
        if self.paused || self.waiting == 0 {
            return at_work;
        }
        let now = at_work.max(1);
        let lateness = self.oldest.as_secs_f64() / self.target.as_secs_f64().max(f64::MIN_POSITIVE);
        if lateness <= 1.0 {
            return now;
        }
        let more = (now as f64 * lateness.min(GROWTH_MOST)).ceil() as u64;
        let useful = self.waiting.saturating_add(self.running).div_ceil(permits);
        more.min(useful).max(now)
    }
}

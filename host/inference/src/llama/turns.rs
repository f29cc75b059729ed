//! Whose step is next.
//!
//! Problem: on few threads one token of one text is evaluated at a time, and a text may take minutes.
//! Promise: callers share the model's time, by the step: a flow (one owner at one priority) gets time in
//! proportion to its priority's weight, and texts of a flow get equal shares. A flow that was idle has
//! no credit from that time. Nobody starves. Cost: a short text next to a long one takes twice as long
//! as alone, not the long one's time. Rejected: several texts in one native step, which gives no more
//! tokens in total on these threads and makes a text depend on its neighbours' (docs/decisions/0013-one-token-at-a-time.md);
//! strict priority, under which low ones may never end and keep their memory.

use std::collections::HashMap;
use std::time::Duration;

use crate::call::{CallContext, Priority};
use crate::limits;

/// Time used, divided by weight; microseconds.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    used: HashMap<Flow, f64>,
    /// Where flows begin that have not been seen or were idle.
    floor: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Flow {
    owner: String,
    priority: Priority,
}

impl Flow {
    fn of(call: &CallContext) -> Self {
        Self {
            owner: call.owner.clone(),
            priority: call.priority,
        }
    }
}

impl Turns {
    /// How long ago, in fairness, this caller had a turn: the smallest is next.
    pub(crate) fn due(&self, call: &CallContext) -> f64 {
        self.used
            .get(&Flow::of(call))
            .map_or(self.floor, |used| used.max(self.floor))
    }

    /// Charges a caller for a step.
    pub(crate) fn took(&mut self, call: &CallContext, time: Duration) {
        // It was the one with the smallest due: those that come later begin where it stood.
        let due = self.due(call);
        self.floor = self.floor.max(due);
        let weight = match call.priority {
            Priority::High => limits::HIGH_PRIORITY_WEIGHT,
            Priority::Normal => limits::NORMAL_PRIORITY_WEIGHT,
            Priority::Low => 1.0,
        };
        let floor = self.floor;
        if self.used.len() >= limits::MAX_FLOWS {
            self.used.retain(|_, used| *used > floor);
        }
        self.used
            .insert(Flow::of(call), due + time.as_secs_f64() * 1e6 / weight);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Turns;
    use crate::call::{CallContext, Priority};

    fn call(owner: &str, priority: Priority) -> CallContext {
        CallContext {
            owner: owner.to_owned(),
            priority,
            ..CallContext::default()
        }
    }

    /// Runs so many steps among the calls; answers how many each got.
    fn shares(turns: &mut Turns, calls: &[CallContext], steps: usize) -> Vec<usize> {
        let mut got = vec![0; calls.len()];
        for _ in 0..steps {
            let next = (0..calls.len())
                .min_by(|a, b| turns.due(&calls[*a]).total_cmp(&turns.due(&calls[*b])))
                .unwrap();
            turns.took(&calls[next], Duration::from_millis(7));
            got[next] += 1;
        }
        got
    }

    #[test]
    fn owners_of_one_priority_get_equal_shares() {
        let calls = [call("a", Priority::Normal), call("b", Priority::Normal)];
        assert_eq!(shares(&mut Turns::default(), &calls, 100), [50, 50]);
    }

    #[test]
    fn a_high_priority_gets_most_and_a_low_one_still_something() {
        let calls = [call("a", Priority::Low), call("b", Priority::High)];
        let got = shares(&mut Turns::default(), &calls, 170);
        assert!((9..=11).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn who_was_idle_does_not_take_everything_afterwards() {
        let mut turns = Turns::default();
        let calls = [call("a", Priority::Normal), call("b", Priority::Normal)];
        shares(&mut turns, &calls[..1], 1_000);
        assert_eq!(shares(&mut turns, &calls, 100), [50, 50]);
    }
}

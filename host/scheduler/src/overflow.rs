//! What pools may use beyond their limits while the machine has CPU to spare.
//!
//! **Promise.** A pool with `burst` always has its own limit. What is left of the machine after everything else (other
//! programs, and pools that do not burst) and after the limits of the pools that want more is shared among these by
//! weight; what one of them does not take goes to the others. While work of this process stands in line for a thread,
//! nothing is left. **Cost.** Up to a look (`limits::OVERFLOW_LOOK`) passes before a pool gives CPU back; until then only
//! niceness ranks it behind the others. **Rejected.** Spending without counting while the load average is low: it lags by
//! minutes.

/// What one pool did since the last look, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// Its limit in CPUs; nothing: it is not limited and only its use counts.
    pub(crate) limit: Option<f64>,
    pub(crate) burst: bool,
    pub(crate) weight: u32,
    /// CPUs it used.
    pub(crate) used: f64,
    /// Its rate during that time.
    pub(crate) rate: Option<f64>,
}

impl Load {
    fn bursts(&self) -> Option<f64> {
        self.limit.filter(|_| self.burst)
    }

    /// Whether it would use more than its limit if it could.
    fn wants_more(&self) -> bool {
        self.bursts().is_some_and(|limit| self.used >= limit * NEARLY)
    }

    /// The most it is expected to take.
    fn appetite(&self) -> f64 {
        match self.rate {
            Some(rate) if self.used < rate * NEARLY => self.used / NEARLY,
            _ => f64::INFINITY,
        }
    }
}

/// A pool that uses this share of what it may is held back by it.
const NEARLY: f64 = 0.9;

/// The rate of every pool until the next look. `cpus` is what the process may use, `others` what other programs use of
/// it, `in_line` whether work stands in line for a thread of a pool that has credit.
pub(crate) fn rates(loads: &[Load], cpus: f64, others: f64, in_line: bool) -> Vec<Option<f64>> {
    let mut rates: Vec<Option<f64>> = loads.iter().map(|load| load.limit).collect();
    if in_line {
        return rates;
    }
    let wanting: Vec<usize> = (0..loads.len()).filter(|index| loads[*index].wants_more()).collect();
    let taken: f64 = loads
        .iter()
        .filter(|load| !load.wants_more())
        .map(|load| load.used)
        .sum();
    let limits: f64 = wanting.iter().filter_map(|index| loads[*index].limit).sum();
    let mut left = (cpus - others - taken - limits).max(0.0);
    // Those that are satisfied first leave their rest to the others: at most one round for each.
    let mut open = wanting;
    while left > 0.0 && !open.is_empty() {
        let weights: f64 = open.iter().map(|index| f64::from(loads[*index].weight)).sum();
        let round: Vec<(usize, f64, f64)> = open
            .iter()
            .map(|index| {
                let missing = loads[*index].appetite() - rates[*index].unwrap_or(0.0);
                (
                    *index,
                    missing.max(0.0),
                    left * f64::from(loads[*index].weight) / weights,
                )
            })
            .collect();
        let nobody_is_satisfied = round.iter().all(|(_, missing, share)| missing > share);
        open.clear();
        for (index, missing, share) in round {
            if missing > share && !nobody_is_satisfied {
                open.push(index);
                continue;
            }
            let more = missing.min(share);
            rates[index] = rates[index].map(|rate| rate + more);
            left -= more;
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(limit: Option<f64>, burst: bool, weight: u32, used: f64) -> Load {
        Load {
            limit,
            burst,
            weight,
            used,
            rate: limit,
        }
    }

    #[test]
    fn a_pool_without_burst_keeps_to_its_limit_on_an_idle_machine() {
        let loads = [pool(Some(0.5), false, 1, 0.5)];
        assert_eq!(rates(&loads, 4.0, 0.0, false), [Some(0.5)]);
    }

    #[test]
    fn spare_cpu_goes_by_weight_to_those_that_want_it() {
        let loads = [
            pool(None, false, 8, 1.0),
            pool(Some(0.5), true, 3, 0.5),
            pool(Some(0.5), true, 1, 0.5),
        ];
        // 4 CPUs, 0.5 of others, 1 of the first, 2 times 0.5 guaranteed: 1.5 to spare.
        let shared = rates(&loads, 4.0, 0.5, false);
        assert_eq!(shared, [None, Some(0.5 + 1.125), Some(0.5 + 0.375)]);
    }

    #[test]
    fn a_pool_that_wants_no_more_leaves_its_share_to_the_others() {
        let mut modest = pool(Some(0.5), true, 3, 0.6);
        modest.rate = Some(1.6);
        let loads = [modest, pool(Some(0.5), true, 1, 0.5)];
        let shared = rates(&loads, 4.0, 0.0, false);
        let [Some(modest), Some(hungry)] = shared[..] else {
            panic!("two rates: {shared:?}");
        };
        assert!((modest - 0.6 / NEARLY).abs() < 1e-9, "{modest}");
        assert!((hungry + modest - 4.0).abs() < 1e-9, "{hungry}");
    }

    #[test]
    fn nothing_is_left_while_others_use_the_machine_or_work_stands_in_line() {
        let loads = [pool(Some(0.5), true, 1, 0.5)];
        assert_eq!(rates(&loads, 2.0, 2.0, false), [Some(0.5)]);
        assert_eq!(rates(&loads, 2.0, 0.0, true), [Some(0.5)]);
    }
}

//! What the CPUs of the machine did, as the system tells it in `/proc/stat`.

use std::fs;

/// Ticks of all CPUs together since the system started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTicks {
    all: u64,
    idle: u64,
    stolen: u64,
    cpus: u32,
}

impl CpuTicks {
    /// The ticks as they are now; nothing where the system does not tell.
    pub fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // One line for all CPUs together, then one for each.
        let mut lines = stat.lines().take_while(|line| line.starts_with("cpu"));
        let fields = lines.next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        // Guest time, which follows, is part of user time.
        let &[user, nice, system, idle, iowait, irq, softirq, stolen, ..] = &ticks[..] else {
            return None;
        };
        let idle = idle + iowait;
        Some(Self {
            all: user + nice + system + idle + irq + softirq + stolen,
            idle,
            stolen,
            cpus: u32::try_from(lines.count()).ok()?,
        })
    }

    /// CPUs that were not idle since `before`, stolen ones among them; nothing within one tick.
    pub(crate) fn busy_cpus_since(&self, before: &Self) -> Option<f64> {
        let idle = self.share_since(before, |ticks| ticks.idle)?;
        Some((1.0 - idle) * f64::from(self.cpus))
    }

    /// The share of the CPU time that a hypervisor gave to others since `before`, 0 to 1; nothing within one tick.
    pub fn stolen_since(&self, before: &Self) -> Option<f64> {
        self.share_since(before, |ticks| ticks.stolen)
    }

    #[expect(clippy::cast_precision_loss, reason = "ticks of minutes are far below 2^52")]
    fn share_since(&self, before: &Self, part: impl Fn(&Self) -> u64) -> Option<f64> {
        let all = self.all.saturating_sub(before.all);
        (all > 0).then(|| part(self).saturating_sub(part(before)) as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_guests_is_counted_once_and_stolen_time_is_busy() {
        let before = CpuTicks::parse("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0\ncpu1 0\nintr 1\ncpu 9\n").unwrap();
        let now = CpuTicks::parse("cpu  100 20 30 400 50 6 7 8 9 10\ncpu0 0\ncpu1 0\nintr 1\n").unwrap();
        assert_eq!(now.cpus, 2);
        let busy = now.busy_cpus_since(&before).unwrap();
        assert!((busy - 171.0 / 621.0 * 2.0).abs() < 1e-9, "{busy}");
        let stolen = now.stolen_since(&before).unwrap();
        assert!((stolen - 8.0 / 621.0).abs() < 1e-9, "{stolen}");
        assert_eq!(now.stolen_since(&now), None);
        assert_eq!(CpuTicks::parse("intr 1"), None);
        assert_eq!(CpuTicks::parse("cpu  1 2 3\ncpu0 1\n"), None);
    }
}

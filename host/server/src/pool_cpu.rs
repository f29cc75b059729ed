//! A pool's CPU account as engine and inference ask for it: they know of no pools, the scheduler knows of no guests.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use formwork_engine::CpuBudget;
use formwork_scheduler::Budget;

#[derive(Debug)]
struct PoolCpu(Budget);

/// The account for the context of a call.
#[must_use]
pub fn of(budget: Budget) -> Arc<dyn CpuBudget> {
    Arc::new(PoolCpu(budget))
}

impl CpuBudget for PoolCpu {
    fn charge(&self, used: Duration) {
        self.0.charge(used);
    }

    fn overdrawn(&self) -> Option<Duration> {
        self.0.overdrawn()
    }

    fn park(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let budget = self.0.clone();
        Box::pin(async move { budget.park().await })
    }

    fn stood_still(&self, time: Duration) {
        self.0.stood_still(time);
    }
}

//! The rule behind the autoscaling signal.

use formwork_scheduler::Demand;
use std::time::Duration;

const IDLE: Demand = Demand {
    waiting: 0,
    oldest: Duration::ZERO,
    running: 0,
    paused: false,
    permits: 16,
    target: Duration::from_secs(60),
};

fn wanted(demand: Demand) -> u64 {
    demand.wanted_workers()
}

#[test]
fn the_age_of_what_waits_decides_and_not_how_much() {
    assert_eq!(wanted(IDLE), 0);
    let many = Demand {
        waiting: 1_000_000,
        oldest: Duration::from_secs(30),
        running: 32,
        ..IDLE
    };
    assert_eq!(wanted(many), 2, "a million that are in time need nobody besides");
    let seconds = |seconds| Demand {
        oldest: Duration::from_secs(seconds),
        ..many
    };
    assert_eq!(wanted(seconds(61)), 3);
    assert_eq!(wanted(seconds(90)), 3);
    assert_eq!(wanted(seconds(120)), 4);
    assert_eq!(wanted(seconds(86_400)), 4, "twice as many at a time");
}

#[test]
fn a_worker_without_a_task_is_not_asked_for() {
    let late = Demand {
        oldest: Duration::from_secs(3_600),
        ..IDLE
    };
    assert_eq!(wanted(Demand { waiting: 1, ..late }), 1, "the first one");
    let few = Demand {
        waiting: 2,
        running: 30,
        ..late
    };
    assert_eq!(wanted(few), 2, "two more tasks fit into two workers");
    let ending = Demand {
        waiting: 0,
        running: 17,
        ..late
    };
    assert_eq!(wanted(ending), 2, "what runs keeps its workers");
}

#[test]
fn what_waits_in_a_paused_pool_asks_for_nobody() {
    let paused = Demand {
        waiting: 1_000,
        oldest: Duration::from_secs(3_600),
        paused: true,
        ..IDLE
    };
    assert_eq!(wanted(paused), 0);
    assert_eq!(wanted(Demand { running: 1, ..paused }), 1);
}

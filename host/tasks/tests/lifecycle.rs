//! The task state machine under random histories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_tasks::{
    Change, Command, DeadReason, Disposition, EDGES, Lifecycle, Millis, Refusal, RunLease, State, Verdict,
};
use proptest::prelude::*;

const START: Millis = Millis(1_000);

/// A command as the world may send it: leases from the whole history, times in any order.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Claim(u64),
    Heartbeat(u64, u64),
    Complete(u64, Verdict),
    Fail(u64, Disposition),
    Release(u64),
    Expire(u32),
    Promote,
    Cancel,
    Stop,
    Retry,
}

impl Sent {
    /// Leases are sent as how far they are behind the current one, so that most of them are near it.
    fn command(self, current: RunLease, now: Millis) -> Command {
        let lease = |behind: u64| RunLease(current.0.saturating_sub(behind));
        match self {
            Self::Claim(ms) => Command::Claim { until: now.plus(ms) },
            Self::Heartbeat(behind, ms) => Command::Heartbeat {
                lease: lease(behind),
                until: now.plus(ms),
            },
            Self::Complete(behind, verdict) => Command::Complete {
                lease: lease(behind),
                verdict,
            },
            Self::Fail(behind, disposition) => Command::Fail {
                lease: lease(behind),
                disposition,
            },
            Self::Release(behind) => Command::Release { lease: lease(behind) },
            Self::Expire(max_crashes) => Command::Expire { max_crashes },
            Self::Promote => Command::Promote,
            Self::Cancel => Command::Cancel,
            Self::Stop => Command::Stop,
            Self::Retry => Command::Retry,
        }
    }
}

fn disposition() -> impl Strategy<Value = Disposition> {
    prop_oneof![
        (0_i64..5_000).prop_map(|at| Disposition::RetryAt(Millis(at))),
        Just(Disposition::Dead(DeadReason::Failed)),
        Just(Disposition::Dead(DeadReason::Exhausted)),
        Just(Disposition::Cancelled),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let behind = prop_oneof![4 => Just(0_u64), 1 => 1_u64..4];
    prop_oneof![
        6 => (0_u64..500).prop_map(Sent::Claim),
        2 => (behind.clone(), 0_u64..500).prop_map(|(behind, ms)| Sent::Heartbeat(behind, ms)),
        2 => (behind.clone(), prop_oneof![Just(Verdict::Accepted), Just(Verdict::Rejected)])
            .prop_map(|(behind, verdict)| Sent::Complete(behind, verdict)),
        3 => (behind.clone(), disposition()).prop_map(|(behind, what)| Sent::Fail(behind, what)),
        2 => behind.prop_map(Sent::Release),
        3 => (1_u32..5).prop_map(Sent::Expire),
        3 => Just(Sent::Promote),
        1 => Just(Sent::Cancel),
        1 => Just(Sent::Stop),
        1 => Just(Sent::Retry),
    ]
}

fn history() -> impl Strategy<Value = Vec<(Sent, Millis)>> {
    prop::collection::vec((sent(), (0_i64..5_000).prop_map(Millis)), 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_move_is_a_legal_edge_and_keeps_the_invariants(history in history()) {
        let mut task = Lifecycle::new(START);
        for (sent, now) in history {
            let before = task;
            let answer = task.apply(sent.command(before.run_lease, now), now);
            prop_assert_eq!(task.broken_invariant(&before), None);
            match answer {
                Err(_) => prop_assert_eq!(task, before, "a refusal changes nothing"),
                Ok(Change::Kept) => prop_assert_eq!(task.state, before.state),
                Ok(Change::Moved(moved)) => {
                    prop_assert_eq!((moved.from, moved.to), (before.state, task.state));
                    let legal = EDGES.iter().any(|edge| {
                        (edge.from, edge.to, edge.actor) == (moved.from, moved.to, moved.actor)
                    });
                    prop_assert!(legal, "{:?}", moved);
                }
            }
        }
    }

    #[test]
    fn a_stale_lease_never_records_anything(history in history(), behind in 1_u64..4) {
        let mut task = Lifecycle::new(START);
        for (sent, now) in history {
            let _ = task.apply(sent.command(task.run_lease, now), now);
            let Some(old) = task.run_lease.0.checked_sub(behind) else { continue };
            let lease = RunLease(old);
            for command in [
                Command::Complete { lease, verdict: Verdict::Accepted },
                Command::Fail { lease, disposition: Disposition::RetryAt(now) },
                Command::Release { lease },
                Command::Heartbeat { lease, until: now.plus(60_000) },
            ] {
                let mut copy = task;
                prop_assert_eq!(copy.apply(command, now), Err(Refusal::Stale));
                prop_assert_eq!(copy, task);
            }
        }
    }

    #[test]
    fn terminal_states_are_left_only_by_an_operators_retry(history in history()) {
        let mut task = Lifecycle::new(START);
        for (sent, now) in history {
            let before = task;
            let _ = task.apply(sent.command(before.run_lease, now), now);
            if before.state.is_terminal() && task.state != before.state {
                prop_assert!(matches!(sent, Sent::Retry), "{sent:?} left {}", before.state);
                prop_assert_ne!(before.state, State::Completed);
                prop_assert_eq!((task.attempt, task.errors, task.crashes), (0, 0, 0));
            }
        }
    }

    #[test]
    fn a_task_whose_workers_vanish_dies_after_exactly_that_many(max_crashes in 1_u32..20) {
        let mut task = Lifecycle::new(START);
        let mut now = START;
        let mut crashes = 0;
        while task.state != State::Dead {
            task.apply(Command::Claim { until: now.plus(10) }, now).expect("is available");
            let early = task.apply(Command::Expire { max_crashes }, now);
            prop_assert_eq!(early, Err(Refusal::NotDue(now.plus(10))));
            now = now.plus(10);
            task.apply(Command::Expire { max_crashes }, now).expect("has ended");
            crashes += 1;
        }
        prop_assert_eq!((crashes, task.crashes, task.errors), (max_crashes, max_crashes, 0));
        prop_assert_eq!(task.dead_reason, Some(DeadReason::Crashed));
    }
}

/// Every state a task can reach in a few commands, each with every command: small enough to see all of them.
#[test]
fn every_edge_is_reachable_and_no_other_exists() {
    let now = Millis(100);
    let mut seen = std::collections::HashSet::new();
    let mut edges = std::collections::HashSet::new();
    let mut open = vec![(Lifecycle::new(now), 0)];
    while let Some((task, depth)) = open.pop() {
        let lease = task.run_lease;
        let commands = [
            Command::Claim { until: now },
            Command::Complete {
                lease,
                verdict: Verdict::Accepted,
            },
            Command::Complete {
                lease,
                verdict: Verdict::Rejected,
            },
            Command::Fail {
                lease,
                disposition: Disposition::RetryAt(now),
            },
            Command::Fail {
                lease,
                disposition: Disposition::Dead(DeadReason::Failed),
            },
            Command::Fail {
                lease,
                disposition: Disposition::Cancelled,
            },
            Command::Release { lease },
            Command::Expire { max_crashes: 2 },
            Command::Promote,
            Command::Cancel,
            Command::Stop,
            Command::Retry,
        ];
        for command in commands {
            let mut next = task;
            if let Ok(Change::Moved(moved)) = next.apply(command, now) {
                edges.insert((moved.from, moved.to, moved.actor));
            }
            if depth < 7 && seen.insert(format!("{next:?}")) {
                open.push((next, depth + 1));
            }
        }
    }
    let listed: std::collections::HashSet<_> = EDGES.iter().map(|edge| (edge.from, edge.to, edge.actor)).collect();
    assert_eq!(edges, listed);
    assert_eq!(listed.len(), EDGES.len(), "no edge is listed twice");
}

#[test]
fn a_cancel_request_outweighs_a_retry_but_not_a_result() {
    let mut running = Lifecycle::new(START);
    running
        .apply(Command::Claim { until: START.plus(10) }, START)
        .expect("is available");
    assert_eq!(running.apply(Command::Cancel, START), Ok(Change::Kept));
    let lease = running.run_lease;

    let mut failed = running;
    let disposition = Disposition::RetryAt(START);
    failed
        .apply(Command::Fail { lease, disposition }, START)
        .expect("is current");
    assert_eq!(failed.state, State::Cancelled);
    let mut released = running;
    released.apply(Command::Release { lease }, START).expect("is current");
    assert_eq!(released.state, State::Cancelled);
    let mut completed = running;
    let verdict = Verdict::Accepted;
    completed
        .apply(Command::Complete { lease, verdict }, START)
        .expect("is current");
    assert_eq!(completed.state, State::Completed);
}

#[test]
fn a_heartbeat_never_shortens_a_lease() {
    let mut task = Lifecycle::new(START);
    task.apply(Command::Claim { until: START.plus(100) }, START)
        .expect("is available");
    let lease = task.run_lease;
    task.apply(
        Command::Heartbeat {
            lease,
            until: START.plus(50),
        },
        START,
    )
    .expect("is current");
    assert_eq!(task.lease_until, Some(START.plus(100)));
}

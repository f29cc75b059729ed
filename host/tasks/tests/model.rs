//! Every history of a small world: two workers, a pipeline of two steps, leases that end, workers that vanish, answers that
//! are lost, reports that come late or twice, an operator who cancels and retries.
//!
//! The world is explored breadth first over the real [`Lifecycle`] and [`Plan`]. Beside them the model keeps a ghost:
//! who really has a task. What must hold in every reachable state is in [`World::step`] and [`World::check`]; the
//! invariants of the product itself ([`Lifecycle::broken_invariant`]) are checked at every step too.
//!
//! The controls at the end run the same exploration over broken rules. Each must find a counterexample, or the model could
//! not find the fault in the real rules either.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_tasks::{
    Change, Command, DeadReason, Disposition, Lifecycle, Millis, Plan, Progress, Refusal, RunLease, State, Step,
    Verdict,
};
use std::collections::HashMap;

const WORKERS: usize = 2;
const TASKS: usize = 2;
/// Claims a task gets in one history.
const CLAIMS: usize = 2;
/// The last moment; a lease and the wait for a retry take one.
const END: i64 = 2;
const MAX_CRASHES: u32 = 2;

/// How the world asks a task to move; the second number is the attempt a worker claimed.
type Apply = fn(&mut Lifecycle, Command, u32, Millis) -> Result<Change, Refusal>;

/// A worker's belief that it has a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Belief {
    worker: usize,
    task: usize,
    claim: usize,
}

impl Belief {
    fn bit(self) -> u16 {
        1 << ((self.worker * TASKS + self.task) * CLAIMS + self.claim)
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..WORKERS).flat_map(|worker| {
            (0..TASKS).flat_map(move |task| (0..CLAIMS).map(move |claim| Self { worker, task, claim }))
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Word {
    Beat,
    Complete(Verdict),
    Fail(Disposition),
    Release,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Claim {
        worker: usize,
        task: usize,
    },
    /// A worker speaks; it forgets the task unless the answer was lost.
    Say {
        by: Belief,
        word: Word,
        answer_lost: bool,
    },
    Vanish {
        worker: usize,
    },
    Tick,
    Reap(usize),
    Promote(usize),
    Cancel(usize),
    Retry(usize),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    now: i64,
    tasks: [Option<Lifecycle>; TASKS],
    beliefs: u16,
    claims: [u8; TASKS],
    /// The lease and the attempt each claim was given.
    given: [[(u8, u8); CLAIMS]; TASKS],
    /// The ghost: which worker's which claim really has the task.
    holder: [Option<(u8, u8)>; TASKS],
    /// Results recorded.
    effects: [u8; TASKS],
    cancels_left: u8,
    retries_left: u8,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let mut world = Self {
            now: 0,
            tasks: [None; TASKS],
            beliefs: 0,
            claims: [0; TASKS],
            given: [[(0, 0); CLAIMS]; TASKS],
            holder: [None; TASKS],
            effects: [0; TASKS],
            cancels_left: 1,
            retries_left: 1,
        };
        world
            .settle(plan, |task, command, _, now| task.apply(command, now))
            .unwrap();
        world
    }

    /// The same world with the workers in the order in which they look first: which is which makes no difference.
    fn canonical(self) -> Self {
        const OF_ONE: u16 = (1 << (TASKS * CLAIMS)) - 1;
        let beliefs = (self.beliefs & OF_ONE) << (TASKS * CLAIMS) | self.beliefs >> (TASKS * CLAIMS);
        let holder = self
            .holder
            .map(|holder| holder.map(|(worker, claim)| (1 - worker, claim)));
        if (beliefs, holder) < (self.beliefs, self.holder) {
            Self {
                beliefs,
                holder,
                ..self
            }
        } else {
            self
        }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.now < END {
            actions.push(Action::Tick);
        }
        for task in 0..TASKS {
            if usize::from(self.claims[task]) < CLAIMS {
                actions.extend((0..WORKERS).map(|worker| Action::Claim { worker, task }));
            }
            actions.extend([Action::Reap(task), Action::Promote(task)]);
            if self.cancels_left > 0 {
                actions.push(Action::Cancel(task));
            }
            if self.retries_left > 0 {
                actions.push(Action::Retry(task));
            }
        }
        for worker in 0..WORKERS {
            let has = |belief: &Belief| belief.worker == worker && self.beliefs & belief.bit() != 0;
            if Belief::all().any(|belief| has(&belief)) {
                actions.push(Action::Vanish { worker });
            }
            for by in Belief::all().filter(has) {
                let later = Disposition::RetryAt(Millis(self.now + 1));
                let words = [
                    Word::Complete(Verdict::Accepted),
                    Word::Complete(Verdict::Rejected),
                    Word::Fail(later),
                    Word::Fail(Disposition::Dead(DeadReason::Failed)),
                    Word::Release,
                ];
                actions.push(Action::Say {
                    by,
                    word: Word::Beat,
                    answer_lost: true,
                });
                for word in words {
                    for answer_lost in [false, true] {
                        actions.push(Action::Say { by, word, answer_lost });
                    }
                }
            }
        }
        actions
    }

    /// The world after an action, `None` if it is refused and nothing has changed; an error names what must not happen.
    fn step(&self, plan: &Plan, action: Action, apply: Apply) -> Result<Option<Self>, String> {
        let mut next = self.clone();
        let now = Millis(self.now);
        let moved = match action {
            Action::Tick => {
                next.now += 1;
                return Ok(Some(next));
            }
            Action::Vanish { worker } => {
                for belief in Belief::all().filter(|belief| belief.worker == worker) {
                    next.beliefs &= !belief.bit();
                }
                return Ok(Some(next));
            }
            Action::Claim { worker, task } => {
                let until = now.plus(1);
                let Some(life) = next.apply(task, Command::Claim { until }, 0, apply)? else {
                    return Ok(None);
                };
                let claim = usize::from(next.claims[task]);
                if next.given[task][..claim]
                    .iter()
                    .any(|(lease, _)| u64::from(*lease) == life.run_lease.0)
                {
                    return Err("one lease was given out twice".into());
                }
                if next.holder[task].is_some() {
                    return Err("two workers have one task".into());
                }
                next.claims[task] += 1;
                next.given[task][claim] = (life.run_lease.0 as u8, life.attempt as u8);
                next.holder[task] = Some((worker as u8, claim as u8));
                next.beliefs |= Belief { worker, task, claim }.bit();
                next.check(plan)?;
                return Ok(Some(next));
            }
            Action::Say { by, word, answer_lost } => {
                let (lease, attempt) = self.given[by.task][by.claim];
                let lease = RunLease(lease.into());
                let command = match word {
                    Word::Beat => Command::Heartbeat {
                        lease,
                        until: now.plus(1),
                    },
                    Word::Complete(verdict) => Command::Complete { lease, verdict },
                    Word::Fail(disposition) => Command::Fail { lease, disposition },
                    Word::Release => Command::Release { lease },
                };
                let accepted = next.apply(by.task, command, attempt.into(), apply)?.is_some();
                let holds = self.holder[by.task] == Some((by.worker as u8, by.claim as u8));
                if accepted != holds {
                    let (has, heard) = (
                        if holds { "has" } else { "lost" },
                        if accepted { "accepted" } else { "refused" },
                    );
                    return Err(format!("a worker that {has} the task was {heard}"));
                }
                if accepted && !matches!(word, Word::Beat) {
                    next.holder[by.task] = None;
                    if matches!(word, Word::Complete(_)) {
                        next.effects[by.task] += 1;
                    }
                }
                if !answer_lost {
                    next.beliefs &= !by.bit();
                }
                accepted || !answer_lost
            }
            Action::Reap(task) => {
                let reaped = next
                    .apply(
                        task,
                        Command::Expire {
                            max_crashes: MAX_CRASHES,
                        },
                        0,
                        apply,
                    )?
                    .is_some();
                if reaped {
                    if self.tasks[task].and_then(|life| life.lease_until) > Some(now) {
                        return Err("a lease was ended before its time".into());
                    }
                    next.holder[task] = None;
                }
                reaped
            }
            Action::Promote(task) => next.apply(task, Command::Promote, 0, apply)?.is_some(),
            Action::Cancel(task) => {
                next.cancels_left -= 1;
                next.apply(task, Command::Cancel, 0, apply)?.is_some()
            }
            Action::Retry(task) => {
                next.retries_left -= 1;
                next.apply(task, Command::Retry, 0, apply)?.is_some()
            }
        };
        if !moved {
            return Ok(None);
        }
        next.settle(plan, apply)?;
        next.check(plan)?;
        Ok(Some(next))
    }

    /// One command to one task; the task afterwards, unless it refused.
    fn apply(
        &mut self,
        task: usize,
        command: Command,
        attempt: u32,
        apply: Apply,
    ) -> Result<Option<Lifecycle>, String> {
        let Some(life) = &mut self.tasks[task] else {
            return Ok(None);
        };
        let before = *life;
        match apply(life, command, attempt, Millis(self.now)) {
            Ok(_) => {}
            Err(_) if *life == before => return Ok(None),
            Err(refusal) => return Err(format!("refused ({refusal}) and changed all the same")),
        }
        match life.broken_invariant(&before) {
            Some(broken) => Err(format!("broken: {broken}")),
            None => Ok(Some(*life)),
        }
    }

    fn progress(&self) -> [Option<Progress>; TASKS] {
        self.tasks.map(|life| {
            life.map(|life| Progress {
                state: life.state,
                verdict: life.verdict,
            })
        })
    }

    /// What a store does after every change, in the same transaction.
    fn settle(&mut self, plan: &Plan, apply: Apply) -> Result<(), String> {
        let assessment = plan.assess(&self.progress());
        for task in assessment.ready {
            self.tasks[task] = Some(Lifecycle::new(Millis(self.now)));
        }
        for task in assessment.stop {
            if self.apply(task, Command::Stop, 0, apply)?.is_none() {
                return Err("a task that shall stop refuses".into());
            }
        }
        Ok(())
    }

    fn check(&self, plan: &Plan) -> Result<(), String> {
        for (task, life) in self.tasks.iter().enumerate() {
            let Some(life) = life else { continue };
            if self.effects[task] > 1 {
                return Err("a result was recorded twice".into());
            }
            if (life.state == State::Completed) != (self.effects[task] == 1) {
                return Err("a task is completed and has no result, or the other way round".into());
            }
            if (life.state == State::Running) != self.holder[task].is_some() {
                return Err("a running task has nobody, or somebody has a task that does not run".into());
            }
            // Nothing is stuck: whatever workers and operators do, time alone brings it to a worker or to an end.
            let mut later = *life;
            let comes = Millis(i64::MAX / 2);
            let goes_on = match life.state {
                State::Available => later.apply(Command::Claim { until: comes }, comes).is_ok(),
                State::Running => later
                    .apply(
                        Command::Expire {
                            max_crashes: MAX_CRASHES,
                        },
                        comes,
                    )
                    .is_ok(),
                State::Retryable => later.apply(Command::Promote, comes).is_ok(),
                State::Completed | State::Cancelled | State::Dead => true,
            };
            if !goes_on {
                return Err(format!("a task is stuck while {}", life.state));
            }
        }
        let assessment = plan.assess(&self.progress());
        if !assessment.ready.is_empty() || !assessment.stop.is_empty() {
            return Err("a step that may run has no task, or one that never will still waits".into());
        }
        let active = self.tasks.iter().flatten().any(|life| !life.state.is_terminal());
        if assessment.status.is_settled() == active {
            return Err(format!(
                "the submission is {} and a task is active: {active}",
                assessment.status
            ));
        }
        Ok(())
    }
}

/// Explores everything; how many worlds there are, or the shortest way into one that must not be.
fn explore(plan: &Plan, apply: Apply) -> Result<usize, String> {
    let start = World::new(plan);
    // Each world with the number of the one before it and what led to it.
    let mut index: HashMap<World, usize> = HashMap::from([(start.clone(), 0)]);
    let mut reached: Vec<(World, usize, Option<Action>)> = vec![(start, 0, None)];
    let mut at = 0;
    while at < reached.len() {
        let world = reached[at].0.clone();
        for action in world.actions() {
            match world.step(plan, action, apply) {
                Ok(None) => {}
                Ok(Some(next)) => {
                    let next = next.canonical();
                    let number = reached.len();
                    if !index.contains_key(&next) {
                        index.insert(next.clone(), number);
                        reached.push((next, at, Some(action)));
                    }
                }
                Err(fault) => {
                    let mut path = vec![format!("{action:?} -> {fault}")];
                    let mut step = at;
                    while let (_, before, Some(action)) = &reached[step] {
                        path.push(format!("{action:?}"));
                        step = *before;
                    }
                    path.reverse();
                    return Err(path.join("\n"));
                }
            }
        }
        at += 1;
    }
    Ok(reached.len())
}

fn in_order() -> Plan {
    Plan::try_new(vec![Step::new("check"), Step::new("archive")]).expect("is a plan")
}

fn side_by_side() -> Plan {
    Plan::try_new(vec![Step::new("left").after([]), Step::new("right").after([])]).expect("is a plan")
}

fn real(task: &mut Lifecycle, command: Command, _: u32, now: Millis) -> Result<Change, Refusal> {
    task.apply(command, now)
}

#[test]
fn nothing_is_lost_or_recorded_twice_in_any_history_of_two_steps_in_order() {
    let worlds = explore(&in_order(), real).unwrap_or_else(|path| panic!("{path}"));
    println!("{worlds} worlds");
    assert!(worlds > 10_000, "the model has become too small: {worlds}");
}

#[test]
fn nothing_is_lost_or_recorded_twice_in_any_history_of_two_steps_side_by_side() {
    let worlds = explore(&side_by_side(), real).unwrap_or_else(|path| panic!("{path}"));
    println!("{worlds} worlds");
    assert!(worlds > 10_000, "the model has become too small: {worlds}");
}

/// The same command as if the worker had shown the current lease.
fn with_current_lease(task: &Lifecycle, command: Command) -> Command {
    let lease = task.run_lease;
    match command {
        Command::Heartbeat { until, .. } => Command::Heartbeat { lease, until },
        Command::Complete { verdict, .. } => Command::Complete { lease, verdict },
        Command::Fail { disposition, .. } => Command::Fail { lease, disposition },
        Command::Release { .. } => Command::Release { lease },
        other => other,
    }
}

#[track_caller]
fn must_fail(plan: &Plan, apply: Apply, fault: &str) {
    match explore(plan, apply) {
        Ok(worlds) => panic!("the model does not notice that {fault}: {worlds} worlds"),
        Err(path) => println!("{path}"),
    }
}

#[test]
fn the_model_notices_a_missing_fence() {
    let broken: Apply = |task, command, _, now| {
        let command = with_current_lease(task, command);
        task.apply(command, now)
    };
    must_fail(&in_order(), broken, "stale workers are heard");
}

#[test]
fn the_model_notices_that_the_attempt_is_no_fence() {
    // A release and an operator's retry make the attempt fall, so an old run looks like the current one.
    let broken: Apply = |task, command, attempt, now| {
        let is_word = matches!(
            command,
            Command::Heartbeat { .. } | Command::Complete { .. } | Command::Fail { .. } | Command::Release { .. }
        );
        if is_word && attempt != task.attempt {
            return Err(Refusal::Stale);
        }
        let command = with_current_lease(task, command);
        task.apply(command, now)
    };
    must_fail(&in_order(), broken, "the attempt stands in for the lease");
}

#[test]
fn the_model_notices_a_lease_that_does_not_rise() {
    let broken: Apply = |task, command, _, now| {
        let lease = task.run_lease;
        let change = task.apply(command, now)?;
        task.run_lease = lease;
        Ok(change)
    };
    must_fail(&in_order(), broken, "two claims have one lease");
}

#[test]
fn the_model_notices_a_reaper_whose_clock_is_ahead() {
    let broken: Apply = |task, command, _, now| match command {
        Command::Expire { .. } => task.apply(command, now.plus(10)),
        other => task.apply(other, now),
    };
    must_fail(&in_order(), broken, "leases end too soon");
}

#[test]
fn the_model_notices_a_completed_task_that_is_run_again() {
    let broken: Apply = |task, command, _, now| {
        if command == Command::Retry && task.state == State::Completed {
            task.state = State::Available;
            task.verdict = None;
            return Ok(Change::Kept);
        }
        task.apply(command, now)
    };
    must_fail(&in_order(), broken, "a completed task starts over");
}

//! Plans: what is refused, and what follows from the states of the tasks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_tasks::{Plan, PlanError, Progress, State, Step, SubmissionStatus, Verdict, pipeline::MAX_STEPS};
use proptest::prelude::*;

fn refused(steps: Vec<Step>) -> (PlanError, String) {
    let error = Plan::try_new(steps).expect_err("is refused");
    let pointer = error.pointer().to_owned();
    (error, pointer)
}

#[test]
fn steps_run_in_order_unless_they_say_otherwise() {
    let steps = vec![
        Step::new("a"),
        Step::new("b"),
        Step::new("c").after(["a"]),
        Step::new("d").after([]),
        Step::new("e"),
    ];
    let plan = Plan::try_new(steps).expect("is a plan");
    let waits: Vec<&[usize]> = (0..5).map(|step| plan.dependencies(step)).collect();
    assert_eq!(waits, [&[][..], &[0], &[0], &[], &[3]]);
    assert_eq!(plan.assess(&[]).ready, [0, 3]);
}

#[test]
fn errors_name_their_place() {
    let (error, pointer) = refused(vec![Step::new("a"), Step::new("b"), Step::new("a")]);
    assert!(matches!(error, PlanError::DuplicateName { first: 0, .. }), "{error}");
    assert_eq!(pointer, "/pipeline/2/name");

    let (error, pointer) = refused(vec![Step::new("a"), Step::new("b").after(["a", "x"])]);
    assert!(matches!(error, PlanError::UnknownStep { .. }), "{error}");
    assert_eq!(pointer, "/pipeline/1/after/1");
    assert_eq!(
        error.to_string(),
        r#"/pipeline/1/after/1: unknown step "x", expected one of: a, b"#
    );

    let (error, pointer) = refused(vec![Step::new("a"), Step::new("b").after(["a", "a"])]);
    assert!(matches!(error, PlanError::DuplicateDependency { .. }), "{error}");
    assert_eq!(pointer, "/pipeline/1/after/1");

    for name in ["", "a b", "ä", &"x".repeat(65)] {
        let (error, pointer) = refused(vec![Step::new(name)]);
        assert!(matches!(error, PlanError::BadName { .. }), "{error}");
        assert_eq!(pointer, "/pipeline/0/name");
    }

    let many = (0..=MAX_STEPS).map(|index| Step::new(format!("s{index}"))).collect();
    assert_eq!(refused(many).1, "/pipeline");
}

#[test]
fn cycles_are_found_wherever_they_close() {
    let (error, pointer) = refused(vec![Step::new("a").after(["a"])]);
    assert!(
        matches!(&error, PlanError::Cycle { path, .. } if path == &["a", "a"]),
        "{error}"
    );
    assert_eq!(pointer, "/pipeline/0/after/0");

    // b follows a by list order, so the cycle closes at a step that has no `after`.
    let (error, pointer) = refused(vec![Step::new("a").after(["b"]), Step::new("b")]);
    assert!(
        matches!(&error, PlanError::Cycle { path, .. } if path == &["a", "b", "a"]),
        "{error}"
    );
    assert_eq!(pointer, "/pipeline/1");

    let steps = vec![
        Step::new("start"),
        Step::new("a").after(["start", "c"]),
        Step::new("b").after(["a"]),
        Step::new("c").after(["b"]),
    ];
    let (error, pointer) = refused(steps);
    assert_eq!(pointer, "/pipeline/2/after/0");
    assert!(error.to_string().ends_with("a -> c -> b -> a"), "{error}");
}

fn progress(state: State) -> Option<Progress> {
    let verdict = (state == State::Completed).then_some(Verdict::Accepted);
    Some(Progress { state, verdict })
}

#[test]
fn a_rejection_outweighs_a_failure() {
    let steps = vec![Step::new("check").after([]), Step::new("other").after([])];
    let plan = Plan::try_new(steps).expect("is a plan");
    let rejected = Some(Progress {
        state: State::Completed,
        verdict: Some(Verdict::Rejected),
    });
    let status = |other| plan.assess(&[rejected, other]).status;
    assert_eq!(status(progress(State::Dead)), SubmissionStatus::Rejected);
    assert_eq!(status(progress(State::Running)), SubmissionStatus::Processing);
    let waiting = plan.assess(&[rejected, progress(State::Retryable)]);
    assert_eq!((waiting.stop, waiting.status), (vec![1], SubmissionStatus::Rejected));
}

#[test]
fn no_steps_are_done() {
    let plan = Plan::try_new(vec![]).expect("is a plan");
    assert_eq!(plan.assess(&[]).status, SubmissionStatus::Done);
}

/// Random pipelines without cycles: each step may wait for any steps before it.
fn plan() -> impl Strategy<Value = Plan> {
    prop::collection::vec((any::<u64>(), any::<bool>(), 0_u8..3), 1..12).prop_map(|shape| {
        let name = |index: usize| format!("step-{index}");
        let steps = shape
            .iter()
            .enumerate()
            .map(|(index, (mask, goes_on, kind))| {
                let mut step = Step::new(name(index));
                if *goes_on {
                    step = step.continue_on_reject();
                }
                if *kind > 0 {
                    let before = (0..index).filter(|bit| mask >> bit & 1 == 1).map(name);
                    step.after = Some(before.collect());
                }
                step
            })
            .collect();
        Plan::try_new(steps).expect("has no cycle")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Plays a pipeline to its end with random outcomes, as a store would.
    #[test]
    fn every_pipeline_ends_and_never_runs_ahead(
        plan in plan(),
        dice in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        let mut tasks: Vec<Option<Progress>> = vec![None; plan.steps().len()];
        let mut dice = dice.into_iter().cycle();
        for _ in 0..200 {
            let assessment = plan.assess(&tasks);
            for &step in &assessment.ready {
                prop_assert!(tasks[step].is_none());
                for &before in plan.dependencies(step) {
                    prop_assert_eq!(tasks[before].map(|task| task.state), Some(State::Completed));
                }
                tasks[step] = progress(State::Available);
            }
            for &step in &assessment.stop {
                tasks[step] = progress(State::Cancelled);
            }
            let again = plan.assess(&tasks);
            prop_assert!(again.ready.is_empty() && again.stop.is_empty(), "one pass is enough");
            prop_assert_eq!(again.status, assessment.status);

            let active: Vec<usize> = (0..tasks.len())
                .filter(|&step| tasks[step].is_some_and(|task| !task.state.is_terminal()))
                .collect();
            prop_assert_eq!(active.is_empty(), assessment.status.is_settled());
            if active.is_empty() {
                break;
            }
            let roll = usize::from(dice.next().unwrap_or(0));
            tasks[active[roll % active.len()]] = match roll % 8 {
                0 => progress(State::Dead),
                1 => progress(State::Cancelled),
                2 => Some(Progress {
                    state: State::Completed,
                    verdict: Some(Verdict::Rejected),
                }),
                3 => progress(State::Running),
                4 => progress(State::Retryable),
                _ => progress(State::Completed),
            };
        }
        let end = plan.assess(&tasks).status;
        let all_completed =
            tasks.iter().all(|task| task.is_some_and(|task| task.state == State::Completed));
        if end == SubmissionStatus::Done {
            prop_assert!(all_completed);
        }
    }
}

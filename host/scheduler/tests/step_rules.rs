//! What a step says about its own retries and time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, also in its helpers"
)]

mod support;

use formwork_scheduler::{RunContext, RunOutcome, StepRules, TaskRunner};
use formwork_store::Claimed;
use formwork_tasks::{DeadReason, ErrorRule, Pool, RetryRules, StepMaxima, TimeLimits};
use std::sync::Arc;
use support::{Bench, done, failed, options, soon};
use tokio::sync::mpsc;

/// A runner whose runs fail with a code that depends on the form, under these rules.
struct Failing(RetryRules);

#[async_trait::async_trait]
impl TaskRunner for Failing {
    async fn run(&self, task: Claimed, _: RunContext) -> RunOutcome {
        match task.form.as_str() {
            "high" => failed("model-busy", true),
            "default" => failed("invalid-output", true),
            _ => failed("crash", false),
        }
    }

    async fn rules(&self, _: &Claimed) -> StepRules {
        StepRules {
            retry: self.0.clone(),
            ..StepRules::default()
        }
    }
}

#[tokio::test]
async fn a_step_is_tried_again_after_one_error_and_not_after_another() {
    let bench = Bench::new().await;
    let rules: RetryRules = serde_json::from_str(
        r#"{ "max_attempts": 2, "errors": {
            "model-busy": { "max_attempts": 6 },
            "invalid-output": { "retry": false },
            "crash": { "retry": true } } }"#,
    )
    .unwrap();
    let mut options = options();
    options.step_maxima = StepMaxima {
        max_attempts: 4,
        ..StepMaxima::default()
    };
    let _scheduler = bench.start(options, Arc::new(Failing(rules)));
    let expected = [
        // Six are asked for, the operator allows four; the pool's own policy would have allowed three.
        (Pool::High, 4, DeadReason::Exhausted),
        (Pool::Default, 1, DeadReason::Failed),
        // It says of itself that trying again does not help; the step knows better.
        (Pool::Batched, 2, DeadReason::Exhausted),
    ];
    for (pool, attempts, reason) in expected {
        let id = bench.submit(pool.as_str()).await;
        let task = bench.settled(id).await.tasks.remove(0).summary;
        assert_eq!((task.attempts, task.dead_reason), (attempts, Some(reason)), "{pool}");
    }
}

#[tokio::test]
async fn rules_also_hold_for_failures_that_the_scheduler_finds() {
    struct Panics;
    #[async_trait::async_trait]
    impl TaskRunner for Panics {
        async fn run(&self, _: Claimed, _: RunContext) -> RunOutcome {
            panic!("on purpose");
        }

        async fn rules(&self, _: &Claimed) -> StepRules {
            let never = ErrorRule {
                retry: Some(false),
                ..ErrorRule::default()
            };
            StepRules {
                retry: RetryRules {
                    errors: [("panic".to_owned(), never)].into(),
                    ..RetryRules::default()
                },
                ..StepRules::default()
            }
        }
    }
    let bench = Bench::new().await;
    let _scheduler = bench.start(options(), Arc::new(Panics));
    let id = bench.submit("default").await;
    let task = bench.settled(id).await.tasks.remove(0).summary;
    assert_eq!((task.attempts, task.dead_reason), (1, Some(DeadReason::Failed)));
}

/// A runner that tells when its soft limit has come, and then answers, or goes on until it is stopped.
struct Slow {
    answers: bool,
    soft_limit_came: mpsc::UnboundedSender<()>,
}

#[async_trait::async_trait]
impl TaskRunner for Slow {
    async fn run(&self, _: Claimed, context: RunContext) -> RunOutcome {
        tokio::time::sleep_until(context.soft_deadline.into()).await;
        self.soft_limit_came.send(()).unwrap();
        if self.answers {
            return done("1");
        }
        context.cancel.cancelled().await;
        RunOutcome::Cancelled
    }

    async fn rules(&self, _: &Claimed) -> StepRules {
        let never = ErrorRule {
            retry: Some(false),
            ..ErrorRule::default()
        };
        StepRules {
            retry: RetryRules {
                errors: [("deadline-exceeded".to_owned(), never)].into(),
                ..RetryRules::default()
            },
            limits: TimeLimits {
                soft_ms: Some(20),
                // For a run that answers after the soft limit, as if there were none.
                hard_ms: Some(if self.answers { 600_000 } else { 40 }),
            },
        }
    }
}

#[tokio::test]
async fn a_run_may_answer_after_its_soft_limit_and_is_stopped_at_its_hard_one() {
    for answers in [true, false] {
        let bench = Bench::new().await;
        let (soft_limit_came, mut told) = mpsc::unbounded_channel();
        let runner = Slow {
            answers,
            soft_limit_came,
        };
        let _scheduler = bench.start(options(), Arc::new(runner));
        let id = bench.submit("default").await;
        soon("soft limit", told.recv()).await.unwrap();
        let task = bench.settled(id).await.tasks.remove(0).summary;
        if answers {
            assert_eq!((task.error, task.attempts), (None, 1));
        } else {
            let error = task.error.unwrap();
            assert_eq!(error.code, "deadline-exceeded");
            assert!(error.message.contains("40 ms"), "{}", error.message);
            assert_eq!((task.attempts, task.dead_reason), (1, Some(DeadReason::Failed)));
        }
    }
}

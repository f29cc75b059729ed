//! What a step may say about its retries, and what it cannot.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use formwork_tasks::{ErrorRule, RetryPolicy, RetryRules, StepMaxima};
use proptest::prelude::*;

fn pool() -> RetryPolicy {
    RetryPolicy::try_new(5, 1_000, 300_000).unwrap()
}

fn most() -> StepMaxima {
    StepMaxima {
        max_attempts: 50,
        cap_ms: 600_000,
        ..StepMaxima::default()
    }
}

fn policy(max_attempts: u32, base_ms: u64, cap_ms: u64) -> Option<RetryPolicy> {
    Some(RetryPolicy::try_new(max_attempts, base_ms, cap_ms).unwrap())
}

fn after(rules: &str, code: &str, curable: bool) -> Option<RetryPolicy> {
    let rules: RetryRules = serde_json::from_str(rules).unwrap();
    rules.after(code, curable, &pool(), &most())
}

#[test]
fn a_step_that_says_nothing_follows_its_pool() {
    assert_eq!(after("{}", "unavailable", true), Some(pool()));
    assert_eq!(after("{}", "trap", false), None);
}

#[test]
fn what_is_said_of_a_code_goes_before_what_is_said_of_all() {
    let rules = r#"{ "max_attempts": 3, "base_ms": 10, "errors": {
        "unavailable": { "max_attempts": 10, "cap_ms": 20 },
        "deadline-exceeded": { "retry": false },
        "trap": { "retry": true } } }"#;
    assert_eq!(after(rules, "host", true), policy(3, 10, 300_000));
    assert_eq!(after(rules, "unavailable", true), policy(10, 10, 20));
    assert_eq!(after(rules, "deadline-exceeded", true), None);
    assert_eq!(after(rules, "trap", false), policy(3, 10, 300_000));
    assert_eq!(after(rules, "limit-memory", false), None);
}

#[test]
fn a_base_above_the_pools_cap_lifts_it_and_a_cap_below_the_pools_base_lowers_it() {
    assert_eq!(
        after(r#"{ "base_ms": 400000 }"#, "host", true),
        policy(5, 400_000, 400_000)
    );
    assert_eq!(after(r#"{ "cap_ms": 10 }"#, "host", true), policy(5, 10, 10));
}

proptest! {
    #[test]
    fn no_step_goes_beyond_the_operator(
        [attempts, base, cap] in prop::array::uniform3(prop::option::of(0_u64..2_000_000)),
        [more, late, later] in prop::array::uniform3(prop::option::of(0_u64..2_000_000)),
    ) {
        let number = |value: Option<u64>| value.map(|value| u32::try_from(value).unwrap());
        let rule = ErrorRule { retry: Some(true), max_attempts: number(more), base_ms: late, cap_ms: later };
        let rules = RetryRules {
            max_attempts: number(attempts),
            base_ms: base,
            cap_ms: cap,
            errors: [("host".to_owned(), rule)].into(),
        };
        for code in ["host", "unavailable"] {
            let policy = rules.after(code, true, &pool(), &most()).unwrap();
            prop_assert!((1..=50).contains(&policy.max_attempts()));
            prop_assert!(policy.base_ms() <= policy.cap_ms() && policy.cap_ms() <= 600_000);
        }
    }
}

//! The retry policy: bounds, jitter, exhaustion.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

use formwork_tasks::{DeadReason, Disposition, InvalidRetryPolicy, Millis, RetryPolicy};
use proptest::prelude::*;

proptest! {
    #[test]
    fn waits_stay_below_a_ceiling_that_doubles_up_to_the_cap(
        base in 0_u64..10_000,
        more in 0_u64..1_000_000,
        attempt in 1_u32..200,
        random: u64,
    ) {
        let policy = RetryPolicy::try_new(1_000, base, base + more).expect("is valid");
        let ceiling = policy.ceiling_ms(attempt);
        prop_assert!(ceiling <= base + more);
        prop_assert!(policy.ceiling_ms(attempt + 1) >= ceiling);
        match policy.after_failure(attempt, Millis(500), random, 0) {
            Disposition::RetryAt(at) => prop_assert!(at.since(Millis(500)) <= ceiling),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn jitter_is_full() {
    let policy = RetryPolicy::try_new(5, 1_000, 60_000).expect("is valid");
    let wait = |random| match policy.after_failure(3, Millis(0), random, 0) {
        Disposition::RetryAt(at) => at.0,
        other => panic!("{other:?}"),
    };
    assert_eq!((wait(0), wait(u64::MAX / 2), wait(u64::MAX)), (0, 2_000, 4_000));
}

#[test]
fn what_the_failing_side_asks_for_is_kept() {
    let at = RetryPolicy::default().after_failure(1, Millis(0), 0, 7_000);
    assert_eq!(at, Disposition::RetryAt(Millis(7_000)));
}

#[test]
fn the_last_attempt_is_the_last() {
    let policy = RetryPolicy::try_new(2, 1, 1).expect("is valid");
    assert!(matches!(
        policy.after_failure(1, Millis(0), 0, 0),
        Disposition::RetryAt(_)
    ));
    let exhausted = Disposition::Dead(DeadReason::Exhausted);
    assert_eq!(policy.after_failure(2, Millis(0), 0, 0), exhausted);
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(RetryPolicy::try_new(0, 1, 1), Err(InvalidRetryPolicy::NoAttempts));
    let refused = RetryPolicy::try_new(1, 2, 1);
    assert_eq!(refused, Err(InvalidRetryPolicy::CapBelowBase { base_ms: 2, cap_ms: 1 }));
    let text = r#"{"max_attempts":0,"base_ms":1,"cap_ms":1}"#;
    assert!(serde_json::from_str::<RetryPolicy>(text).is_err());
}

//! Checks of what a step says about its own retries and time.

use formwork_engine::CallError;
use formwork_tasks::{ErrorRule, RetryWords, StepMaxima};

use crate::definition::escape;
use crate::{Problem, StepDefinition};

/// Codes of failures that no plugin call makes: the runner's panic, and a store that does not answer.
const HOST_CODES: [&str; 2] = ["panic", "store"];

/// What can be right in no installation.
pub(crate) fn senseless(index: usize, step: &StepDefinition) -> Vec<Problem> {
    let mut problems = Vec::new();
    let retry = format!("/pipeline/{index}/retry");
    let usual = step.retry.words();
    check_words(&retry, usual, usual, &mut problems);
    for (code, rule) in &step.retry.errors {
        let at = format!("{retry}/errors/{}", escape(code));
        if !is_known(code) {
            let known: Vec<&str> = CallError::CODES.iter().chain(&HOST_CODES).copied().collect();
            let message = format!("no run fails with `{code}`; known: {}", known.join(", "));
            problems.push(Problem::new(at.clone(), "retry", message));
        }
        if *rule == ErrorRule::default() {
            problems.push(Problem::new(
                at.clone(),
                "retry",
                "says nothing: set a key, or leave it out",
            ));
        }
        if rule.retry == Some(false) && rule.words() != RetryWords::default() {
            let message = "a run that is not tried again needs no number of attempts and no wait";
            problems.push(Problem::new(at.clone(), "retry", message));
        }
        check_words(&at, rule.words(), rule.words().or(usual), &mut problems);
    }
    let limits = format!("/pipeline/{index}/limits");
    for (key, value) in [("hard_ms", step.limits.hard_ms), ("soft_ms", step.limits.soft_ms)] {
        if value == Some(0) {
            problems.push(Problem::new(
                format!("{limits}/{key}"),
                "limits",
                "must be at least 1 millisecond",
            ));
        }
    }
    if let (Some(soft), Some(hard)) = (step.limits.soft_ms, step.limits.hard_ms)
        && soft > hard
    {
        let message = format!("must be at most hard_ms ({hard})");
        problems.push(Problem::new(format!("{limits}/soft_ms"), "limits", message));
    }
    problems
}

fn is_known(code: &str) -> bool {
    CallError::CODES.contains(&code) || HOST_CODES.contains(&code)
}

/// `own`: what stands here; `all`: with what holds here besides.
fn check_words(at: &str, own: RetryWords, all: RetryWords, problems: &mut Vec<Problem>) {
    if own.max_attempts == Some(0) {
        let message = "must be at least 1, the first run";
        problems.push(Problem::new(format!("{at}/max_attempts"), "retry", message));
    }
    if let (Some(base), Some(cap)) = (all.base_ms, all.cap_ms)
        && cap < base
        && (own.base_ms.is_some() || own.cap_ms.is_some())
    {
        let key = if own.cap_ms.is_some() { "cap_ms" } else { "base_ms" };
        let message = format!("cap_ms ({cap}) must not be less than base_ms ({base})");
        problems.push(Problem::new(format!("{at}/{key}"), "retry", message));
    }
}

/// What this installation does not allow.
pub(crate) fn beyond(index: usize, step: &StepDefinition, most: &StepMaxima) -> Vec<Problem> {
    let retry = format!("/pipeline/{index}/retry");
    let codes = step.retry.errors.iter();
    let rules = codes.map(|(code, rule)| (format!("{retry}/errors/{}", escape(code)), rule.words()));
    let mut asked = Vec::new();
    for (at, words) in std::iter::once((retry.clone(), step.retry.words())).chain(rules) {
        let attempts = words.max_attempts.map(u64::from);
        asked.push((
            format!("{at}/max_attempts"),
            "max_attempts",
            attempts,
            most.max_attempts.into(),
        ));
        asked.push((format!("{at}/base_ms"), "cap_ms", words.base_ms, most.cap_ms));
        asked.push((format!("{at}/cap_ms"), "cap_ms", words.cap_ms, most.cap_ms));
    }
    let limits = format!("/pipeline/{index}/limits");
    asked.push((
        format!("{limits}/soft_ms"),
        "hard_ms",
        step.limits.soft_ms,
        most.hard_ms,
    ));
    asked.push((
        format!("{limits}/hard_ms"),
        "hard_ms",
        step.limits.hard_ms,
        most.hard_ms,
    ));
    let over = asked
        .into_iter()
        .filter(|(_, _, value, most)| value.is_some_and(|value| value > *most));
    let problem = |(at, key, _, most): (String, &str, Option<u64>, u64)| {
        let code = if at.starts_with(&limits) { "limits" } else { "retry" };
        Problem::new(
            at,
            code,
            format!("must be at most {most}, which pools.step_maxima.{key} allows here"),
        )
    };
    over.map(problem).collect()
}

use super::*;
use formwork_store::{ReapedAs, Record, Retry, StoreEvent, TaskId, tasks::State};

async fn complete(store: &dyn Store, task: &Claimed, result: TaskResult) {
    let record = store
        .complete(task.id, task.run_lease, result, NOW)
        .await
        .expect("recorded");
    assert_eq!(record, Record::Recorded);
}

pub(crate) async fn steps_run_in_order_and_see_earlier_outputs(store: &dyn Store) {
    publish(
        store,
        vec![Step::new("check"), Step::new("intent"), Step::new("archive")],
    )
    .await;
    let mut events = store.subscribe();
    let id = submit(store).await;

    for (index, step) in ["check", "intent", "archive"].into_iter().enumerate() {
        let task = claim_one(store, NOW).await;
        assert_eq!(task.step, step);
        assert_eq!(task.id, TaskId::new(id, index as u16));
        assert_eq!(task.correlation_id, format!("request-{id}"));
        assert_eq!(task.submitted_at, NOW);
        let seen: Vec<_> = task.outputs.iter().map(|output| output.step.as_str()).collect();
        assert_eq!(seen, ["check", "intent", "archive"][..index]);
        assert!(task.outputs.iter().all(|output| output.provenance == provenance()));
        assert!(
            claim(store, Pool::Default, 10, NOW).await.is_empty(),
            "the next step waits"
        );
        complete(store, &task, result(&format!(r#"{{"step":"{step}"}}"#))).await;
    }

    let view = store.submission(id).await.expect("read").expect("exists");
    assert_eq!(view.summary.status, SubmissionStatus::Done);
    assert_eq!(view.summary.settled_at, Some(NOW));
    for task in &view.tasks {
        assert_eq!(task.summary.state, State::Completed);
        assert_eq!(task.provenance, Some(provenance()));
        assert_eq!(task.cpu_ms, Some(1.5));
        let output = &task.result.as_ref().expect("has an output").output;
        assert_eq!(*output, format!(r#"{{"step":"{}"}}"#, task.summary.step));
    }
    let mut settled = 0;
    while let Ok(event) = events.try_recv() {
        settled += u32::from(event == StoreEvent::SubmissionSettled { id });
    }
    assert_eq!(settled, 1);
}

pub(crate) async fn a_rejection_stops_the_pipeline(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("intent")]).await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    complete(store, &task, rejected("[]")).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Rejected);
    assert!(claim(store, Pool::Default, 10, NOW).await.is_empty());
}

pub(crate) async fn a_rejection_may_be_passed_over(store: &dyn Store) {
    publish(
        store,
        vec![Step::new("check").continue_on_reject(), Step::new("intent")],
    )
    .await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    complete(store, &task, rejected("[]")).await;
    let next = claim_one(store, NOW).await;
    assert_eq!(next.outputs[0].verdict, Verdict::Rejected);
    complete(store, &next, result("{}")).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Done);
}

pub(crate) async fn a_rejection_cancels_what_waits(store: &dyn Store) {
    let side = |name: &str| Step::new(name).after([]);
    publish(
        store,
        vec![side("check"), side("runs").in_pool(Pool::High), side("waits")],
    )
    .await;
    let id = submit(store).await;
    let check = claim_one(store, NOW).await;
    assert_eq!(check.step, "check");
    let runs = claim(store, Pool::High, 1, NOW).await.remove(0);
    complete(store, &check, rejected("[]")).await;

    assert_eq!(status(store, id).await, SubmissionStatus::Processing, "one still runs");
    assert!(
        claim(store, Pool::Default, 10, NOW).await.is_empty(),
        "what waited is stopped"
    );
    complete(store, &runs, result("{}")).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Rejected);
    let waited = store.task(TaskId::new(id, 2)).await.expect("read").expect("exists");
    assert_eq!(waited.summary.state, State::Cancelled);
}

/// A task that ran when a sibling rejected the submission, and comes back without having ended.
pub(crate) async fn what_waits_again_after_a_rejection_is_not_run_again(store: &dyn Store) {
    let side = |name: &str| Step::new(name).after([]);
    let pools = [Pool::High, Pool::High, Pool::High, Pool::Batched];
    let mut steps = vec![side("check")];
    steps.extend((0..pools.len()).map(|index| side(&format!("side-{index}")).in_pool(pools[index])));
    publish(store, steps).await;
    let id = submit(store).await;
    let check = claim_one(store, NOW).await;
    let running = claim(store, Pool::High, 3, NOW.plus(LEASE_MS)).await;
    let vanished = claim(store, Pool::Batched, 1, NOW).await.remove(0);
    complete(store, &check, rejected("[]")).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Processing);

    let [retryable, released, ended] = &running[..] else {
        panic!("three were claimed: {running:?}");
    };
    let retry = failure(Disposition::RetryAt(NOW.plus(1)));
    let record = store.fail(retryable.id, retryable.run_lease, retry, NOW).await;
    assert_eq!(record.expect("answered"), Record::Recorded);
    let record = store.release(released.id, released.run_lease, NOW).await;
    assert_eq!(record.expect("answered"), Record::Recorded);
    let reaped = store.reap(NOW.plus(LEASE_MS), 3).await.expect("reaped");
    assert_eq!(reaped.len(), 1);
    assert_eq!((reaped[0].id, reaped[0].outcome), (vanished.id, ReapedAs::Cancelled));

    for pool in [Pool::High, Pool::Batched] {
        let claimed = claim(store, pool, 10, NOW.plus(2 * LEASE_MS)).await;
        assert!(
            claimed.is_empty(),
            "runs again although its submission is rejected: {claimed:?}"
        );
    }
    for task in [retryable, released, &vanished] {
        let view = store.task(task.id).await.expect("read").expect("exists");
        assert_eq!(view.summary.state, State::Cancelled, "{}", task.step);
    }
    complete(store, ended, result("{}")).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Rejected);
}

pub(crate) async fn branches_join_exactly_once(store: &dyn Store) {
    let branches: Vec<String> = (0..8).map(|index| format!("branch-{index}")).collect();
    let mut steps: Vec<Step> = branches.iter().map(|name| Step::new(name).after([])).collect();
    let join = Step {
        after: Some(branches),
        ..Step::new("join").in_pool(Pool::Batched)
    };
    steps.push(join);
    publish(store, steps).await;
    let id = submit(store).await;

    let running = claim(store, Pool::Default, 10, NOW).await;
    assert_eq!(running.len(), 8);
    let ends = running.iter().map(|task| complete(store, task, result("{}")));
    futures::future::join_all(ends).await;

    let joined = claim(store, Pool::Batched, 10, NOW).await;
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].outputs.len(), 8);
    complete(store, &joined[0], result("{}")).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Done);
}

pub(crate) async fn a_dead_step_fails_the_submission_and_a_retry_revives_it(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("intent")]).await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    store
        .fail(task.id, task.run_lease, dead(), NOW)
        .await
        .expect("recorded");
    assert_eq!(status(store, id).await, SubmissionStatus::Failed);
    let view = store.task(task.id).await.expect("read").expect("exists");
    assert_eq!(view.summary.dead_reason, Some(DeadReason::Failed));
    assert_eq!(view.summary.error.expect("has an error").code, "plugin_trapped");

    assert_eq!(store.retry(task.id, NOW).await.expect("answered"), Retry::Retried);
    assert_eq!(status(store, id).await, SubmissionStatus::Processing);
    for _ in 0..2 {
        let task = claim_one(store, NOW).await;
        assert_eq!(task.attempt, 1, "a retried task starts from the first attempt");
        complete(store, &task, result("{}")).await;
    }
    assert_eq!(status(store, id).await, SubmissionStatus::Done);
    let view = store.task(task.id).await.expect("read").expect("exists");
    assert_eq!((view.summary.error, view.summary.dead_reason), (None, None));
}

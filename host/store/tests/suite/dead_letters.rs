use super::*;
use formwork_store::{Error, Redriven, TaskFilter, TaskId, limits, tasks::State};

/// One dead task a reason, dead at NOW, NOW + 1,000 and NOW + 2,000.
async fn one_of_each(store: &dyn Store) -> [TaskId; 3] {
    publish(store, vec![Step::new("check")]).await;
    let mut ids = Vec::new();
    for (index, reason) in (0..).zip([DeadReason::Failed, DeadReason::Exhausted]) {
        let now = NOW.plus(index * 1_000);
        submit_at(store, now).await;
        let task = claim_one(store, now).await;
        let failure = Failure {
            code: format!("code-{index}"),
            ..failure(Disposition::Dead(reason))
        };
        store
            .fail(task.id, task.run_lease, failure, now)
            .await
            .expect("recorded");
        ids.push(task.id);
    }
    let ends = NOW.plus(2_000);
    let began = Millis(ends.0 - LEASE_MS as i64);
    submit_at(store, began).await;
    let task = claim_one(store, began).await;
    assert_eq!(store.reap(ends, 1).await.expect("reaped").len(), 1);
    ids.push(task.id);
    ids.try_into().expect("three of them")
}

async fn found(store: &dyn Store, filter: TaskFilter) -> Vec<TaskId> {
    let found = store.tasks(filter, page(100, None)).await.expect("listed");
    found.items.into_iter().map(|task| task.id).collect()
}

pub(crate) async fn dead_tasks_are_filtered_by_reason_code_and_time(store: &dyn Store) {
    let [failed, exhausted, crashed] = one_of_each(store).await;
    submit(store).await;
    let reason = |reason| TaskFilter {
        dead_reason: Some(reason),
        ..TaskFilter::default()
    };
    assert_eq!(found(store, reason(DeadReason::Failed)).await, [failed]);
    assert_eq!(found(store, reason(DeadReason::Exhausted)).await, [exhausted]);
    assert_eq!(found(store, reason(DeadReason::Crashed)).await, [crashed]);
    let code = TaskFilter {
        error_code: Some("code-1".into()),
        ..TaskFilter::default()
    };
    assert_eq!(found(store, code).await, [exhausted]);
    let within = |from: u64, until: u64| TaskFilter {
        state: Some(State::Dead),
        finished_from: Some(NOW.plus(from)),
        finished_until: Some(NOW.plus(until)),
        ..TaskFilter::default()
    };
    assert_eq!(
        found(store, within(0, 2_000)).await,
        [exhausted, failed],
        "until is not in it"
    );
    assert_eq!(
        found(store, within(1_000, 2_001)).await,
        [crashed, exhausted],
        "from is"
    );
    let both = TaskFilter {
        dead_reason: Some(DeadReason::Failed),
        ..within(1_000, 2_001)
    };
    assert!(found(store, both).await.is_empty(), "everything given must match");
}

pub(crate) async fn a_redrive_takes_what_matches_with_fresh_counters(store: &dyn Store) {
    let [failed, exhausted, crashed] = one_of_each(store).await;
    let now = NOW.plus(5_000);
    let filter = TaskFilter {
        dead_reason: Some(DeadReason::Crashed),
        ..TaskFilter::default()
    };
    let redriven = store.redrive(filter, 10, now).await.expect("redriven");
    assert_eq!(redriven, Redriven { count: 1, more: false });
    let view = store.task(crashed).await.expect("read").expect("exists").summary;
    assert_eq!((view.state, view.attempts, view.crashes), (State::Available, 0, 0));
    assert_eq!((view.run_at, view.dead_reason, view.finished_at), (now, None, None));
    assert_eq!(status(store, crashed.submission).await, SubmissionStatus::Processing);
    let history = store.task_history(crashed).await.expect("read");
    assert_eq!(history.last().expect("has lines").why, "operator_retry");
    for id in [failed, exhausted] {
        assert_eq!(
            status(store, id.submission).await,
            SubmissionStatus::Failed,
            "untouched"
        );
    }
    assert_eq!(store.pool_stats(now).await.expect("read")[1].dead, 2);
    assert_eq!(claim_one(store, now).await.id, crashed);
    let all = store.redrive(TaskFilter::default(), 10, now).await.expect("redriven");
    assert_eq!(all, Redriven { count: 2, more: false });
}

pub(crate) async fn a_redrive_is_bounded_and_says_whether_there_is_more(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let many = limits::REDRIVE_TASKS as usize + 10;
    let new = (0..many).map(|_| submission(new_id())).collect();
    store.submit_many(new, NOW).await.expect("recorded");
    while let claimed = claim(store, Pool::Default, limits::CLAIM_TASKS, NOW).await
        && !claimed.is_empty()
    {
        let ends = claimed
            .iter()
            .map(|task| store.fail(task.id, task.run_lease, dead(), NOW));
        for end in futures::future::join_all(ends).await {
            end.expect("recorded");
        }
    }
    let redrive = |limit| store.redrive(TaskFilter::default(), limit, NOW);
    assert_eq!(redrive(3).await.expect("redriven"), Redriven { count: 3, more: true });
    let oldest = claim(store, Pool::Default, 3, NOW).await;
    assert!(oldest.is_sorted_by_key(|task| task.id), "oldest first");
    let most = redrive(u32::MAX).await.expect("redriven");
    let bounded = Redriven {
        count: limits::REDRIVE_TASKS,
        more: true,
    };
    assert_eq!(most, bounded);
    assert_eq!(redrive(7).await.expect("redriven"), Redriven { count: 7, more: false });
    assert_eq!(redrive(7).await.expect("redriven"), Redriven::default());
}

pub(crate) async fn only_dead_tasks_are_redriven(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let id = submit(store).await;
    store.cancel(TaskId::new(id, 0), NOW).await.expect("answered");
    let cancelled = TaskFilter {
        state: Some(State::Cancelled),
        ..TaskFilter::default()
    };
    let refused = store.redrive(cancelled, 10, NOW).await;
    assert!(
        matches!(refused, Err(Error::Invalid { what: "filter", .. })),
        "{refused:?}"
    );
    let all = store.redrive(TaskFilter::default(), 10, NOW).await;
    assert_eq!(all.expect("redriven"), Redriven::default());
}

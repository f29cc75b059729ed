use super::*;
use formwork_store::{Beat, Cancel, Error, Record, Retry, StoreEvent, TaskFilter, TaskId, tasks::State};

pub(crate) async fn a_waiting_task_is_cancelled(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("intent")]).await;
    let id = submit(store).await;
    let task = TaskId::new(id, 0);
    assert_eq!(store.cancel(task, NOW).await.expect("answered"), Cancel::Cancelled);
    assert_eq!(status(store, id).await, SubmissionStatus::Failed);
    assert!(claim(store, Pool::Default, 1, NOW).await.is_empty());
    assert_eq!(store.retry(task, NOW).await.expect("answered"), Retry::Retried);
    assert_eq!(claim_one(store, NOW).await.id, task);
}

pub(crate) async fn a_running_task_is_asked_to_stop(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    let mut events = store.subscribe();
    assert_eq!(store.cancel(task.id, NOW).await.expect("answered"), Cancel::Requested);
    let event = events.recv().await.expect("an event");
    assert_eq!(event, StoreEvent::CancelRequested { task: task.id });
    let runs = [Beat::new(task.id, task.run_lease)];
    let reply = store.heartbeat(&runs, LEASE_MS, NOW).await.expect("answered");
    assert_eq!(reply.cancel, [task.id]);

    // A worker that reports an ordinary error is not retried either.
    let error = failure(Disposition::RetryAt(NOW));
    let record = store.fail(task.id, task.run_lease, error, NOW).await.expect("answered");
    assert_eq!(record, Record::Recorded);
    let view = store.task(task.id).await.expect("read").expect("exists");
    assert_eq!(view.summary.state, State::Cancelled);
    assert_eq!(view.summary.errors, 0);
    assert_eq!(status(store, id).await, SubmissionStatus::Failed);
}

pub(crate) async fn a_cancelled_worker_that_vanishes_is_settled(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    store.cancel(task.id, NOW).await.expect("answered");
    store.reap(NOW.plus(LEASE_MS), 3).await.expect("reaped");
    let view = store.task(task.id).await.expect("read").expect("exists");
    assert_eq!(view.summary.state, State::Cancelled);
    assert_eq!(status(store, id).await, SubmissionStatus::Failed);
}

pub(crate) async fn finished_tasks_are_not_cancelled_nor_retried(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    submit(store).await;
    let task = claim_one(store, NOW).await;
    assert_eq!(
        store.retry(task.id, NOW).await.expect("answered"),
        Retry::Refused(State::Running)
    );
    store
        .complete(task.id, task.run_lease, result("{}"), NOW)
        .await
        .expect("recorded");
    let cancel = store.cancel(task.id, NOW).await.expect("answered");
    assert_eq!(cancel, Cancel::AlreadyFinished(State::Completed));
    let retry = store.retry(task.id, NOW).await.expect("answered");
    assert_eq!(retry, Retry::Refused(State::Completed));
}

pub(crate) async fn unknown_tasks_are_errors(store: &dyn Store) {
    let task = TaskId::new(new_id(), 0);
    assert!(matches!(store.cancel(task, NOW).await, Err(Error::UnknownTask(id)) if id == task));
    assert!(matches!(store.retry(task, NOW).await, Err(Error::UnknownTask(id)) if id == task));
    assert_eq!(store.task(task).await.expect("read"), None);
    assert!(store.task_history(task).await.expect("read").is_empty());
    let record = store.release(task, Default::default(), NOW).await.expect("answered");
    assert_eq!(record, Record::Stale);
}

pub(crate) async fn tasks_are_filtered_and_paged(store: &dyn Store) {
    let side = |name: &str| Step::new(name).after([]);
    publish(store, vec![side("check").in_pool(Pool::High), side("intent")]).await;
    let survey = NewForm {
        id: "survey".into(),
        ..form(vec![Step::new("check")])
    };
    store.put_form(survey, NOW).await.expect("published");
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(submit(store).await);
    }
    let odd = NewSubmission {
        form: "survey".into(),
        ..submission(new_id())
    };
    let odd_id = odd.id;
    store.submit(odd, NOW).await.expect("recorded");
    store.cancel(TaskId::new(ids[2], 0), NOW).await.expect("answered");

    let list = |filter: TaskFilter, limit: u32| async move {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let part = store.tasks(filter.clone(), page(limit, after)).await.expect("listed");
            assert!(part.items.len() <= limit as usize);
            found.extend(part.items.into_iter().map(|task| task.id));
            after = part.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let all = list(TaskFilter::default(), 5).await;
    assert_eq!(all.len(), 13);
    assert!(all.is_sorted_by(|a, b| a > b), "newest first");

    let of_form = TaskFilter {
        form: Some(FORM.into()),
        ..TaskFilter::default()
    };
    assert_eq!(list(of_form.clone(), 5).await, all[1..]);
    let cancelled = TaskFilter {
        state: Some(State::Cancelled),
        ..of_form.clone()
    };
    assert_eq!(list(cancelled, 5).await, [TaskId::new(ids[2], 0)]);
    let available = TaskFilter {
        state: Some(State::Available),
        ..of_form.clone()
    };
    assert_eq!(list(available, 3).await.len(), 11);
    let high = TaskFilter {
        pool: Some(Pool::High),
        ..TaskFilter::default()
    };
    assert_eq!(list(high, 4).await.len(), 6);
    let named = TaskFilter {
        step: Some("check".into()),
        ..TaskFilter::default()
    };
    assert_eq!(list(named, 4).await.len(), 7);
    let of_one = TaskFilter {
        submission: Some(odd_id),
        ..TaskFilter::default()
    };
    assert_eq!(list(of_one, 4).await, [TaskId::new(odd_id, 0)]);
    let nothing = TaskFilter {
        state: Some(State::Completed),
        ..TaskFilter::default()
    };
    assert!(list(nothing, 4).await.is_empty());
}

pub(crate) async fn bad_cursors_are_refused(store: &dyn Store) {
    let bad = || page(10, Some("'; drop table tasks".into()));
    let tasks = store.tasks(TaskFilter::default(), bad()).await;
    assert!(matches!(tasks, Err(Error::Invalid { what: "cursor", .. })));
    let submissions = store.submissions(None, bad()).await;
    assert!(matches!(submissions, Err(Error::Invalid { what: "cursor", .. })));
}

pub(crate) async fn pools_are_counted(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    for later in [300, 0, 100] {
        submit_at(store, NOW.plus(later)).await;
    }
    let now = NOW.plus(1_000);
    let stats = store.pool_stats(now).await.expect("read");
    assert_eq!(stats.iter().map(|stats| stats.pool).collect::<Vec<_>>(), Pool::ALL);
    assert_eq!((stats[1].available, stats[1].oldest_available_ms), (3, Some(1_000)));
    assert_eq!((stats[0].available, stats[0].oldest_available_ms), (0, None));

    let oldest = claim_one(store, now).await;
    let second = claim_one(store, now).await;
    store
        .fail(second.id, second.run_lease, dead(), now)
        .await
        .expect("recorded");
    let stats = store.pool_stats(now).await.expect("read")[1];
    assert_eq!((stats.available, stats.running, stats.dead), (1, 1, 1));
    assert_eq!(stats.oldest_available_ms, Some(700));
    store
        .complete(oldest.id, oldest.run_lease, result("{}"), now)
        .await
        .expect("recorded");
    assert_eq!(store.pool_stats(now).await.expect("read")[1].completed, 1);
}

pub(crate) async fn history_has_every_move(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    submit(store).await;
    let first = claim_one(store, NOW).await;
    store.reap(NOW.plus(LEASE_MS), 3).await.expect("reaped");
    let second = claim_one(store, NOW.plus(LEASE_MS)).await;
    store
        .fail(second.id, second.run_lease, dead(), NOW)
        .await
        .expect("recorded");
    store.retry(second.id, NOW).await.expect("answered");
    let third = claim_one(store, NOW).await;
    store
        .complete(third.id, third.run_lease, result("{}"), NOW)
        .await
        .expect("recorded");

    let history = store.task_history(first.id).await.expect("read");
    let lines: Vec<String> = history
        .iter()
        .map(|event| {
            let from = event.from.map_or("-", State::as_str);
            format!("{} {from}>{} {} {}", event.sequence, event.to, event.who, event.why)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "1 ->available pipeline created",
            "2 available>running worker:worker-a claimed",
            "3 running>available reaper lease_ended",
            "4 available>running worker:worker-a claimed",
            "5 running>dead worker:worker-a failed: plugin_trapped",
            "6 dead>available operator operator_retry",
            "7 available>running worker:worker-a claimed",
            "8 running>completed worker:worker-a completed",
        ]
    );
    assert!(
        history.is_sorted_by_key(|event| event.run_lease),
        "the fence never falls"
    );
}

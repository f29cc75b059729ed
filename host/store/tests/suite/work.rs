use super::*;
use formwork_store::{
    Beat, HeartbeatReply, NewProgress, ReapedAs, Record, StoreEvent, TaskId, limits,
    tasks::{Priority, RunLease, State},
};
use std::collections::HashSet;

pub(crate) async fn claims_come_by_priority_then_age(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let mut ids = Vec::new();
    // (priority, due): the number is the expected place.
    for (priority, later) in [(5, 10), (9, 20), (0, 0), (9, 10), (5, 0)] {
        let id = new_id();
        let new = NewSubmission {
            priority: Some(Priority::try_new(priority).expect("is a priority")),
            ..submission(id)
        };
        store.submit(new, NOW.plus(later)).await.expect("recorded");
        ids.push(id);
    }
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(claim_one(store, NOW.plus(50)).await.id.submission);
    }
    assert_eq!(order, [ids[3], ids[1], ids[4], ids[0], ids[2]]);
}

pub(crate) async fn a_claim_takes_each_task_once(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let many = (0..300).map(|_| submission(new_id())).collect();
    store.submit_many(many, NOW).await.expect("recorded");
    let claims = (0..20).map(|_| claim(store, Pool::Default, 20, NOW));
    let claimed: Vec<Claimed> = futures::future::join_all(claims).await.into_iter().flatten().collect();
    let distinct: HashSet<_> = claimed.iter().map(|task| task.id).collect();
    assert_eq!((claimed.len(), distinct.len()), (300, 300));
    assert!(claim(store, Pool::Batched, 20, NOW).await.is_empty(), "pools are apart");
}

pub(crate) async fn a_stale_lease_records_nothing(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    submit(store).await;
    let old = claim_one(store, NOW).await;
    let later = NOW.plus(LEASE_MS);
    assert_eq!(store.reap(later, 3).await.expect("reaped").len(), 1);
    let new = claim_one(store, later).await;
    assert_eq!(new.id, old.id);
    assert!(new.run_lease > old.run_lease);
    assert_eq!(new.crashes, 1);

    let before = store.task(old.id).await.expect("read");
    let (id, stale) = (old.id, old.run_lease);
    let complete = store
        .complete(id, stale, export(b"old"), later)
        .await
        .expect("answered");
    let fail = store.fail(id, stale, dead(), later).await.expect("answered");
    let release = store.release(id, stale, later).await.expect("answered");
    assert_eq!([complete, fail, release], [Record::Stale; 3]);
    assert_eq!(store.task(id).await.expect("read"), before, "nothing has changed");
    assert!(
        store
            .export_chunks(FORM, 1, "check", 0, 10)
            .await
            .expect("read")
            .is_empty()
    );

    let record = store.complete(id, new.run_lease, export(b"new"), later).await;
    assert_eq!(record.expect("answered"), Record::Recorded);
    let chunks = store.export_chunks(FORM, 1, "check", 0, 10).await.expect("read");
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].bytes, b"new");
}

pub(crate) async fn a_second_completion_is_stale(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    let twice = (0..2).map(|_| store.complete(task.id, task.run_lease, export(b"x"), NOW));
    let mut records: Vec<Record> = futures::future::join_all(twice)
        .await
        .into_iter()
        .map(|record| record.expect("answered"))
        .collect();
    records.sort_by_key(|record| *record == Record::Stale);
    assert_eq!(records, [Record::Recorded, Record::Stale]);
    assert_eq!(status(store, id).await, SubmissionStatus::Done);
}

pub(crate) async fn a_heartbeat_prolongs_and_tells_what_is_lost(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    submit(store).await;
    submit(store).await;
    let alive = claim_one(store, NOW).await;
    let silent = claim_one(store, NOW).await;

    let later = NOW.plus(LEASE_MS / 2);
    let runs = [Beat::new(alive.id, alive.run_lease)];
    let reply = store.heartbeat(&runs, LEASE_MS, later).await.expect("answered");
    assert_eq!(reply, HeartbeatReply::default());
    let end = NOW.plus(LEASE_MS);
    let reaped = store.reap(end, 3).await.expect("reaped");
    assert_eq!(reaped.len(), 1);
    assert_eq!(reaped[0].id, silent.id);

    let runs = [
        Beat::new(alive.id, alive.run_lease),
        Beat::new(silent.id, silent.run_lease),
    ];
    let reply = store.heartbeat(&runs, LEASE_MS, end).await.expect("answered");
    assert_eq!(reply.lost, [silent.id]);
    let wrong = [Beat::new(alive.id, RunLease(alive.run_lease.0 + 1))];
    let reply = store.heartbeat(&wrong, LEASE_MS, end).await.expect("answered");
    assert_eq!(reply.lost, [alive.id]);
}

/// What was told of single tasks since the last look.
fn told(events: &mut tokio::sync::broadcast::Receiver<StoreEvent>) -> Vec<TaskId> {
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let StoreEvent::TaskChanged { task } = event {
            told.push(task);
        }
    }
    told
}

pub(crate) async fn whoever_watches_a_task_is_told_of_every_move_and_of_progress(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("archive")]).await;
    let mut events = store.subscribe();
    submit(store).await;
    assert_eq!(told(&mut events), [], "a new task has no watchers");
    let task = claim_one(store, NOW).await;
    assert_eq!(told(&mut events), [task.id]);
    let alive = [Beat::new(task.id, task.run_lease)];
    store.heartbeat(&alive, LEASE_MS, NOW).await.expect("answered");
    assert_eq!(told(&mut events), [], "a sign of life is no news");
    let far = [Beat {
        progress: Some(NewProgress::default()),
        ..Beat::new(task.id, task.run_lease)
    }];
    store.heartbeat(&far, LEASE_MS, NOW).await.expect("answered");
    assert_eq!(told(&mut events), [task.id]);
    let complete = || store.complete(task.id, task.run_lease, result("{}"), NOW);
    assert_eq!(complete().await.expect("answered"), Record::Recorded);
    assert_eq!(told(&mut events), [task.id]);
    let stale = complete().await;
    assert_eq!(stale.expect("answered"), Record::Stale);
    assert_eq!(told(&mut events), [], "what was refused changed nothing");
}

pub(crate) async fn progress_comes_with_a_heartbeat_and_belongs_to_its_run(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let submission = submit(store).await;
    let first = claim_one(store, NOW).await;
    let shown = || async { store.task(first.id).await.expect("read").expect("exists").progress };
    assert_eq!(shown().await, None);

    let says = |task: &Claimed, fraction: Option<f64>, message: &str| {
        [Beat {
            progress: Some(NewProgress {
                fraction,
                message: message.into(),
            }),
            ..Beat::new(task.id, task.run_lease)
        }]
    };
    let later = NOW.plus(1_000);
    let beat = says(&first, Some(0.25), "page 1 of 4");
    store.heartbeat(&beat, LEASE_MS, later).await.expect("answered");
    let progress = shown().await.expect("is shown");
    assert_eq!(
        (progress.fraction, progress.message.as_str(), progress.at),
        (Some(0.25), "page 1 of 4", later)
    );
    let view = store.submission(submission).await.expect("read").expect("exists");
    assert_eq!(view.tasks[0].progress, Some(progress), "the submission shows it too");
    let history = store.task_history(first.id).await.expect("read");
    assert_eq!(history.len(), 2, "progress is no history");

    // The latest word counts; a beat without one leaves it, a senseless fraction is unknown, a long message is cut.
    let long = "ä".repeat(limits::PROGRESS_MESSAGE_BYTES);
    for fraction in [Some(f64::NAN), Some(1.5), None] {
        let beat = says(&first, fraction, &long);
        store.heartbeat(&beat, LEASE_MS, later).await.expect("answered");
    }
    let quiet = [Beat::new(first.id, first.run_lease)];
    store.heartbeat(&quiet, LEASE_MS, later).await.expect("answered");
    let progress = shown().await.expect("is shown");
    assert_eq!(progress.fraction, None);
    assert_eq!(progress.message.len(), limits::PROGRESS_MESSAGE_BYTES);

    // Another run has not said anything, and the word of the lost one is not taken for its.
    let end = later.plus(LEASE_MS);
    store.reap(end, 3).await.expect("reaped");
    assert_eq!(shown().await, None);
    let second = claim_one(store, end).await;
    assert_eq!(shown().await, None);
    let beat = says(&first, Some(0.9), "from a lost run");
    let reply = store.heartbeat(&beat, LEASE_MS, end).await.expect("answered");
    assert_eq!(reply.lost, [first.id]);
    assert_eq!(shown().await, None);
    let beat = says(&second, Some(1.0), "");
    store.heartbeat(&beat, LEASE_MS, end).await.expect("answered");
    assert_eq!(shown().await.expect("is shown").fraction, Some(1.0));
    let record = store.complete(second.id, second.run_lease, result("{}"), end).await;
    assert_eq!(record.expect("answered"), Record::Recorded);
    assert_eq!(shown().await, None, "what has ended has a result instead");
}

pub(crate) async fn a_failed_task_waits_for_its_time(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let id = submit(store).await;
    let task = claim_one(store, NOW).await;
    let at = NOW.plus(5_000);
    let retry = failure(Disposition::RetryAt(at));
    store.fail(task.id, task.run_lease, retry, NOW).await.expect("recorded");

    assert_eq!(status(store, id).await, SubmissionStatus::Processing);
    assert_eq!(store.next_due(Pool::Default).await.expect("read"), Some(at));
    assert_eq!(store.next_due(Pool::High).await.expect("read"), None);
    assert!(
        claim(store, Pool::Default, 1, NOW.plus(4_999)).await.is_empty(),
        "too early"
    );
    let again = claim_one(store, at).await;
    assert_eq!(again.attempt, 2);
    assert!(again.run_lease > task.run_lease);
    let view = store.task(task.id).await.expect("read").expect("exists");
    assert_eq!((view.summary.errors, view.summary.crashes), (1, 0));
    assert_eq!(store.next_due(Pool::Default).await.expect("read"), None);
}

pub(crate) async fn a_released_task_has_spent_no_attempt(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    submit(store).await;
    let task = claim_one(store, NOW).await;
    assert_eq!(task.attempt, 1);
    let record = store.release(task.id, task.run_lease, NOW).await.expect("answered");
    assert_eq!(record, Record::Recorded);
    let again = claim_one(store, NOW).await;
    assert_eq!((again.attempt, again.crashes), (1, 0));
    assert!(
        again.run_lease > task.run_lease,
        "the fence rises although the attempt does not"
    );
}

pub(crate) async fn an_ended_lease_is_recovered_then_dead(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let id = submit(store).await;
    let mut now = NOW;
    for crash in 1..=3 {
        let task = claim_one(store, now).await;
        assert!(
            store.reap(now, 3).await.expect("reaped").is_empty(),
            "the lease still holds"
        );
        now = now.plus(LEASE_MS);
        let reaped = store.reap(now, 3).await.expect("reaped");
        assert_eq!(reaped.len(), 1);
        assert_eq!(reaped[0].id, task.id);
        let expected = if crash < 3 { ReapedAs::Recovered } else { ReapedAs::Dead };
        assert_eq!(reaped[0].outcome, expected);
    }
    let view = store.submission(id).await.expect("read").expect("exists");
    assert_eq!(view.summary.status, SubmissionStatus::Failed);
    let task = &view.tasks[0].summary;
    assert_eq!(task.state, State::Dead);
    assert_eq!(task.dead_reason, Some(DeadReason::Crashed));
    assert_eq!((task.crashes, task.errors), (3, 0));
}

pub(crate) async fn long_error_messages_are_cut(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    submit(store).await;
    let task = claim_one(store, NOW).await;
    let long = Failure {
        message: "ä".repeat(limits::ERROR_MESSAGE_BYTES),
        ..dead()
    };
    store.fail(task.id, task.run_lease, long, NOW).await.expect("recorded");
    let view = store.task(task.id).await.expect("read").expect("exists");
    let message = view.summary.error.expect("has an error").message;
    assert_eq!(message.len(), limits::ERROR_MESSAGE_BYTES);
}

use super::*;
use formwork_store::{Expired, Idempotency, Retention, TaskFilter, TaskId, limits, tasks::State};

const DAY_MS: u64 = 86_400_000;
const KEPT: Retention = Retention {
    results_ms: Some(10 * DAY_MS),
    failed_ms: Some(30 * DAY_MS),
};

async fn done(store: &dyn Store, new: NewSubmission) -> SubmissionId {
    let id = new.id;
    store.submit(new, NOW).await.expect("recorded");
    loop {
        let task = claim_one(store, NOW).await;
        let record = store.complete(task.id, task.run_lease, export(b"row"), NOW).await;
        record.expect("recorded");
        if status(store, id).await == SubmissionStatus::Done {
            return id;
        }
    }
}

async fn expire(store: &dyn Store, days: u64) -> Expired {
    store.expire(KEPT, None, NOW.plus(days * DAY_MS)).await.expect("swept")
}

pub(crate) async fn what_was_kept_long_enough_is_gone_whole(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("archive")]).await;
    let id = done(store, submission(new_id())).await;
    let before = NOW.plus(10 * DAY_MS - 1);
    let swept = store.expire(KEPT, None, before).await.expect("swept");
    assert_eq!(swept.submissions, 0, "a millisecond too early");
    assert!(store.submission(id).await.expect("read").is_some());

    assert_eq!(expire(store, 10).await.submissions, 1);
    assert_eq!(store.submission(id).await.expect("read"), None);
    for step in 0..2 {
        let task = TaskId::new(id, step);
        assert_eq!(store.task(task).await.expect("read"), None);
        assert!(store.task_history(task).await.expect("read").is_empty());
    }
    let tasks = store
        .tasks(TaskFilter::default(), page(10, None))
        .await
        .expect("listed");
    assert!(tasks.items.is_empty());
    let submissions = store.submissions(None, page(10, None)).await.expect("listed");
    assert!(submissions.items.is_empty());
    let stats = store.pool_stats(NOW).await.expect("read")[1];
    assert_eq!(stats.completed, 2, "what was done stays counted");
    let chunks = store.export_chunks(FORM, 1, "archive", 0, 10).await.expect("read");
    assert_eq!(chunks.len(), 1, "exports are kept");
    assert_eq!(
        expire(store, 10).await,
        Expired::default(),
        "a second sweep finds nothing"
    );
}

pub(crate) async fn what_is_not_settled_is_never_touched(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("intent")]).await;
    let waiting = submit(store).await;
    let running = submit(store).await;
    let retryable = submit(store).await;
    let revived = submit(store).await;
    let mut tasks = claim(store, Pool::Default, 4, NOW).await;
    tasks.sort_by_key(|task| task.id);
    store
        .release(tasks[0].id, tasks[0].run_lease, NOW)
        .await
        .expect("recorded");
    let retry = failure(Disposition::RetryAt(NOW.plus(900 * DAY_MS)));
    store
        .fail(tasks[2].id, tasks[2].run_lease, retry, NOW)
        .await
        .expect("recorded");
    store
        .fail(tasks[3].id, tasks[3].run_lease, dead(), NOW)
        .await
        .expect("recorded");
    store.retry(tasks[3].id, NOW.plus(1)).await.expect("answered");
    assert_eq!(expire(store, 400).await.submissions, 0);
    for id in [waiting, running, retryable, revived] {
        assert_eq!(status(store, id).await, SubmissionStatus::Processing);
    }
    let record = store.complete(tasks[1].id, tasks[1].run_lease, result("{}"), NOW).await;
    assert_eq!(record.expect("answered"), formwork_store::Record::Recorded);
}

pub(crate) async fn failed_submissions_are_kept_longer(store: &dyn Store) {
    let side = |name: &str| Step::new(name).after([]);
    publish(store, vec![side("check"), side("intent")]).await;
    // One whose task died, one that was rejected beside a dead task, one that was only rejected.
    let failed = submit(store).await;
    let mixed = submit(store).await;
    let rejected_only = submit(store).await;
    for task in claim(store, Pool::Default, 6, NOW).await {
        let of = task.id.submission;
        let dies = of != rejected_only && task.step == "intent";
        let (id, lease) = (task.id, task.run_lease);
        let record = match (dies, of == failed) {
            (true, _) => store.fail(id, lease, dead(), NOW).await,
            (false, true) => store.complete(id, lease, result("{}"), NOW).await,
            (false, false) => store.complete(id, lease, rejected("[]"), NOW).await,
        };
        record.expect("recorded");
    }
    assert_eq!(status(store, mixed).await, SubmissionStatus::Rejected);
    assert_eq!(expire(store, 10).await.submissions, 1);
    assert_eq!(store.submission(rejected_only).await.expect("read"), None);
    assert_eq!(store.pool_stats(NOW).await.expect("read")[1].dead, 2);
    assert_eq!(expire(store, 29).await.submissions, 0);
    assert_eq!(expire(store, 30).await.submissions, 2);
    let stats = store.pool_stats(NOW).await.expect("read")[1];
    assert_eq!((stats.dead, stats.cancelled), (0, 0), "what is gone waits for nobody");

    // Kept for ever where nothing is said.
    let kept = submit(store).await;
    store.cancel(TaskId::new(kept, 0), NOW).await.expect("answered");
    store.cancel(TaskId::new(kept, 1), NOW).await.expect("answered");
    assert_eq!(status(store, kept).await, SubmissionStatus::Failed);
    let only_results = Retention {
        failed_ms: None,
        ..KEPT
    };
    let swept = store.expire(only_results, None, NOW.plus(9_000 * DAY_MS)).await;
    assert_eq!(swept.expect("swept").submissions, 0);
    let swept = store.expire(Retention::default(), None, NOW.plus(9_000 * DAY_MS)).await;
    assert_eq!(swept.expect("swept"), Expired::default());
}

pub(crate) async fn an_expired_key_makes_a_new_submission(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let keyed = || NewSubmission {
        idempotency: Some(Idempotency {
            key: "order-7".into(),
            fingerprint: "a".into(),
        }),
        ..submission(new_id())
    };
    let first = done(store, keyed()).await;
    let again = store.submit(keyed(), NOW).await.expect("answered");
    assert_eq!(again, Submit::Replayed { id: first });
    assert_eq!(expire(store, 10).await.submissions, 1);
    let later = store.submit(keyed(), NOW.plus(10 * DAY_MS)).await.expect("answered");
    assert_eq!(later, Submit::Created);
}

pub(crate) async fn a_sweep_goes_on_in_slices(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let many = limits::EXPIRE_SUBMISSIONS as usize + 20;
    let new = (0..many).map(|_| submission(new_id())).collect();
    store.submit_many(new, NOW).await.expect("recorded");
    // Every fourth stays, so that a slice must go on behind what it leaves.
    let mut kept = 0;
    while let claimed = claim(store, Pool::Default, limits::CLAIM_TASKS, NOW).await
        && !claimed.is_empty()
    {
        let ends = claimed.iter().enumerate().filter(|(index, _)| index % 4 != 3);
        let ends: Vec<_> = ends
            .map(|(_, task)| store.complete(task.id, task.run_lease, result("{}"), NOW))
            .collect();
        kept += claimed.len() - ends.len();
        for end in futures::future::join_all(ends).await {
            end.expect("recorded");
        }
    }
    let now = NOW.plus(11 * DAY_MS);
    let first = store.expire(KEPT, None, now).await.expect("swept");
    assert!(first.submissions < limits::EXPIRE_SUBMISSIONS);
    assert!(first.next.is_some(), "the slice is full");
    let second = store.expire(KEPT, first.next, now).await.expect("swept");
    assert_eq!(second.next, None);
    assert_eq!(first.submissions + second.submissions, (many - kept) as u32);
    let running = TaskFilter {
        state: Some(State::Running),
        ..TaskFilter::default()
    };
    let left = store.tasks(running, page(1_000, None)).await.expect("listed");
    assert_eq!(left.items.len(), kept);
}

pub(crate) async fn exports_have_their_own_time(store: &dyn Store) {
    publish(store, vec![Step::new("archive")]).await;
    let old = done(store, submission(new_id())).await;
    let young = SubmissionId(ulid::Ulid::from_parts(NOW.plus(5 * DAY_MS).0 as u64, 1));
    done(store, submission(young)).await;
    let made = old.made_at();
    let sweep = |after_days: u64| store.expire_exports(20 * DAY_MS, made.plus(after_days * DAY_MS));
    assert_eq!(sweep(19).await.expect("swept"), 0);
    assert_eq!(sweep(20).await.expect("swept"), 1);
    let chunks = store.export_chunks(FORM, 1, "archive", 0, 10).await.expect("read");
    assert_eq!(chunks.iter().map(|chunk| chunk.submission).collect::<Vec<_>>(), [young]);
    assert!(store.submission(old).await.expect("read").is_some(), "results are kept");
    assert_eq!(sweep(30).await.expect("swept"), 1);
    assert_eq!(sweep(30).await.expect("swept"), 0);
}

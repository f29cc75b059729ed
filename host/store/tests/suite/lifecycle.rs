use super::*;
use formwork_store::{Error, TaskFilter, tasks::State};

pub(crate) async fn a_ready_store_says_so(store: &dyn Store) {
    store.ready().await.expect("is ready");
    store.ready().await.expect("is ready again");
}

pub(crate) async fn a_closed_store_refuses(store: &dyn Store) {
    publish(store, vec![]).await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.ready().await, Err(Error::Closed)));
    assert!(matches!(
        store.submit(submission(new_id()), NOW).await,
        Err(Error::Closed)
    ));
    assert!(matches!(store.form(FORM, None).await, Err(Error::Closed)));
}

/// Good and bad writes that share a commit: a bad one that has already written before it fails must leave
/// nothing, and take nothing with it.
pub(crate) async fn one_failing_write_takes_none_with_it(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let writes = (0..64).map(|index| async move {
        let id = new_id();
        if index % 4 == 3 {
            let bad = NewSubmission {
                form_version: 99,
                ..submission(new_id())
            };
            let outcome = store.submit_many(vec![submission(id), bad], NOW).await;
            assert!(matches!(outcome, Err(Error::UnknownForm { .. })), "{outcome:?}");
            (id, false)
        } else {
            let outcome = store.submit(submission(id), NOW).await.expect("recorded");
            assert_eq!(outcome, Submit::Created);
            (id, true)
        }
    });
    for (id, good) in futures::future::join_all(writes).await {
        let found = store.submission(id).await.expect("read").is_some();
        assert_eq!(found, good, "{id}");
    }
    assert_eq!(store.pool_stats(NOW).await.expect("read")[1].available, 48);
}

/// Pseudo-random work from many sides; at the end counters, statuses, histories and exports must agree.
pub(crate) async fn random_work_keeps_the_books_right(store: &dyn Store) {
    let steps = vec![
        Step::new("check").in_pool(Pool::High),
        Step::new("left").after(["check"]),
        Step::new("right").after(["check"]).in_pool(Pool::Batched),
        Step::new("archive").after(["left", "right"]),
    ];
    publish(store, steps).await;
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    let mut now = NOW;
    let mut stale = Vec::new();
    for round in 0..400 {
        now = now.plus(roll(LEASE_MS / 4));
        if round < 60 {
            submit_at(store, now).await;
        }
        let pool = Pool::ALL[roll(3) as usize];
        for task in claim(store, pool, 1 + roll(4) as u32, now).await {
            let (id, lease) = (task.id, task.run_lease);
            match roll(10) {
                0 => stale.push((id, lease)),
                1 => {
                    let retry = failure(Disposition::RetryAt(now.plus(roll(LEASE_MS))));
                    store.fail(id, lease, retry, now).await.expect("answered");
                }
                2 => drop(store.release(id, lease, now).await.expect("answered")),
                3 if roll(3) == 0 => {
                    store.cancel(id, now).await.expect("answered");
                    stale.push((id, lease));
                }
                4 if roll(4) == 0 => {
                    store.fail(id, lease, dead(), now).await.expect("answered");
                }
                5 if task.step == "check" && roll(3) == 0 => {
                    store.complete(id, lease, rejected("[]"), now).await.expect("answered");
                }
                _ => drop(store.complete(id, lease, export(b"x"), now).await.expect("answered")),
            }
        }
        if roll(3) == 0 {
            store.reap(now, 3).await.expect("reaped");
        }
        if roll(5) == 0 && !stale.is_empty() {
            let (id, lease) = stale[roll(stale.len() as u64) as usize];
            store.complete(id, lease, export(b"late"), now).await.expect("answered");
        }
    }
    check_the_books(store, now).await;
}

async fn check_the_books(store: &dyn Store, now: Millis) {
    let tasks = store
        .tasks(TaskFilter::default(), page(1_000, None))
        .await
        .expect("listed");
    assert_eq!(tasks.next, None);
    for stats in store.pool_stats(now).await.expect("read") {
        let count = |state: State| {
            let matches = tasks.items.iter();
            matches
                .filter(|task| task.pool == stats.pool && task.state == state)
                .count() as u64
        };
        assert_eq!(stats.available, count(State::Available));
        assert_eq!(stats.running, count(State::Running));
        assert_eq!(stats.retryable, count(State::Retryable));
        assert_eq!(stats.completed, count(State::Completed));
        assert_eq!(stats.cancelled, count(State::Cancelled));
        assert_eq!(stats.dead, count(State::Dead));
    }
    for task in &tasks.items {
        let history = store.task_history(task.id).await.expect("read");
        let claims = history.iter().filter(|event| event.to == State::Running).count() as u64;
        assert_eq!(task.run_lease.0, claims, "the fence counts the claims");
        assert_eq!(history.last().map(|event| event.to), Some(task.state));
        assert!(
            history
                .windows(2)
                .all(|pair| { pair[1].from == Some(pair[0].to) && pair[1].sequence == pair[0].sequence + 1 })
        );
    }
    let plan = store.form(FORM, None).await.expect("read").expect("exists").steps;
    let plan = formwork_store::tasks::Plan::try_new(plan).expect("is a plan");
    let submissions = store.submissions(None, page(1_000, None)).await.expect("listed");
    let mut settled = 0;
    for summary in &submissions.items {
        let view = store.submission(summary.id).await.expect("read").expect("exists");
        let mut progress = vec![None; plan.steps().len()];
        for task in &view.tasks {
            progress[usize::from(task.summary.id.step)] = Some(formwork_store::tasks::Progress {
                state: task.summary.state,
                verdict: task.result.as_ref().map(|result| result.verdict),
            });
        }
        let expected = plan.assess(&progress);
        assert_eq!(expected.status, summary.status);
        assert!(expected.ready.is_empty() && expected.stop.is_empty());
        settled += u32::from(summary.status.is_settled());
    }
    assert!(settled > 30, "most of the work ends: {settled}");
    for step in plan.steps() {
        let chunks = store.export_chunks(FORM, 1, &step.name, 0, 1_000).await.expect("read");
        let mut of: Vec<_> = chunks.iter().map(|chunk| chunk.submission).collect();
        of.sort_unstable();
        of.dedup();
        assert_eq!(of.len(), chunks.len(), "one chunk per submission and step");
    }
}

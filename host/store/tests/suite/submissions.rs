use super::*;
use formwork_store::{Error, Idempotency, Record, StoreEvent, limits, tasks::State};

pub(crate) async fn a_submission_is_recorded_with_its_first_tasks(store: &dyn Store) {
    publish(store, vec![Step::new("check").in_pool(Pool::High), Step::new("intent")]).await;
    let mut events = store.subscribe();
    let id = submit(store).await;

    let view = store.submission(id).await.expect("read").expect("exists");
    assert_eq!(view.summary.status, SubmissionStatus::Processing);
    assert_eq!(view.summary.form_version, 1);
    assert_eq!(view.data, r#"{"message":"hello"}"#);
    assert_eq!(view.tasks.len(), 1, "only the first step may run");
    let task = &view.tasks[0].summary;
    assert_eq!((task.step.as_str(), task.pool), ("check", Pool::High));
    assert_eq!(task.state, State::Available);
    let event = events.recv().await.expect("an event");
    assert_eq!(event, StoreEvent::TasksAvailable { pool: Pool::High });
}

pub(crate) async fn an_unknown_form_version_is_refused(store: &dyn Store) {
    publish(store, vec![]).await;
    let id = new_id();
    let refused = NewSubmission {
        form_version: 7,
        ..submission(id)
    };
    match store.submit(refused, NOW).await {
        Err(Error::UnknownForm { id, version }) => {
            assert_eq!((id.as_str(), version), (FORM, Some(7)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.submission(id).await.expect("read"), None, "nothing was stored");
}

fn keyed(key: &str, fingerprint: &str) -> NewSubmission {
    let idempotency = Idempotency {
        key: key.into(),
        fingerprint: fingerprint.into(),
    };
    NewSubmission {
        idempotency: Some(idempotency),
        ..submission(new_id())
    }
}

pub(crate) async fn the_same_key_and_request_is_replayed(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let first = keyed("key-1", "print-1");
    let id = first.id;
    assert_eq!(store.submit(first, NOW).await.expect("recorded"), Submit::Created);

    let again = keyed("key-1", "print-1");
    let second_id = again.id;
    assert_eq!(
        store.submit(again, NOW).await.expect("answered"),
        Submit::Replayed { id }
    );
    assert_eq!(store.submission(second_id).await.expect("read"), None);
    assert_eq!(claim(store, Pool::Default, 10, NOW).await.len(), 1, "one task in all");
}

pub(crate) async fn the_same_key_with_another_request_is_told(store: &dyn Store) {
    publish(store, vec![]).await;
    let first = keyed("key-1", "print-1");
    let id = first.id;
    store.submit(first, NOW).await.expect("recorded");
    let other = store.submit(keyed("key-1", "print-2"), NOW).await.expect("answered");
    assert_eq!(other, Submit::KeyReused { id });

    let another_form = NewForm {
        id: "survey".into(),
        ..form(vec![])
    };
    store.put_form(another_form, NOW).await.expect("published");
    let elsewhere = NewSubmission {
        form: "survey".into(),
        ..keyed("key-1", "print-2")
    };
    let outcome = store.submit(elsewhere, NOW).await.expect("recorded");
    assert_eq!(outcome, Submit::Created, "keys belong to their form");
}

pub(crate) async fn concurrent_requests_with_one_key_make_one_submission(store: &dyn Store) {
    publish(store, vec![]).await;
    let requests = (0..16).map(|_| store.submit(keyed("key-1", "print-1"), NOW));
    let outcomes = futures::future::join_all(requests).await;
    let created = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Submit::Created)))
        .count();
    let replayed = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(Submit::Replayed { .. })))
        .count();
    assert_eq!((created, replayed), (1, 15));
}

pub(crate) async fn a_used_submission_id_is_refused(store: &dyn Store) {
    publish(store, vec![]).await;
    let id = submit(store).await;
    match store.submit(submission(id), NOW).await {
        Err(Error::DuplicateSubmission(duplicate)) => assert_eq!(duplicate, id),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_bulk_is_recorded_as_a_whole_or_not_at_all(store: &dyn Store) {
    publish(store, vec![Step::new("check")]).await;
    let good: Vec<_> = (0..100).map(|_| submission(new_id())).collect();
    let outcomes = store.submit_many(good, NOW).await.expect("recorded");
    assert_eq!(outcomes, vec![Submit::Created; 100]);

    let bad_one = NewSubmission {
        form: "nothing".into(),
        ..submission(new_id())
    };
    let bulk = vec![submission(new_id()), bad_one];
    assert!(matches!(
        store.submit_many(bulk, NOW).await,
        Err(Error::UnknownForm { .. })
    ));
    let all = store.submissions(None, page(1_000, None)).await.expect("listed");
    assert_eq!(all.items.len(), 100);
    let stats = store.pool_stats(NOW).await.expect("read");
    assert_eq!(stats[1].available, 100, "what was rolled back is not counted");
}

pub(crate) async fn a_form_without_steps_is_done_at_once(store: &dyn Store) {
    publish(store, vec![]).await;
    let mut events = store.subscribe();
    let id = submit(store).await;
    assert_eq!(status(store, id).await, SubmissionStatus::Done);
    assert_eq!(
        events.recv().await.expect("an event"),
        StoreEvent::SubmissionSettled { id }
    );
}

pub(crate) async fn one_megabyte_comes_back_byte_for_byte(store: &dyn Store) {
    publish(store, vec![Step::new("check"), Step::new("archive")]).await;
    let text = "ä\u{0}\"😀\\ ".repeat(100_000);
    let data = serde_json::json!({ "message": text }).to_string();
    assert!(data.len() > 1 << 20);
    let id = new_id();
    let big = NewSubmission {
        data: data.clone(),
        ..submission(id)
    };
    store.submit(big, NOW).await.expect("recorded");

    let claimed = claim_one(store, NOW).await;
    assert!(claimed.data == data, "the worker gets the same bytes");
    store
        .complete(claimed.id, claimed.run_lease, result(&data), NOW)
        .await
        .expect("recorded");
    let next = claim_one(store, NOW).await;
    assert!(next.outputs[0].output == data, "the next worker gets the same output");
    let view = store.submission(id).await.expect("read").expect("exists");
    assert!(view.data == data);
}

pub(crate) async fn what_just_fits_comes_back_and_what_is_larger_is_refused(store: &dyn Store) {
    let fits = "x".repeat(limits::DOCUMENT_BYTES);
    let large = "x".repeat(limits::DOCUMENT_BYTES + 1);
    let refused = |error: Error, part: &str| match error {
        Error::TooLarge { what, bytes, most } => {
            assert_eq!((what, bytes, most), (part, large.len(), limits::DOCUMENT_BYTES));
        }
        other => panic!("{part}: {other}"),
    };
    publish(store, vec![Step::new("archive")]).await;
    let with = |data: &str| NewSubmission {
        data: data.to_owned(),
        ..submission(new_id())
    };
    refused(store.submit(with(&large), NOW).await.unwrap_err(), "submission");
    let half = "x".repeat(limits::DOCUMENT_BYTES / 2);
    let bulk = vec![with(&half), with(&format!("{half}y"))];
    refused(store.submit_many(bulk, NOW).await.unwrap_err(), "submission");
    let definition = NewForm {
        definition: large.clone(),
        ..form(vec![])
    };
    refused(store.put_form(definition, NOW).await.unwrap_err(), "form definition");

    store.submit(with(&fits), NOW).await.expect("just fits");
    let task = claim_one(store, NOW).await;
    assert!(task.data == fits, "the data is what was sent");
    let both = |output: &str| TaskResult {
        output: output.to_owned(),
        ..export(half.as_bytes())
    };
    let (most, more) = (both(&half), both(&format!("{half}y")));
    for of in [result(&large), more] {
        let error = store.complete(task.id, task.run_lease, of, NOW).await;
        refused(error.unwrap_err(), "result");
    }
    let record = store.complete(task.id, task.run_lease, most, NOW).await;
    assert_eq!(record.expect("just fits"), Record::Recorded);
    let view = store.task(task.id).await.expect("read").expect("exists");
    assert!(
        view.result.expect("has a result").output == half,
        "the output comes back"
    );
    let chunks = store.export_chunks(FORM, 1, "archive", 0, 1).await.expect("read");
    assert!(chunks[0].bytes == half.as_bytes(), "the chunk comes back");
    assert!(
        claim(store, Pool::Default, 10, NOW).await.is_empty(),
        "nothing else was recorded"
    );
}

pub(crate) async fn submissions_are_paged_newest_first(store: &dyn Store) {
    publish(store, vec![]).await;
    let other = NewForm {
        id: "survey".into(),
        ..form(vec![])
    };
    store.put_form(other, NOW).await.expect("published");
    let mut ids = Vec::new();
    for index in 0..7 {
        let id = new_id();
        let form = if index == 3 { "survey" } else { FORM };
        let new = NewSubmission {
            form: form.into(),
            ..submission(id)
        };
        store.submit(new, NOW).await.expect("recorded");
        ids.push(id);
    }
    ids.reverse();

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let part = store.submissions(None, page(3, after)).await.expect("listed");
        seen.extend(part.items.iter().map(|submission| submission.id));
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids);

    let first = store.submissions(Some(FORM), page(4, None)).await.expect("listed");
    let second = store
        .submissions(Some(FORM), page(4, first.next))
        .await
        .expect("listed");
    assert_eq!((first.items.len(), second.items.len()), (4, 2));
    assert_eq!(second.next, None);
    assert!(
        second
            .items
            .iter()
            .chain(&first.items)
            .all(|submission| submission.form == FORM)
    );
}

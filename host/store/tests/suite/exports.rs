use super::*;

pub(crate) async fn chunks_are_recorded_exactly_once(store: &dyn Store) {
    publish(store, vec![Step::new("archive")]).await;
    submit(store).await;
    let mut now = NOW;
    let mut leases = Vec::new();
    for _ in 0..3 {
        let task = claim_one(store, now).await;
        leases.push((task.id, task.run_lease));
        now = now.plus(LEASE_MS);
        store.reap(now, 100).await.expect("reaped");
    }
    let last = claim_one(store, now).await;
    leases.push((last.id, last.run_lease));
    let all = leases.iter().chain(&leases);
    let ends = all.map(|(id, lease)| store.complete(*id, *lease, export(&[lease.0 as u8]), now));
    for record in futures::future::join_all(ends).await {
        record.expect("answered");
    }
    let chunks = store.export_chunks(FORM, 1, "archive", 0, 100).await.expect("read");
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].bytes, [last.run_lease.0 as u8]);
    assert_eq!(chunks[0].submission, last.id.submission);
}

pub(crate) async fn chunks_are_read_in_order_from_a_sequence(store: &dyn Store) {
    publish(store, vec![Step::new("archive"), Step::new("other")]).await;
    for index in 0..10_u8 {
        submit(store).await;
        for bytes in [&[index][..], b"other"] {
            let task = claim_one(store, NOW).await;
            let record = store.complete(task.id, task.run_lease, export(bytes), NOW).await;
            record.expect("recorded");
        }
    }
    let mut read = Vec::new();
    let mut after = 0;
    loop {
        let part = store.export_chunks(FORM, 1, "archive", after, 3).await.expect("read");
        let Some(last) = part.last() else { break };
        assert!(last.sequence > after);
        after = last.sequence;
        read.extend(part.into_iter().map(|chunk| chunk.bytes[0]));
    }
    assert_eq!(read, (0..10).collect::<Vec<u8>>());
    assert!(
        store
            .export_chunks(FORM, 2, "archive", 0, 3)
            .await
            .expect("read")
            .is_empty()
    );
}

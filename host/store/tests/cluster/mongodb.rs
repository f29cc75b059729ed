//! What MongoDB may suffer: being away. What it acknowledged it must keep.

use formwork_store::{Beat, Error, HeartbeatReply, Record, Store as _, cluster::ClusterStore};
use formwork_test_servers::{Server, shared};
use mongodb::bson::{Document, doc};
use std::time::Duration;

use crate::ledger::{POOLS, result};
use crate::world::{CALLER, World, submit, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mongodb_that_is_killed_in_the_middle_of_work_loses_nothing() {
    let (mut mongodb, redis) = (Server::mongodb(), Server::redis(&[]));
    let mut world = World::new(&mongodb.uri(), &redis.uri());
    let (first, second) = (world.node().await, world.node().await);
    world.publish(&*first).await;
    world.work(&first, "first");
    world.work(&second, "second");
    for store in [&first, &first, &second, &second] {
        world.client(store);
    }
    for _ in 0..2 {
        world.progress(10).await;
        mongodb.kill();
        mongodb.start_again();
    }
    world.progress(10).await;
    world.end(&*first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_while_mongodb_is_away() {
    let (mut mongodb, redis) = (Server::mongodb(), Server::redis(&[]));
    let world = World::new(&mongodb.uri(), &redis.uri());
    let store = world.node().await;
    world.publish(&*store).await;
    mongodb.kill();
    let refused = store.ready().await.expect_err("is not ready");
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    mongodb.start_again();
    store.ready().await.expect("is ready again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standalone_mongodb_is_refused() {
    let mongodb = Server::mongodb_standalone();
    let world = World::new(&mongodb.uri(), &shared().redis);
    let refused = ClusterStore::open(world.options()).await.err().expect("is refused");
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
    let text = refused.to_string();
    for part in ["standalone", "replica set", "rs.initiate()"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_within_a_transaction_does_not_keep_its_task_locked() {
    let world = World::new(&shared().mongodb, &shared().redis);
    let store = world.node().await;
    world.publish(&*store).await;
    submit(&*store, &world.ledger).await;
    let tasks = store.claim(POOLS[0], "gone", 1, 1, CALLER).await.expect("claims");
    assert_eq!(tasks.len(), 1);

    let options = world.options();
    let client = mongodb::Client::with_uri_str(&shared().mongodb)
        .await
        .expect("connects");
    let database = client.database(&options.database);
    let nodes = database.collection::<Document>("nodes");
    let living = nodes
        .find_one(doc! {})
        .await
        .expect("reads")
        .expect("the node made itself known");
    let sessions = living.get_array("sessions").expect("has sessions");
    assert!(!sessions.is_empty(), "{living}");

    // What such a node leaves behind: a transaction that nobody ends, and the word of its session.
    let mut session = client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let lock = database.collection::<Document>("tasks");
    let lock = lock.update_one(doc! { "state": "running" }, doc! { "$set": { "worker": "gone, too" } });
    let locked = lock.session(&mut session).await.expect("locks the task");
    assert_eq!(locked.matched_count, 1);
    let gone = doc! { "_id": "gone", "sessions": [session.id().get("id")], "at": 0_i64 };
    nodes.insert_one(gone).await.expect("says that it lived");

    // MongoDB itself would end the transaction after a minute.
    let taken_back = until("the task is taken back", async || {
        store.reap(CALLER, 9).await.is_ok_and(|reaped| reaped.len() == 1)
    });
    tokio::time::timeout(Duration::from_secs(30), taken_back)
        .await
        .expect("long before MongoDB's own limit");
    session
        .commit_transaction()
        .await
        .expect_err("the transaction was ended");
    let left = nodes.find_one(doc! { "_id": "gone" }).await.expect("reads");
    assert_eq!(left, None, "a node that is gone is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_locked_keeps_no_other_run_from_being_prolonged() {
    const LEASE_MS: u64 = 3_000;
    let world = World::new(&shared().mongodb, &shared().redis);
    let store = world.node().await;
    world.publish(&*store).await;
    for _ in 0..3 {
        submit(&*store, &world.ledger).await;
    }
    let tasks = store
        .claim(POOLS[0], "worker", 3, LEASE_MS, CALLER)
        .await
        .expect("claims");
    assert_eq!(tasks.len(), 3);
    let beats: Vec<Beat> = tasks.iter().map(|task| Beat::new(task.id, task.run_lease)).collect();

    let client = mongodb::Client::with_uri_str(&shared().mongodb)
        .await
        .expect("connects");
    let lock = client
        .database(&world.options().database)
        .collection::<Document>("tasks");
    let mut session = client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let key = doc! { "_id": format!("{}-{:05}", tasks[0].id.submission, tasks[0].id.step) };
    let locked = lock
        .update_one(key, doc! { "$set": { "worker": "busy" } })
        .session(&mut session);
    assert_eq!(locked.await.expect("locks the task").matched_count, 1);

    // Whichever of them stands before the locked one is prolonged, so in the end all but that one are.
    let mut prolonged = std::collections::BTreeSet::new();
    until("the others are prolonged", async || {
        let reply = store.heartbeat(&beats, LEASE_MS, CALLER).await.unwrap_or_else(|_| {
            let missed = tasks.iter().map(|task| task.id).collect();
            HeartbeatReply {
                missed,
                ..HeartbeatReply::default()
            }
        });
        assert_eq!((&reply.lost, &reply.cancel), (&vec![], &vec![]));
        assert!(reply.missed.contains(&tasks[0].id), "it is locked: {reply:?}");
        prolonged.extend(tasks.iter().map(|task| task.id).filter(|id| !reply.missed.contains(id)));
        prolonged.len() == 2
    })
    .await;
    session.abort_transaction().await.expect("aborts");
    let reply = store.heartbeat(&beats, LEASE_MS, CALLER).await.expect("answered");
    assert_eq!(reply, HeartbeatReply::default(), "all are prolonged");
}

/// A transaction that wrote its task at its end would be undone by each of them, until it gave up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_recorded_while_heartbeats_for_it_come_without_a_pause() {
    const LEASE_MS: u64 = 60_000;
    let world = World::new(&shared().mongodb, &shared().redis);
    let (store, other) = (world.node().await, world.node().await);
    world.publish(&*store).await;
    submit(&*store, &world.ledger).await;
    let tasks = store.claim(POOLS[0], "worker", 1, LEASE_MS, CALLER).await;
    let task = tasks.expect("claims").pop().expect("a task waits");
    let beats = [Beat::new(task.id, task.run_lease)];
    // From another node: the one that records a run sends no heartbeat for it.
    let endless = async {
        loop {
            let _ = other.heartbeat(&beats, LEASE_MS, CALLER).await;
        }
    };
    let recorded = tokio::select! {
        recorded = store.complete(task.id, task.run_lease, result(&task), CALLER) => recorded,
        () = endless => unreachable!("it has no end"),
    };
    assert_eq!(recorded.expect("is recorded all the same"), Record::Recorded);
}

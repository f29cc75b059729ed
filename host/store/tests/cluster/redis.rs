//! What Redis may suffer: everything. It holds an index, and MongoDB is asked where it is of no use.

use formwork_store::{Error, Store as _, cluster::ClusterStore};
use formwork_test_servers::{Server, shared};
use redis::Client;
use std::sync::Arc;

use crate::world::{World, submit, until};

/// Two nodes that work, and clients of both.
async fn working(redis: &Server) -> (World, Arc<ClusterStore>) {
    let mut world = World::new(&shared().mongodb, &redis.uri());
    let (first, second) = (world.node().await, world.node().await);
    world.publish(&*first).await;
    world.work(&first, "first");
    world.work(&second, "second");
    for store in [&first, &first, &second, &second] {
        world.client(store);
    }
    world.progress(5).await;
    (world, first)
}

/// Sends a command to Redis, as an operator would.
async fn send(redis: &Server, command: &[&str]) -> redis::RedisResult<String> {
    let client = Client::open(redis.uri())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut sent = redis::cmd(command[0]);
    sent.arg(&command[1..]);
    let answer: redis::Value = sent.query_async(&mut connection).await?;
    Ok(format!("{answer:?}"))
}

/// Waits until the index is used again.
async fn whole(world: &World, redis: &Server) {
    until("the index is whole", async || {
        let answer = send(redis, &["EXISTS", &world.epoch()]).await;
        answer.is_ok_and(|answer| answer == "int(1)")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_in_the_middle_of_work_loses_nothing() {
    let redis = Server::redis(&[]);
    let (world, store) = working(&redis).await;
    for _ in 0..3 {
        send(&redis, &["FLUSHALL"]).await.unwrap();
        world.progress(5).await;
        whole(&world, &redis).await;
        world.progress(5).await;
    }
    world.end(&*store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn script_flush_in_the_middle_of_work_loses_nothing() {
    let redis = Server::redis(&[]);
    let (world, store) = working(&redis).await;
    whole(&world, &redis).await;
    for _ in 0..10 {
        send(&redis, &["SCRIPT", "FLUSH", "SYNC"]).await.unwrap();
        world.progress(2).await;
    }
    world.end(&*store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_restarts_of_an_empty_redis_lose_nothing() {
    fifty_restarts(Server::redis(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_restarts_of_a_redis_with_its_file_lose_nothing() {
    // Its file is some writes behind when it is killed, and its index with it.
    fifty_restarts(Server::redis(&["--appendonly", "yes", "--appendfsync", "everysec"])).await;
}

async fn fifty_restarts(mut redis: Server) {
    let (world, store) = working(&redis).await;
    for restart in 1..=50 {
        redis.kill();
        // A start takes some ten milliseconds, noticing that it is away or back up to a second: most restarts meet nodes
        // that are still busy with the one before.
        if restart % 5 == 0 {
            world.progress(1).await;
        }
        redis.start_again();
        if restart % 25 == 0 {
            whole(&world, &redis).await;
            world.progress(1).await;
        }
    }
    world.end(&*store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_redis_answers_nothing() {
    let redis = Server::redis(&[]);
    let (world, store) = working(&redis).await;
    // Longer than the nodes wait for an answer: what it hands out when it goes on is handed out to nobody.
    send(&redis, &["CLIENT", "PAUSE", "2500", "ALL"]).await.unwrap();
    world.progress(5).await;
    whole(&world, &redis).await;
    world.progress(5).await;
    redis.freeze();
    world.progress(5).await;
    redis.thaw();
    world.end(&*store).await;
}

/// A worker's own runtime may do no I/O: what it calls must not connect on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_whose_runtime_does_no_io_does_not_break_the_connection() {
    let mut redis = Server::redis(&[]);
    let mut world = World::new(&shared().mongodb, &redis.uri());
    let store = world.node().await;
    world.publish(&*store).await;
    redis.kill();
    redis.start_again();
    let (caller, ledger) = (Arc::clone(&store), Arc::clone(&world.ledger));
    let called = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(submit(&*caller, &ledger));
    });
    called.await.expect("is answered");
    whole(&world, &redis).await;
    world.work(&store, "worker");
    world.end(&*store).await;
}

/// One node only submits, the other one only works: what the first cannot tell Redis the second must find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_while_redis_is_full() {
    let redis = Server::redis(&[]);
    let mut world = World::new(&shared().mongodb, &redis.uri());
    let (api, worker) = (world.node().await, world.node().await);
    world.publish(&*api).await;
    whole(&world, &redis).await;
    send(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await.unwrap();
    world.work(&worker, "worker");
    world.client(&api);
    world.client(&api);
    world.progress(15).await;
    send(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await.unwrap();
    whole(&world, &redis).await;
    world.progress(5).await;
    world.end(&*api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_would_evict_tasks_is_refused() {
    let redis = Server::redis(&["--maxmemory-policy", "allkeys-lru"]);
    let world = World::new(&shared().mongodb, &redis.uri());
    for policy in ["allkeys-lru", "volatile-ttl"] {
        send(&redis, &["CONFIG", "SET", "maxmemory-policy", policy])
            .await
            .unwrap();
        let refused = ClusterStore::open(world.options()).await.err().expect("is refused");
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
        let text = refused.to_string();
        assert!(
            text.contains(policy) && text.contains("maxmemory-policy noeviction"),
            "{text}"
        );
    }
    // Once it is set right the same command works.
    send(&redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await
        .unwrap();
    let store = ClusterStore::open(world.options()).await.expect("store opens");
    store.close().await;
}

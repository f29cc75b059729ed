//! What MongoDB may suffer: being away. What it acknowledged it must keep.

use formwork_store::{Error, Store as _, cluster::ClusterStore};
use formwork_test_servers::{Server, shared};

use crate::world::World;

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

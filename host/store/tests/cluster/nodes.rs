//! Nodes that want the same tasks.

use formwork_store::Store as _;
use formwork_test_servers::{Server, shared};

use crate::world::{World, submit};

/// With the index, and without it, where all of them look for the first waiting task in MongoDB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_race_for_the_same_tasks_take_each_once() {
    const SUBMISSIONS: usize = 30;
    let mut gone = Server::redis(&[]);
    gone.kill();
    for redis in [shared().redis.clone(), gone.uri()] {
        let mut world = World::new(&shared().mongodb, &redis);
        let (first, second) = (world.node().await, world.node().await);
        world.publish(&*first).await;
        let ledger = std::sync::Arc::clone(&world.ledger);
        futures::future::join_all((0..SUBMISSIONS).map(|_| submit(&*first, &ledger))).await;
        // Only now, so that all of them find all of the tasks.
        for name in ["a", "b", "c"] {
            world.work(&first, &format!("first-{name}"));
            world.work(&second, &format!("second-{name}"));
        }
        world.end(&*second).await;
        second.close().await;
    }
}

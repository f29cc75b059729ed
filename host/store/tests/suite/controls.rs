use super::*;
use formwork_store::{PoolControl, PoolControlChange, StoreEvent};

pub(crate) async fn a_control_is_kept_and_told(store: &dyn Store) {
    let controls = store.pool_controls().await.expect("read");
    assert_eq!(controls, Pool::ALL.map(|pool| (pool, PoolControl::default())));
    let mut events = store.subscribe();
    let change = PoolControlChange {
        paused: Some(true),
        cpus: Some(Some(0.5)),
        burst: Some(Some(true)),
        permits: Some(Some(3)),
    };
    let set = store
        .set_pool_control(Pool::Batched, change, NOW)
        .await
        .expect("is set");
    let wanted = PoolControl {
        paused: true,
        cpus: Some(0.5),
        burst: Some(true),
        permits: Some(3),
    };
    assert_eq!(set, wanted);
    assert_eq!(events.recv().await.expect("an event"), StoreEvent::ControlsChanged);
    let controls = store.pool_controls().await.expect("read");
    let others = [Pool::High, Pool::Default].map(|pool| (pool, PoolControl::default()));
    assert_eq!(controls[..2], others);
    assert_eq!(controls[2], (Pool::Batched, wanted));
}

pub(crate) async fn changes_to_one_pool_do_not_undo_each_other(store: &dyn Store) {
    let pause = PoolControlChange {
        paused: Some(true),
        ..PoolControlChange::default()
    };
    let limit = PoolControlChange {
        cpus: Some(Some(1.5)),
        ..PoolControlChange::default()
    };
    let both = [pause, limit].map(|change| store.set_pool_control(Pool::High, change, NOW));
    for set in futures::future::join_all(both).await {
        set.expect("is set");
    }
    let high = |controls: Vec<(Pool, PoolControl)>| controls[0].1;
    let control = high(store.pool_controls().await.expect("read"));
    assert_eq!((control.paused, control.cpus), (true, Some(1.5)));

    let back = PoolControlChange {
        cpus: Some(None),
        ..PoolControlChange::default()
    };
    store.set_pool_control(Pool::High, back, NOW).await.expect("is set");
    let control = high(store.pool_controls().await.expect("read"));
    assert_eq!(
        (control.paused, control.cpus),
        (true, None),
        "back to what is configured"
    );
}

use super::*;
use formwork_store::{NewPlugin, PutPlugin, StoreEvent};

fn plugin(version: &str, component: &[u8]) -> NewPlugin {
    NewPlugin {
        name: "classify".into(),
        version: version.into(),
        digest: format!("sha256:{component:?}"),
        component: component.to_vec(),
    }
}

pub(crate) async fn pushed_plugins_are_kept_byte_for_byte(store: &dyn Store) {
    assert!(store.plugins().await.expect("listed").is_empty());
    let mut events = store.subscribe();
    // Above the size at which a document database splits a file.
    let large: Vec<u8> = (0..20_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let first = NewPlugin {
        digest: "sha256:large".into(),
        ..plugin("1.0.0", &large)
    };
    assert_eq!(store.put_plugin(first, NOW).await.expect("kept"), PutPlugin::Created);
    assert_eq!(events.recv().await.expect("an event"), StoreEvent::PluginsChanged);
    let second = store.put_plugin(plugin("1.1.0", b"small"), NOW.plus(1)).await;
    assert_eq!(second.expect("kept"), PutPlugin::Created);

    let listed = store.plugins().await.expect("listed");
    let seen: Vec<_> = listed
        .iter()
        .map(|plugin| (plugin.version.as_str(), plugin.bytes))
        .collect();
    assert_eq!(seen, [("1.0.0", 20_000_000), ("1.1.0", 5)]);
    assert_eq!(listed[0].created_at, NOW);
    let read = store
        .plugin_component("sha256:large")
        .await
        .expect("read")
        .expect("exists");
    assert!(read == large, "the component came back changed");
    assert_eq!(store.plugin_component("sha256:none").await.expect("read"), None);
}

pub(crate) async fn a_plugin_version_is_taken_once(store: &dyn Store) {
    let put = |bytes: &'static [u8]| store.put_plugin(plugin("1.0.0", bytes), NOW);
    assert_eq!(put(b"one").await.expect("kept"), PutPlugin::Created);
    assert_eq!(put(b"one").await.expect("answered"), PutPlugin::Unchanged);
    let digest = plugin("1.0.0", b"one").digest;
    assert_eq!(put(b"two").await.expect("answered"), PutPlugin::VersionTaken { digest });
    assert_eq!(store.plugins().await.expect("listed").len(), 1);

    // Two nodes push different files of one version at the same time.
    let race = futures::future::join_all(
        [b"three", b"four!"].map(|bytes: &[u8; 5]| store.put_plugin(plugin("2.0.0", bytes), NOW)),
    );
    let created = race
        .await
        .into_iter()
        .filter(|put| matches!(put, Ok(PutPlugin::Created)));
    assert_eq!(created.count(), 1);
}

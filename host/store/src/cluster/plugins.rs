//! Pushed plugins. A component is larger than a document may be, so it lies in parts, which are written first: whoever
//! sees the plugin finds them all. Parts of a push that was cut off are overwritten by the next one with that digest.

use super::{
    database::{Abort, Database, Operation, failed},
    unit::Unit,
};
use crate::{Error, NewPlugin, PutPlugin, Result, StoreEvent, StoredPlugin, limits};
use async_trait::async_trait;
use formwork_tasks::Millis;
use futures::TryStreamExt as _;
use mongodb::bson::{Binary, Bson, doc, spec::BinarySubtype};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct PluginDocument {
    #[serde(rename = "_id")]
    key: PluginKey,
    digest: String,
    bytes: i64,
    created_at: i64,
}

#[derive(Serialize, Deserialize)]
struct PluginKey {
    name: String,
    version: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PartDocument {
    #[serde(rename = "_id")]
    key: PartKey,
    bytes: Binary,
}

#[derive(Serialize, Deserialize)]
struct PartKey {
    digest: String,
    part: i64,
}

/// Writes the parts of a component.
pub(super) async fn write_parts(database: &Database, plugin: &NewPlugin) -> Result<()> {
    for (part, bytes) in (0_i64..).zip(plugin.component.chunks(limits::PLUGIN_PART_BYTES)) {
        let id = doc! { "_id": { "digest": &plugin.digest, "part": part } };
        let document = PartDocument {
            key: PartKey {
                digest: plugin.digest.clone(),
                part,
            },
            bytes: Binary {
                subtype: BinarySubtype::Generic,
                bytes: bytes.to_vec(),
            },
        };
        let replace = database.plugin_parts.replace_one(id, document).upsert(true);
        replace.await.map_err(failed("put plugin"))?;
    }
    Ok(())
}

/// Makes a plugin known whose parts are written.
pub(super) struct Put {
    pub(super) plugin: NewPlugin,
}

#[async_trait]
impl Operation for Put {
    type Output = PutPlugin;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<PutPlugin, Abort> {
        let NewPlugin {
            name,
            version,
            digest,
            component,
        } = &self.plugin;
        let plugins = unit.database.plugins.clone();
        let id = doc! { "_id": { "name": name, "version": version } };
        if let Some(held) = unit.find(&plugins, id).await?.pop() {
            return Ok(if held.digest == *digest {
                PutPlugin::Unchanged
            } else {
                PutPlugin::VersionTaken { digest: held.digest }
            });
        }
        let document = PluginDocument {
            key: PluginKey {
                name: name.clone(),
                version: version.clone(),
            },
            digest: digest.clone(),
            bytes: i64::try_from(component.len()).unwrap_or(i64::MAX),
            created_at: unit.now.0,
        };
        unit.insert(&plugins, &[document]).await?;
        unit.tell(StoreEvent::PluginsChanged);
        Ok(PutPlugin::Created)
    }
}

/// Every pushed plugin, oldest first.
pub(super) async fn list(database: &Database) -> Result<Vec<StoredPlugin>> {
    let find = database.plugins.find(doc! {}).sort(doc! { "created_at": 1, "_id": 1 });
    let cursor = find.await.map_err(failed("list plugins"))?;
    let documents: Vec<PluginDocument> = cursor.try_collect().await.map_err(failed("list plugins"))?;
    let stored = |document: PluginDocument| StoredPlugin {
        name: document.key.name,
        version: document.key.version,
        digest: document.digest,
        bytes: u64::try_from(document.bytes).unwrap_or(0),
        created_at: Millis(document.created_at),
    };
    Ok(documents.into_iter().map(stored).collect())
}

/// The component with this digest.
pub(super) async fn component(database: &Database, digest: &str) -> Result<Option<Vec<u8>>> {
    let known = database.plugins.find_one(doc! { "digest": digest }).await;
    let Some(known) = known.map_err(failed("read plugin"))? else {
        return Ok(None);
    };
    let least = doc! { "digest": digest, "part": Bson::MinKey };
    let most = doc! { "digest": digest, "part": Bson::MaxKey };
    let find = database
        .plugin_parts
        .find(doc! { "_id": { "$gt": least, "$lt": most } });
    let cursor = find.sort(doc! { "_id": 1 }).await.map_err(failed("read plugin"))?;
    let parts: Vec<PartDocument> = cursor.try_collect().await.map_err(failed("read plugin"))?;
    let component: Vec<u8> = parts.into_iter().flat_map(|part| part.bytes.bytes).collect();
    if i64::try_from(component.len()) != Ok(known.bytes) {
        let why = format!("{digest} has {} bytes of {}", component.len(), known.bytes);
        return Err(Error::backend("read plugin", why));
    }
    Ok(Some(component))
}

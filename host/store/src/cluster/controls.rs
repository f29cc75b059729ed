//! What operators have set for the pools: a document for each pool.

use super::{
    database::{Abort, Database, Operation, failed},
    unit::Unit,
};
use crate::{PoolControl, PoolControlChange, Result, StoreEvent};
use async_trait::async_trait;
use formwork_tasks::Pool;
use futures::TryStreamExt as _;
use mongodb::bson::doc;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(super) struct ControlDocument {
    #[serde(rename = "_id")]
    pool: Pool,
    paused: bool,
    cpus: Option<f64>,
    burst: Option<bool>,
    permits: Option<i64>,
    changed_at: i64,
}

impl ControlDocument {
    fn control(&self) -> PoolControl {
        PoolControl {
            paused: self.paused,
            cpus: self.cpus,
            burst: self.burst,
            permits: self.permits.and_then(|permits| u32::try_from(permits).ok()),
        }
    }
}

/// The control of every pool.
pub(super) async fn all(database: &Database) -> Result<Vec<(Pool, PoolControl)>> {
    let cursor = database
        .controls
        .find(doc! {})
        .await
        .map_err(failed("read pool controls"))?;
    let set: Vec<ControlDocument> = cursor.try_collect().await.map_err(failed("read pool controls"))?;
    let of = |pool: Pool| set.iter().find(|document| document.pool == pool);
    Ok(Pool::ALL
        .into_iter()
        .map(|pool| (pool, of(pool).map(ControlDocument::control).unwrap_or_default()))
        .collect())
}

/// Changes the control of one pool.
pub(super) struct Set {
    pub(super) pool: Pool,
    pub(super) change: PoolControlChange,
}

#[async_trait]
impl Operation for Set {
    type Output = PoolControl;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<PoolControl, Abort> {
        let controls = unit.database.controls.clone();
        let id = || doc! { "_id": self.pool.as_str() };
        let found = unit.find(&controls, id()).await?;
        let before = found.first().map(ControlDocument::control).unwrap_or_default();
        let control = self.change.applied_to(before);
        let document = ControlDocument {
            pool: self.pool,
            paused: control.paused,
            cpus: control.cpus,
            burst: control.burst,
            permits: control.permits.map(i64::from),
            changed_at: unit.now.0,
        };
        let replace = controls.replace_one(id(), document).upsert(true);
        replace.session(&mut unit.session).await?;
        unit.tell(StoreEvent::ControlsChanged);
        Ok(control)
    }
}

//! Pipelines of form versions, kept in memory. Versions never change, so nothing expires.

use super::{database::Database, database::failed};
use crate::{Error, Result, limits};
use formwork_tasks::{Plan, Step};
use mongodb::bson::doc;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Plans by form and version.
#[derive(Default)]
pub(super) struct Plans {
    by_version: Mutex<HashMap<(String, u32), Arc<Plan>>>,
}

impl Database {
    /// The plan of a form version. Read outside transactions: what a majority has seen never changes.
    pub(super) async fn plan(&self, form: &str, version: u32) -> Result<Arc<Plan>> {
        let key = (form.to_owned(), version);
        let cached = |plans: &Plans| {
            let by_version = plans.by_version.lock().unwrap_or_else(PoisonError::into_inner);
            by_version.get(&key).cloned()
        };
        if let Some(plan) = cached(&self.plans) {
            return Ok(plan);
        }
        let filter = doc! { "_id": { "form": form, "version": i64::from(version) } };
        let found = self.forms.find_one(filter).await.map_err(failed("read form"))?;
        let found = found.ok_or_else(|| Error::UnknownForm {
            id: form.to_owned(),
            version: Some(version),
        })?;
        let steps: Vec<Step> =
            serde_json::from_str(&found.steps).map_err(|error| Error::backend("read form", error))?;
        let plan = Arc::new(Plan::try_new(steps)?);
        let mut by_version = self.plans.by_version.lock().unwrap_or_else(PoisonError::into_inner);
        if by_version.len() >= limits::PLANS {
            by_version.clear();
        }
        by_version.insert(key, Arc::clone(&plan));
        Ok(plan)
    }
}

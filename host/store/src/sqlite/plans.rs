//! Pipelines of form versions, kept in the writer's memory. Versions never change, so nothing expires.

use super::failure::sql;
use crate::{Error, Result, limits};
use formwork_tasks::{Plan, Step};
use rusqlite::{Connection, OptionalExtension, params};
use std::{collections::HashMap, sync::Arc};

/// Plans by form and version.
#[derive(Default)]
pub(super) struct Plans {
    by_form: HashMap<String, HashMap<u32, Arc<Plan>>>,
    count: usize,
}

impl Plans {
    /// The plan of a form version.
    pub(super) fn get(&mut self, connection: &Connection, form: &str, version: u32) -> Result<Arc<Plan>> {
        if let Some(plan) = self.by_form.get(form).and_then(|versions| versions.get(&version)) {
            return Ok(Arc::clone(plan));
        }
        let steps: Option<String> = connection
            .prepare_cached("SELECT steps FROM forms WHERE id = ?1 AND version = ?2")
            .and_then(|mut statement| statement.query_row(params![form, version], |row| row.get(0)).optional())
            .map_err(sql("read form"))?;
        let Some(steps) = steps else {
            return Err(Error::UnknownForm {
                id: form.to_owned(),
                version: Some(version),
            });
        };
        let steps: Vec<Step> = serde_json::from_str(&steps).map_err(|error| Error::backend("read form", error))?;
        let plan = Arc::new(Plan::try_new(steps)?);
        if self.count >= limits::PLANS {
            self.clear();
        }
        self.count += 1;
        self.by_form
            .entry(form.to_owned())
            .or_default()
            .insert(version, Arc::clone(&plan));
        Ok(plan)
    }

    /// Forgets everything: after a rollback a version read inside it may never have existed.
    pub(super) fn clear(&mut self) {
        self.by_form.clear();
        self.count = 0;
    }
}

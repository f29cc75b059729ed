//! Forms and their versions.

use super::{
    database::{Abort, Database, Operation, failed},
    documents::{FormDocument, FormKey, HeadDocument},
    unit::Unit,
};
use crate::{Error, FormSummary, FormVersion, NewForm, Page, Paged, PutForm, Result, paging};
use async_trait::async_trait;
use formwork_tasks::Plan;
use futures::TryStreamExt as _;
use mongodb::bson::doc;

/// Publishes a definition, unless it is the latest version already.
pub(super) struct Put {
    pub(super) form: NewForm,
}

#[async_trait]
impl Operation for Put {
    type Output = PutForm;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<PutForm, Abort> {
        let form = &self.form;
        let plan = Plan::try_new(form.steps.clone()).map_err(Error::from)?;
        let database = unit.database;
        let latest = unit.find(&database.heads, doc! { "_id": &form.id }).await?.pop();
        if let Some(latest) = &latest
            && latest.digest == form.digest
        {
            return Ok(PutForm::Unchanged(version(latest.version)?));
        }
        let steps = serde_json::to_string(plan.steps()).map_err(|error| Error::backend("write form", error))?;
        let next = latest.as_ref().map_or(1, |latest| latest.version + 1);
        let document = FormDocument {
            key: FormKey {
                form: form.id.clone(),
                version: next,
            },
            digest: form.digest.clone(),
            created_at: unit.now.0,
            steps,
            definition: form.definition.clone(),
        };
        let head = HeadDocument {
            form: form.id.clone(),
            version: next,
            digest: form.digest.clone(),
            created_at: unit.now.0,
        };
        unit.insert(&database.forms, &[document]).await?;
        match latest {
            None => unit.insert(&database.heads, &[head]).await?,
            Some(latest) => {
                let filter = doc! { "_id": &form.id, "version": latest.version };
                let replace = database.heads.replace_one(filter, head);
                if replace.session(&mut unit.session).await?.matched_count != 1 {
                    return Err(Abort::Conflict);
                }
            }
        }
        Ok(PutForm::Created(version(next)?))
    }
}

fn version(number: i64) -> Result<u32> {
    u32::try_from(number).map_err(|error| Error::backend("read form version", error))
}

/// One version, or the latest.
pub(super) async fn get(database: &Database, id: &str, version: Option<u32>) -> Result<Option<FormVersion>> {
    let version = match version {
        Some(version) => i64::from(version),
        None => {
            let head = database.heads.find_one(doc! { "_id": id });
            match head.await.map_err(failed("read form"))? {
                Some(head) => head.version,
                None => return Ok(None),
            }
        }
    };
    let filter = doc! { "_id": { "form": id, "version": version } };
    let found = database.forms.find_one(filter).await.map_err(failed("read form"))?;
    found.map(FormDocument::into_version).transpose()
}

/// The latest version of every form, by name.
pub(super) async fn list(database: &Database, page: &Page) -> Result<Paged<FormSummary>> {
    let after = page.after.as_deref().unwrap_or("");
    let find = database
        .heads
        .find(doc! { "_id": { "$gt": after } })
        .sort(doc! { "_id": 1 });
    let cursor = find
        .limit(paging::fetch(page).into())
        .await
        .map_err(failed("list forms"))?;
    let heads: Vec<HeadDocument> = cursor.try_collect().await.map_err(failed("list forms"))?;
    let items = heads
        .into_iter()
        .map(HeadDocument::into_summary)
        .collect::<Result<_>>()?;
    Ok(paging::paged(page, items, |form: &FormSummary| form.id.clone()))
}

/// Every version of a form, oldest first.
pub(super) async fn versions(database: &Database, id: &str) -> Result<Vec<FormSummary>> {
    #[derive(serde::Deserialize)]
    struct Row {
        #[serde(rename = "_id")]
        key: FormKey,
        digest: String,
        created_at: i64,
    }
    let least = doc! { "form": id, "version": 0_i64 };
    let most = doc! { "form": id, "version": i64::MAX };
    let find = database.forms.find(doc! { "_id": { "$gt": least, "$lt": most } });
    let find = find
        .projection(doc! { "digest": 1, "created_at": 1 })
        .sort(doc! { "_id": 1 });
    let cursor = find.await.map_err(failed("list form versions"))?.with_type::<Row>();
    let rows: Vec<Row> = cursor.try_collect().await.map_err(failed("list form versions"))?;
    let summary = |row: Row| {
        HeadDocument {
            form: row.key.form,
            version: row.key.version,
            digest: row.digest,
            created_at: row.created_at,
        }
        .into_summary()
    };
    rows.into_iter().map(summary).collect()
}

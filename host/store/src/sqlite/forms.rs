//! Forms and their versions.

use super::{
    failure::sql,
    rows::{all, decode, one},
    writer::Write,
};
use crate::{FormSummary, FormVersion, NewForm, Page, Paged, PutForm, Result, paging};
use formwork_tasks::{Millis, Plan};
use rusqlite::{Connection, Row, params};

/// Publishes a definition, unless it is the latest version already.
pub(super) fn put(write: &mut Write<'_>, form: &NewForm, now: Millis) -> Result<PutForm> {
    let plan = Plan::try_new(form.steps.clone())?;
    let latest = one(
        write.connection,
        "SELECT version, digest FROM forms WHERE id = ?1 ORDER BY version DESC LIMIT 1",
        params![form.id],
        |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?)),
    )?;
    if let Some((version, digest)) = &latest
        && *digest == form.digest
    {
        return Ok(PutForm::Unchanged(*version));
    }
    let version = latest.map_or(1, |(version, _)| version + 1);
    let steps = serde_json::to_string(plan.steps()).map_err(|error| crate::Error::backend("write form", error))?;
    write
        .connection
        .prepare_cached(
            "INSERT INTO forms (id, version, digest, created_at, steps, definition)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut statement| {
            statement.execute(params![form.id, version, form.digest, now.0, steps, form.definition])
        })
        .map_err(sql("write form"))?;
    Ok(PutForm::Created(version))
}

/// One version, or the latest.
pub(super) fn get(connection: &Connection, id: &str, version: Option<u32>) -> Result<Option<FormVersion>> {
    one(
        connection,
        "SELECT id, version, digest, created_at, steps, definition FROM forms
         WHERE id = ?1 AND (?2 IS NULL OR version = ?2) ORDER BY version DESC LIMIT 1",
        params![id, version],
        |row| {
            let steps: String = row.get(4)?;
            Ok(FormVersion {
                id: row.get(0)?,
                version: row.get(1)?,
                digest: row.get(2)?,
                created_at: Millis(row.get(3)?),
                steps: decode(4, serde_json::from_str(&steps))?,
                definition: row.get(5)?,
            })
        },
    )
}

/// The latest version of every form, by name.
pub(super) fn list(connection: &Connection, page: &Page) -> Result<Paged<FormSummary>> {
    let items = all(
        connection,
        "SELECT id, version, digest, created_at FROM forms AS form
         WHERE id > ?1
           AND version = (SELECT max(version) FROM forms AS other WHERE other.id = form.id)
         ORDER BY id LIMIT ?2",
        params![page.after.as_deref().unwrap_or(""), paging::fetch(page)],
        summary,
    )?;
    Ok(paging::paged(page, items, |form| form.id.clone()))
}

/// Every version of a form, oldest first.
pub(super) fn versions(connection: &Connection, id: &str) -> Result<Vec<FormSummary>> {
    all(
        connection,
        "SELECT id, version, digest, created_at FROM forms WHERE id = ?1 ORDER BY version",
        params![id],
        summary,
    )
}

fn summary(row: &Row<'_>) -> rusqlite::Result<FormSummary> {
    Ok(FormSummary {
        id: row.get(0)?,
        version: row.get(1)?,
        digest: row.get(2)?,
        created_at: Millis(row.get(3)?),
    })
}

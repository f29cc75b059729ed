//! Export chunks and their numbers.
//!
//! A reader asks for what comes after a number, so a chunk must not appear below a number that was read before.
//! Numbers given in the completing transaction keep that promise only if all completions of a step wait for one
//! another (a shared counter conflicts). So a chunk is recorded without a number, and numbered, with all others
//! that wait, by the first reader that comes to it; readers are few.

use super::{
    database::{Abort, Database, Operation},
    documents::ExportDocument,
    unit::Unit,
    views::all,
};
use crate::{ExportRow, Result, limits};
use async_trait::async_trait;
use formwork_tasks::Millis;
use mongodb::bson::{Bson, Document, doc};

/// One step of one form version.
#[derive(Clone)]
pub(super) struct Series {
    pub(super) form: String,
    pub(super) form_version: u32,
    pub(super) step: String,
}

impl Series {
    fn filter(&self, sequence: impl Into<Bson>) -> Document {
        doc! {
            "form": &self.form,
            "form_version": i64::from(self.form_version),
            "step_name": &self.step,
            "sequence": sequence.into(),
        }
    }
}

/// Export chunks after a sequence.
pub(super) async fn chunks(
    database: &Database,
    series: &Series,
    after_sequence: u64,
    limit: u32,
) -> Result<Vec<ExportRow>> {
    let after = i64::try_from(after_sequence).unwrap_or(i64::MAX);
    let limit = limit.clamp(1, limits::PAGE_ITEMS);
    loop {
        let filter = series.filter(doc! { "$gt": after });
        let found = all("read exports", &database.exports, filter, doc! { "sequence": 1 }, limit).await?;
        if found.len() < limit as usize {
            let (numbered, _) = database.transact("number exports", Millis(0), series).await?;
            if numbered > 0 {
                continue;
            }
        }
        return found.into_iter().map(row).collect();
    }
}

fn row(document: ExportDocument) -> Result<ExportRow> {
    Ok(ExportRow {
        sequence: document
            .sequence
            .and_then(|sequence| u64::try_from(sequence).ok())
            .unwrap_or(0),
        submission: document.submission()?,
        bytes: document.bytes.bytes,
    })
}

/// Numbers chunks that have no number yet; answers how many.
#[async_trait]
impl Operation for Series {
    type Output = usize;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<usize, Abort> {
        let database = unit.database;
        let exports = database.exports.clone_with_type::<Document>();
        let find = exports.find(self.filter(Bson::Null)).sort(doc! { "_id": 1 });
        let find = find.limit(limits::PAGE_ITEMS.into()).projection(doc! { "_id": 1 });
        let mut cursor = find.session(&mut unit.session).await?;
        let mut ids = Vec::new();
        while let Some(document) = cursor.next(&mut unit.session).await.transpose()? {
            ids.extend(document.get_str("_id").map(str::to_owned));
        }
        if ids.is_empty() {
            return Ok(0);
        }
        let id = doc! { "form": &self.form, "form_version": i64::from(self.form_version), "step": &self.step };
        let found = unit.find(&database.sequences, doc! { "_id": &id }).await?;
        let last = found
            .first()
            .and_then(|document| document.get_i64("last").ok())
            .unwrap_or(0);
        let count = ids.len();
        let updates = ids.into_iter().zip(last + 1..);
        let updates = updates.map(|(id, sequence)| {
            doc! { "q": { "_id": id, "sequence": Bson::Null }, "u": { "$set": { "sequence": sequence } } }
        });
        unit.update("exports", updates.collect()).await?;
        let next = last + i64::try_from(count).unwrap_or(0);
        let store = database
            .sequences
            .update_one(doc! { "_id": id }, doc! { "$set": { "last": next } });
        store.upsert(true).session(&mut unit.session).await?;
        Ok(count)
    }
}

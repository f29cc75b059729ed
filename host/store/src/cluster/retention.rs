//! Deleting what has been kept long enough, in slices that walk the ids from the oldest.

use super::{
    database::{Abort, Operation},
    documents::{SubmissionDocument, keys_of, parse_key},
    unit::Unit,
};
use crate::{Error, Expired, Result, Retention, SubmissionId, limits};
use async_trait::async_trait;
use formwork_tasks::{Millis, Pool, State, SubmissionStatus};
use mongodb::bson::{Document, doc};
use std::collections::BTreeMap;
use ulid::Ulid;

/// One slice of a sweep.
pub(super) struct Expire {
    pub(super) retention: Retention,
    pub(super) after: Option<SubmissionId>,
}

/// What counts of a task that may go.
#[derive(serde::Deserialize)]
struct TaskRow {
    #[serde(rename = "_id")]
    key: String,
    pool: Pool,
    state: State,
}

#[async_trait]
impl Operation for Expire {
    type Output = Expired;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<Expired, Abort> {
        let kept = [self.retention.results_ms, self.retention.failed_ms];
        let Some(shortest) = kept.into_iter().flatten().min() else {
            return Ok(Expired::default());
        };
        let candidates = self.candidates(unit).await?;
        let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else {
            return Ok(Expired::default());
        };
        let now = unit.now;
        let full = candidates.len() == limits::EXPIRE_SUBMISSIONS as usize;
        // What comes later was submitted later, and settled later than that.
        let next = (full && now.since(Millis(last.submitted_at)) >= shortest).then(|| parse(&last.id));
        let next = next.transpose()?;
        let mut tasks = tasks_between(unit, &first.id, &last.id).await?;
        let gone = |document: &&SubmissionDocument| {
            let dead = tasks
                .get(&document.id)
                .is_some_and(|tasks| tasks.iter().any(|task| task.state == State::Dead));
            let failed = dead || document.status == SubmissionStatus::Failed;
            // Only what is settled has a time of settling.
            document.status.is_settled()
                && document
                    .settled_at
                    .is_some_and(|settled_at| self.retention.has_passed(Millis(settled_at), failed, now))
        };
        let gone: Vec<String> = candidates
            .iter()
            .filter(gone)
            .map(|document| document.id.clone())
            .collect();
        for task in gone.iter().flat_map(|id| tasks.remove(id).unwrap_or_default()) {
            unit.forget(task.pool, task.state);
        }
        delete(unit, &gone).await?;
        Ok(Expired {
            submissions: u32::try_from(gone.len()).unwrap_or(u32::MAX),
            next,
        })
    }
}

impl Expire {
    async fn candidates(&self, unit: &mut Unit<'_>) -> Result<Vec<SubmissionDocument>, Abort> {
        let after = self.after.map(|id| id.to_string()).unwrap_or_default();
        let submissions = unit.database.submissions.clone();
        let find = submissions
            .find(doc! { "_id": { "$gt": after } })
            .sort(doc! { "_id": 1 });
        let mut cursor = find
            .limit(i64::from(limits::EXPIRE_SUBMISSIONS))
            .session(&mut unit.session)
            .await?;
        let mut found = Vec::new();
        while let Some(document) = cursor.next(&mut unit.session).await.transpose()? {
            found.push(document);
        }
        Ok(found)
    }
}

async fn tasks_between(unit: &mut Unit<'_>, first: &str, last: &str) -> Result<BTreeMap<String, Vec<TaskRow>>, Abort> {
    let rows = unit.database.tasks.clone_with_type::<TaskRow>();
    let range = doc! { "_id": { "$gt": format!("{first}-"), "$lt": format!("{last}.") } };
    let find = rows.find(range).projection(doc! { "pool": 1, "state": 1 });
    let mut cursor = find.session(&mut unit.session).await?;
    let mut tasks: BTreeMap<String, Vec<TaskRow>> = BTreeMap::new();
    while let Some(task) = cursor.next(&mut unit.session).await.transpose()? {
        let submission = parse_key(&task.key)?.submission.to_string();
        tasks.entry(submission).or_default().push(task);
    }
    Ok(tasks)
}

/// Deletes submissions with all their parts. The submissions' own documents are where an operator's retry of one of
/// their tasks meets this.
async fn delete(unit: &mut Unit<'_>, submissions: &[String]) -> Result<(), Abort> {
    let each = |filter: &dyn Fn(&String) -> Document| -> Vec<Document> {
        let statement = |id| doc! { "q": filter(id), "limit": 0 };
        submissions.iter().map(statement).collect()
    };
    let by_id = each(&|id| doc! { "_id": id });
    let by_prefix = each(&|id| keys_of(id));
    let by_submission = each(&|id| doc! { "submission": id });
    unit.delete("submissions", by_id.clone()).await?;
    unit.delete("submission_data", by_id).await?;
    unit.delete("idempotency", by_submission).await?;
    unit.delete("tasks", by_prefix.clone()).await?;
    unit.delete("task_runs", by_prefix.clone()).await?;
    unit.delete("task_events", by_prefix).await
}

fn parse(id: &str) -> Result<SubmissionId> {
    id.parse().map_err(|error| Error::backend("read id", error))
}

/// Deletes the oldest export chunks. Keys sort by when their submissions were made.
pub(super) struct ExpireExports {
    pub(super) older_than_ms: u64,
}

#[async_trait]
impl Operation for ExpireExports {
    type Output = u32;

    async fn run(&self, unit: &mut Unit<'_>) -> Result<u32, Abort> {
        let older_than = i64::try_from(self.older_than_ms).unwrap_or(i64::MAX);
        let Ok(made_until) = u64::try_from(unit.now.0.saturating_sub(older_than)) else {
            return Ok(0);
        };
        let first_kept = Ulid::from_parts(made_until.saturating_add(1), 0).to_string();
        let exports = unit.database.exports.clone_with_type::<Document>();
        let find = exports
            .find(doc! { "_id": { "$lt": first_kept } })
            .sort(doc! { "_id": 1 });
        let find = find
            .limit(i64::from(limits::EXPIRE_EXPORTS))
            .projection(doc! { "_id": 1 });
        let mut cursor = find.session(&mut unit.session).await?;
        let mut ids = Vec::new();
        while let Some(document) = cursor.next(&mut unit.session).await.transpose()? {
            ids.extend(document.get_str("_id").map(str::to_owned));
        }
        let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        if count > 0 {
            let all = doc! { "q": { "_id": { "$in": ids } }, "limit": 0 };
            unit.delete("exports", vec![all]).await?;
        }
        Ok(count)
    }
}

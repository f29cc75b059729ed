//! Reading submissions, tasks, payloads and history.
//!
//! A submission is read before its tasks, and tasks before their runs: what a later read finds is at least as
//! new, so that a settled submission never comes with tasks that still run.

use super::{
    database::{Database, failed},
    documents::{
        DataDocument, EventDocument, RunDocument, SubmissionDocument, TaskDocument, keys_of, lines_of, parse_key,
        step_keys, steps_of, task_key,
    },
    work::missing,
};
use crate::{
    Claimed, Page, Paged, Result, StepOutput, SubmissionId, SubmissionSummary, SubmissionView, TaskEvent, TaskFilter,
    TaskId, TaskSummary, TaskView, paging, record::TaskRecord,
};
use formwork_tasks::{Millis, State};
use futures::{StreamExt as _, TryStreamExt as _};
use mongodb::{
    Collection,
    bson::{Document, doc},
};
use serde::de::DeserializeOwned;
use std::collections::HashMap;

/// All documents a filter finds, in order.
pub(super) async fn all<T>(
    operation: &'static str,
    collection: &Collection<T>,
    filter: Document,
    order: Document,
    limit: u32,
) -> Result<Vec<T>>
where
    T: DeserializeOwned + Send + Sync,
{
    let find = collection.find(filter).sort(order).limit(limit.into());
    let cursor = find.await.map_err(failed(operation))?;
    cursor.try_collect().await.map_err(failed(operation))
}

/// No limit.
const EVERYTHING: u32 = 0;

/// A submission with its tasks.
pub(super) async fn submission(database: &Database, id: SubmissionId) -> Result<Option<SubmissionView>> {
    let text = id.to_string();
    let key = || doc! { "_id": &text };
    let found = database.submissions.find_one(key()).await;
    let Some(document) = found.map_err(failed("read submission"))? else {
        return Ok(None);
    };
    let data = database.data.find_one(key()).await.map_err(failed("read submission"))?;
    let plan = database.plan(&document.form, document.form_version()?).await?;
    let (steps, order) = (steps_of(id, plan.steps().len()), doc! { "_id": 1 });
    let tasks = all(
        "read submission",
        &database.tasks,
        steps.clone(),
        order.clone(),
        EVERYTHING,
    )
    .await?;
    let runs = all("read submission", &database.runs, steps, order, EVERYTHING).await?;
    let mut runs: HashMap<String, RunDocument> = runs.into_iter().map(|run| (run.task.clone(), run)).collect();
    let view = |task: TaskDocument| {
        let run = runs.remove(&task.key);
        task.into_view(run)
    };
    let tasks = tasks.into_iter().map(view).collect::<Result<Vec<TaskView>>>()?;
    Ok(Some(SubmissionView {
        summary: document.into_summary()?,
        data: data.map(|data| data.data).unwrap_or_default(),
        tasks,
    }))
}

/// Submissions, newest first.
pub(super) async fn submissions(
    database: &Database,
    form: Option<&str>,
    page: &Page,
) -> Result<Paged<SubmissionSummary>> {
    let mut filter = Document::new();
    if let Some(form) = form {
        filter.insert("form", form);
    }
    if let Some(before) = paging::after::<SubmissionId>(page)? {
        filter.insert("_id", doc! { "$lt": before.to_string() });
    }
    let order = doc! { "_id": -1 };
    let found = all(
        "list submissions",
        &database.submissions,
        filter,
        order,
        paging::fetch(page),
    )
    .await?;
    let items = found
        .into_iter()
        .map(SubmissionDocument::into_summary)
        .collect::<Result<_>>()?;
    Ok(paging::paged(page, items, |submission: &SubmissionSummary| {
        submission.id.to_string()
    }))
}

/// One task with its output.
pub(super) async fn task(database: &Database, id: TaskId) -> Result<Option<TaskView>> {
    let key = || doc! { "_id": task_key(id) };
    let Some(task) = database.tasks.find_one(key()).await.map_err(failed("read task"))? else {
        return Ok(None);
    };
    let run = database.runs.find_one(key()).await.map_err(failed("read task"))?;
    task.into_view(run).map(Some)
}

/// Tasks that match a filter, newest submission first. By state or by form through an index; filters beside
/// them are checked on the way.
pub(super) async fn tasks(database: &Database, filter: &TaskFilter, page: &Page) -> Result<Paged<TaskSummary>> {
    let mut conditions = conditions(filter);
    if let Some(after) = paging::after::<TaskId>(page)? {
        conditions.push(doc! { "_id": { "$lt": task_key(after) } });
    }
    let order = doc! { "_id": -1 };
    let found = all(
        "list tasks",
        &database.tasks,
        all_of(conditions),
        order,
        paging::fetch(page),
    )
    .await?;
    let items = found
        .into_iter()
        .map(TaskDocument::into_summary)
        .collect::<Result<_>>()?;
    Ok(paging::paged(page, items, |task: &TaskSummary| task.id.to_string()))
}

/// Dead tasks that match a filter of such, oldest submission first; at most `limit`, and whether there are more.
pub(super) async fn dead(database: &Database, filter: &TaskFilter, limit: u32) -> Result<(Vec<TaskId>, bool)> {
    let filter = all_of(conditions(filter));
    let mut found = all("find dead tasks", &database.tasks, filter, doc! { "_id": 1 }, limit + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let ids = found.iter().map(|task| parse_key(&task.key)).collect::<Result<_>>()?;
    Ok((ids, more))
}

fn all_of(conditions: Vec<Document>) -> Document {
    if conditions.is_empty() {
        Document::new()
    } else {
        doc! { "$and": conditions }
    }
}

fn conditions(filter: &TaskFilter) -> Vec<Document> {
    let mut conditions: Vec<Document> = Vec::new();
    if let Some(submission) = filter.submission {
        conditions.push(keys_of(&submission.to_string()));
    }
    // A reason can be that of a dead task only.
    let state = filter.state.or(filter.dead_reason.map(|_| State::Dead));
    let equal = [
        ("state", state.map(State::as_str)),
        ("pool", filter.pool.map(|pool| pool.as_str())),
        ("form", filter.form.as_deref()),
        ("step_name", filter.step.as_deref()),
        ("dead_reason", filter.dead_reason.map(|reason| reason.as_str())),
        ("error_code", filter.error_code.as_deref()),
    ];
    for (field, value) in equal {
        conditions.extend(value.map(|value| doc! { field: value }));
    }
    for (bound, at) in [("$gte", filter.finished_from), ("$lt", filter.finished_until)] {
        conditions.extend(at.map(|at| doc! { "finished_at": { bound: at.0 } }));
    }
    conditions
}

/// Everything that happened to a task.
pub(super) async fn history(database: &Database, id: TaskId) -> Result<Vec<TaskEvent>> {
    let task = database.tasks.find_one(doc! { "_id": task_key(id) }).await;
    let Some(task) = task.map_err(failed("read task history"))? else {
        return Ok(Vec::new());
    };
    let lines = all(
        "read task history",
        &database.events,
        lines_of(id, task.into_record()?.events),
        doc! { "_id": 1 },
        EVERYTHING,
    )
    .await?;
    lines.into_iter().map(EventDocument::into_event).collect()
}

/// What the workers of just claimed tasks need. Data and outputs of completed steps never change, so reading
/// them after the claim's commit reads the same as within it.
pub(super) async fn payloads(database: &Database, taken: Vec<TaskRecord>) -> Result<Vec<Claimed>> {
    let mut texts: Vec<String> = taken.iter().map(|task| task.id.submission.to_string()).collect();
    texts.dedup();
    let of_submissions = || doc! { "_id": { "$in": &texts } };
    let (submissions, data, mut outputs) = tokio::try_join!(
        by_key(
            &database.submissions,
            of_submissions(),
            |document: &SubmissionDocument| document.id.clone()
        ),
        by_key(&database.data, of_submissions(), |document: &DataDocument| document
            .submission
            .clone()),
        outputs(database, &taken),
    )?;
    let claimed = |task: TaskRecord| {
        let text = task.id.submission.to_string();
        let submission = submissions.get(&text).ok_or_else(|| missing(task.id))?;
        let data = data.get(&text).ok_or_else(|| missing(task.id))?;
        Ok(Claimed {
            id: task.id,
            run_lease: task.lifecycle.run_lease,
            attempt: task.lifecycle.attempt,
            crashes: task.lifecycle.crashes,
            step: task.step_name,
            form: task.form,
            form_version: task.form_version,
            data: data.data.clone(),
            submitted_at: Millis(submission.submitted_at),
            run_at: task.lifecycle.run_at,
            correlation_id: submission.correlation_id.clone(),
            outputs: outputs.remove(&task.id).unwrap_or_default(),
        })
    };
    taken.into_iter().map(claimed).collect()
}

/// Outputs of the steps that completed before each of the tasks.
async fn outputs(database: &Database, taken: &[TaskRecord]) -> Result<HashMap<TaskId, Vec<StepOutput>>> {
    let mut wanted: Vec<String> = Vec::new();
    let mut by_submission: HashMap<SubmissionId, Vec<TaskId>> = HashMap::new();
    for task in taken {
        let tasks = by_submission.entry(task.id.submission).or_default();
        tasks.push(task.id);
        if tasks.len() == 1 {
            let steps = database.plan(&task.form, task.form_version).await?.steps().len();
            // A form of one step has nothing before it.
            if steps > 1 {
                wanted.extend(step_keys(task.id.submission, steps));
            }
        }
    }
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let completed = doc! { "_id": { "$in": wanted }, "state": State::Completed.as_str() };
    let completed = all(
        "read outputs",
        &database.tasks,
        completed,
        doc! { "_id": 1 },
        EVERYTHING,
    )
    .await?;
    let keys: Vec<&str> = completed.iter().map(|task| task.key.as_str()).collect();
    let of_runs = doc! { "_id": { "$in": keys } };
    let mut runs = by_key(&database.runs, of_runs, |run: &RunDocument| run.task.clone()).await?;
    let mut outputs: HashMap<TaskId, Vec<StepOutput>> = HashMap::new();
    for task in completed {
        let id = parse_key(&task.key)?;
        let run = runs.remove(&task.key).ok_or_else(|| missing(id))?;
        let output = StepOutput {
            step: task.step_name,
            verdict: task.verdict.unwrap_or_default(),
            provenance: run.provenance()?.ok_or_else(|| missing(id))?,
            output: run.output.unwrap_or_default(),
        };
        for sibling in by_submission.get(&id.submission).into_iter().flatten() {
            outputs.entry(*sibling).or_default().push(output.clone());
        }
    }
    Ok(outputs)
}

async fn by_key<T>(
    collection: &Collection<T>,
    filter: Document,
    key: impl Fn(&T) -> String,
) -> Result<HashMap<String, T>>
where
    T: DeserializeOwned + Send + Sync,
{
    let mut cursor = collection.find(filter).await.map_err(failed("read payloads"))?;
    let mut found = HashMap::new();
    while let Some(document) = cursor.next().await.transpose().map_err(failed("read payloads"))? {
        found.insert(key(&document), document);
    }
    Ok(found)
}

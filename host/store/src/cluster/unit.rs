//! One transaction on its way: what it read, and what it will write.
//!
//! Every statement of a transaction is a round trip, so nothing is written one by one: changes are gathered and
//! each collection gets one command at the end. Guards (`run_lease`, `events`, `revision`) stand in the filters
//! although MongoDB's own conflict detection should make them needless: a lost update must not depend on
//! one server's reading of snapshot isolation.

use super::{
    counters::{self, Slot},
    database::{Abort, Database, duplicate_index},
    documents::{
        EventDocument, ExportDocument, RunDocument, SubmissionDocument, TaskDocument, signed, step_keys, task_key,
    },
    heartbeat::Hold,
};
use crate::{
    Error, Provenance, Result, StoreEvent, SubmissionId, TaskEvent, TaskId,
    effects::Effects,
    record::{Applied, TaskRecord},
};
use formwork_tasks::{Change, Command, Millis, Pool, Priority, Progress, Refusal, State};
use mongodb::{
    ClientSession, Collection,
    bson::{Binary, Bson, Document, doc, spec::BinarySubtype},
};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};

/// What a committed transaction means for the rest of the world.
#[derive(Default)]
pub(super) struct Consequences {
    /// Events to tell.
    pub(super) events: Vec<StoreEvent>,
    /// Tasks as they are now, for the dispatch index.
    pub(super) moved: Vec<TaskRecord>,
}

/// One transaction.
pub(super) struct Unit<'a> {
    pub(super) database: &'a Database,
    pub(super) session: ClientSession,
    pub(super) now: Millis,
    guards: BTreeMap<TaskId, Guard>,
    created: BTreeMap<TaskId, TaskRecord>,
    changed: BTreeMap<TaskId, TaskRecord>,
    /// Those of the changed tasks that are written already.
    written: BTreeSet<TaskId>,
    submissions: BTreeMap<SubmissionId, Settling>,
    history: Vec<EventDocument>,
    runs: Vec<RunDocument>,
    chunks: Vec<ExportDocument>,
    effects: Effects,
    moved: BTreeSet<TaskId>,
    slot: Slot<'a>,
    locked: Option<Hold<'a>>,
}

/// What a task's document must still hold when it is overwritten.
#[derive(Clone, Copy)]
struct Guard {
    run_lease: u64,
    events: u32,
}

impl Guard {
    fn of(task: &TaskRecord) -> Self {
        Self {
            run_lease: task.lifecycle.run_lease.0,
            events: task.events,
        }
    }
}

struct Settling {
    document: SubmissionDocument,
    read_revision: Option<i64>,
}

impl<'a> Unit<'a> {
    /// Before the transaction's first statement: the slot must be its own when its snapshot is taken.
    pub(super) fn new(database: &'a Database, session: ClientSession, now: Millis) -> Self {
        Self {
            database,
            session,
            now,
            guards: BTreeMap::new(),
            created: BTreeMap::new(),
            changed: BTreeMap::new(),
            written: BTreeSet::new(),
            submissions: BTreeMap::new(),
            history: Vec::new(),
            runs: Vec::new(),
            chunks: Vec::new(),
            effects: Effects::default(),
            moved: BTreeSet::new(),
            slot: database.slots.lease(),
            locked: None,
        }
    }

    // --- reading ---

    /// All documents a filter finds, inside the transaction.
    pub(super) async fn find<T>(&mut self, collection: &Collection<T>, filter: Document) -> Result<Vec<T>, Abort>
    where
        T: DeserializeOwned + Send + Sync,
    {
        let mut cursor = collection.find(filter).session(&mut self.session).await?;
        let mut found = Vec::new();
        while let Some(document) = cursor.next(&mut self.session).await.transpose()? {
            found.push(document);
        }
        Ok(found)
    }

    /// One task, if it exists.
    pub(super) async fn load(&mut self, id: TaskId) -> Result<Option<TaskRecord>, Abort> {
        Ok(self.load_where(doc! { "_id": task_key(id) }).await?.pop())
    }

    /// Tasks in the order of the given identifiers; unknown ones are left out.
    pub(super) async fn load_many(&mut self, ids: &[TaskId]) -> Result<Vec<TaskRecord>, Abort> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<String> = ids.iter().copied().map(task_key).collect();
        let found = self.load_where(doc! { "_id": { "$in": keys } }).await?;
        let mut by_id: BTreeMap<TaskId, TaskRecord> = found.into_iter().map(|task| (task.id, task)).collect();
        Ok(ids.iter().filter_map(|id| by_id.remove(id)).collect())
    }

    async fn load_where(&mut self, filter: Document) -> Result<Vec<TaskRecord>, Abort> {
        let found = self.find(&self.database.tasks, filter).await?;
        found.into_iter().map(|document| self.loaded(document)).collect()
    }

    fn loaded(&mut self, document: TaskDocument) -> Result<TaskRecord, Abort> {
        let task = document.into_record()?;
        self.guards.entry(task.id).or_insert(Guard::of(&task));
        Ok(task)
    }

    // --- changing ---

    /// Applies a command to a loaded task; a refusal changes nothing.
    pub(super) fn apply(
        &mut self,
        task: &mut TaskRecord,
        command: Command,
        detail: Option<&str>,
    ) -> Result<Change, Refusal> {
        let applied = task.apply(command, self.now, detail)?;
        let change = applied.change();
        if let Applied::Moved(moved, line) = applied {
            self.history.push(EventDocument::new(task.id, line));
            self.effects.moved(task.pool, Some(moved.from), moved.to);
            self.effects.changed(task.id);
            self.moved.insert(task.id);
        }
        self.changed.insert(task.id, task.clone());
        self.written.remove(&task.id);
        Ok(change)
    }

    /// Writes a changed task at once, which locks it. Recording a run takes a number of round trips: if nothing that arrives
    /// meanwhile (a heartbeat, a reaper) can undo it, a store that is slow gets done all the same.
    pub(super) async fn lock(&mut self, id: TaskId) -> Result<(), Abort> {
        self.locked = Some(self.database.locked.hold(id));
        let Some(task) = self.changed.get(&id) else {
            return Ok(());
        };
        let statement = self.statement(task);
        let guard = Guard::of(task);
        self.update("tasks", vec![statement]).await?;
        self.guards.insert(id, guard);
        self.written.insert(id);
        Ok(())
    }

    /// A task as this transaction leaves it, if it changes it.
    pub(super) fn changed(&self, id: TaskId) -> Option<&TaskRecord> {
        self.changed.get(&id)
    }

    /// Remembers an event.
    pub(super) fn tell(&mut self, event: StoreEvent) {
        self.effects.tell(event);
    }

    /// Counts a task that is no longer kept.
    pub(super) fn forget(&mut self, pool: Pool, state: State) {
        self.effects.forget(pool, state);
    }

    /// What a run leaves.
    pub(super) fn record_run(
        &mut self,
        task: TaskId,
        cpu_ms: Option<f64>,
        provenance: Option<&Provenance>,
        output: Option<&str>,
    ) -> Result<()> {
        let provenance = provenance
            .map(serde_json::to_string)
            .transpose()
            .map_err(|error| Error::backend("write provenance", error))?;
        self.runs.push(RunDocument {
            task: task_key(task),
            cpu_ms,
            provenance,
            output: output.map(str::to_owned),
        });
        Ok(())
    }

    /// The bytes an export task produced.
    pub(super) fn record_chunk(&mut self, task: &TaskRecord, bytes: &[u8]) {
        self.chunks.push(ExportDocument {
            task: task_key(task.id),
            form: task.form.clone(),
            form_version: task.form_version.into(),
            step_name: task.step_name.clone(),
            sequence: None,
            bytes: Binary {
                subtype: BinarySubtype::Generic,
                bytes: bytes.to_vec(),
            },
        });
    }

    /// A submission that is recorded in this transaction, and what follows from having no tasks yet.
    pub(super) async fn begin(&mut self, id: SubmissionId, document: SubmissionDocument) -> Result<(), Abort> {
        let settling = Settling {
            document,
            read_revision: None,
        };
        if self.submissions.insert(id, settling).is_some() {
            return Err(Error::DuplicateSubmission(id).into());
        }
        self.advance(id, Vec::new()).await
    }

    /// Draws the consequences of the changed tasks of these submissions: makes the steps that may run now, stops those
    /// that never will, and sets the submissions' status. Writes a submission in any case: of two branches that end at
    /// once each would otherwise see the other one running, and nobody would make their join.
    pub(super) async fn settle(&mut self, ids: impl IntoIterator<Item = SubmissionId>) -> Result<(), Abort> {
        let ids: BTreeSet<SubmissionId> = ids.into_iter().collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.load_submissions(&ids).await?;
        let mut keys: Vec<String> = Vec::new();
        for id in &ids {
            if let Some(settling) = self.submissions.get(id) {
                let (form, version) = (&settling.document.form, settling.document.form_version()?);
                keys.extend(step_keys(*id, self.database.plan(form, version).await?.steps().len()));
            }
        }
        let mut tasks: BTreeMap<SubmissionId, Vec<TaskRecord>> = BTreeMap::new();
        for task in self.load_where(doc! { "_id": { "$in": keys } }).await? {
            tasks.entry(task.id.submission).or_default().push(task);
        }
        for id in ids {
            self.advance(id, tasks.remove(&id).unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn load_submissions(&mut self, ids: &BTreeSet<SubmissionId>) -> Result<(), Abort> {
        let missing: Vec<String> = ids
            .iter()
            .filter(|id| !self.submissions.contains_key(id))
            .map(SubmissionId::to_string)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let filter = doc! { "_id": { "$in": &missing } };
        let found = self.find(&self.database.submissions, filter).await?;
        if found.len() < missing.len() {
            let why = format!(
                "{} of {} submissions are not there",
                missing.len() - found.len(),
                missing.len()
            );
            return Err(Error::backend("settle submission", why).into());
        }
        for mut document in found {
            let read_revision = Some(document.revision);
            document.revision += 1;
            let settling = Settling {
                document,
                read_revision,
            };
            self.submissions.insert(settling.document.submission()?, settling);
        }
        Ok(())
    }

    /// With the tasks as they were read.
    async fn advance(&mut self, id: SubmissionId, mut tasks: Vec<TaskRecord>) -> Result<(), Abort> {
        let Some(settling) = self.submissions.get(&id) else {
            return Ok(());
        };
        let submission = &settling.document;
        let (form, version) = (submission.form.clone(), submission.form_version()?);
        let (status, priority) = (submission.status, submission.priority()?);
        let plan = self.database.plan(&form, version).await?;
        for task in &mut tasks {
            if let Some(changed) = self.changed.get(&task.id) {
                *task = changed.clone();
            }
        }
        let mut progress = vec![None; plan.steps().len()];
        for task in &tasks {
            if let Some(place) = progress.get_mut(usize::from(task.id.step)) {
                *place = Some(Progress {
                    state: task.lifecycle.state,
                    verdict: task.lifecycle.verdict,
                });
            }
        }
        let assessment = plan.assess(&progress);
        for &index in &assessment.ready {
            let step = &plan.steps()[index];
            let priority: Priority = priority.unwrap_or(step.priority);
            let task_id = TaskId::new(id, step_number(index)?);
            let task = TaskRecord::create(task_id, &form, version, step, priority, self.now);
            self.history
                .push(EventDocument::new(task_id, TaskEvent::created(self.now)));
            self.effects.moved(task.pool, None, State::Available);
            self.created.insert(task_id, task);
        }
        for &index in &assessment.stop {
            let step = step_number(index)?;
            if let Some(mut task) = tasks.iter().find(|task| task.id.step == step).cloned() {
                // Only waiting tasks are named.
                let _ = self.apply(&mut task, Command::Stop, None);
            }
        }
        if assessment.status != status {
            let settled_at = assessment.status.is_settled().then_some(self.now.0);
            if let Some(settling) = self.submissions.get_mut(&id) {
                settling.document.status = assessment.status;
                settling.document.settled_at = settled_at;
            }
            if assessment.status.is_settled() {
                self.effects.tell(StoreEvent::SubmissionSettled { id });
            }
        }
        Ok(())
    }

    // --- writing ---

    /// Writes what was gathered.
    pub(super) async fn write(&mut self) -> Result<(), Abort> {
        let database = self.database;
        self.write_begun().await?;
        let created: Vec<TaskDocument> = self.created.values().map(TaskDocument::new).collect();
        self.insert(&database.tasks, &created).await?;
        self.write_changed().await?;
        let history = std::mem::take(&mut self.history);
        self.insert(&database.events, &history).await?;
        self.write_runs().await?;
        let chunks = std::mem::take(&mut self.chunks);
        self.insert(&database.exports, &chunks).await?;
        self.write_settled().await?;
        counters::add(database, &mut self.session, &self.slot, &self.effects, self.now).await?;
        Ok(())
    }

    /// Inserts documents, if there are any.
    pub(super) async fn insert<T: Serialize + Send + Sync>(
        &mut self,
        collection: &Collection<T>,
        documents: &[T],
    ) -> Result<(), Abort> {
        if !documents.is_empty() {
            collection.insert_many(documents).session(&mut self.session).await?;
        }
        Ok(())
    }

    /// Inserts one document for each of these new submissions. An id that is used is the caller's mistake, not a
    /// conflict that goes away when the transaction is run again.
    pub(super) async fn insert_new<T: Serialize + Send + Sync>(
        &mut self,
        collection: &Collection<T>,
        ids: &[SubmissionId],
        documents: &[T],
    ) -> Result<(), Abort> {
        if documents.is_empty() {
            return Ok(());
        }
        let Err(error) = collection.insert_many(documents).session(&mut self.session).await else {
            return Ok(());
        };
        match duplicate_index(&error).and_then(|index| ids.get(index)) {
            Some(id) => Err(Error::DuplicateSubmission(*id).into()),
            None => Err(error.into()),
        }
    }

    /// Inserts the submissions begun in this transaction.
    async fn write_begun(&mut self) -> Result<(), Abort> {
        let (ids, begun): (Vec<SubmissionId>, Vec<SubmissionDocument>) = self
            .submissions
            .iter()
            .filter(|(_, settling)| settling.read_revision.is_none())
            .map(|(id, settling)| (*id, settling.document.clone()))
            .unzip();
        let submissions = self.database.submissions.clone();
        self.insert_new(&submissions, &ids, &begun).await
    }

    async fn write_changed(&mut self) -> Result<(), Abort> {
        let unwritten = self.changed.values().filter(|task| !self.written.contains(&task.id));
        let updates = unwritten.map(|task| self.statement(task)).collect();
        self.update("tasks", updates).await
    }

    /// Overwrites a task if it is as it was read.
    fn statement(&self, task: &TaskRecord) -> Document {
        let mut filter = doc! { "_id": task_key(task.id) };
        if let Some(guard) = self.guards.get(&task.id) {
            filter.insert("run_lease", signed(guard.run_lease));
            filter.insert("events", i64::from(guard.events));
        }
        doc! { "q": filter, "u": { "$set": TaskDocument::changes(task) } }
    }

    async fn write_runs(&mut self) -> Result<(), Abort> {
        let updates = std::mem::take(&mut self.runs)
            .into_iter()
            .map(|run| {
                let set = doc! { "cpu_ms": run.cpu_ms, "provenance": run.provenance, "output": run.output };
                doc! { "q": { "_id": run.task }, "u": { "$set": set }, "upsert": true }
            })
            .collect();
        self.update("task_runs", updates).await
    }

    async fn write_settled(&mut self) -> Result<(), Abort> {
        let updates = self
            .submissions
            .values()
            .filter_map(|settling| {
                let (document, read) = (&settling.document, settling.read_revision?);
                let set = doc! {
                    "status": document.status.as_str(),
                    "settled_at": document.settled_at,
                    "revision": document.revision,
                };
                Some(doc! { "q": { "_id": &document.id, "revision": read }, "u": { "$set": set } })
            })
            .collect();
        self.update("submissions", updates).await
    }

    /// Sends update statements as one command; each must find its document as it was read.
    pub(super) async fn update(&mut self, collection: &str, updates: Vec<Document>) -> Result<(), Abort> {
        if updates.is_empty() {
            return Ok(());
        }
        let expected = i64::try_from(updates.len()).unwrap_or(i64::MAX);
        let command = doc! { "update": collection, "updates": updates, "ordered": true };
        let reply = self.send(command).await?;
        let matched = match reply.get("n") {
            Some(Bson::Int32(n)) => i64::from(*n),
            Some(Bson::Int64(n)) => *n,
            _ => 0,
        };
        if matched == expected {
            Ok(())
        } else {
            Err(Abort::Conflict)
        }
    }

    /// Sends delete statements as one command.
    pub(super) async fn delete(&mut self, collection: &str, deletes: Vec<Document>) -> Result<(), Abort> {
        if deletes.is_empty() {
            return Ok(());
        }
        let command = doc! { "delete": collection, "deletes": deletes, "ordered": true };
        self.send(command).await?;
        Ok(())
    }

    /// Sends a write command; a write that was refused aborts.
    async fn send(&mut self, command: Document) -> Result<Document, Abort> {
        let run = self.database.raw.run_command(command);
        let reply = run.session(&mut self.session).await?;
        if reply.get_array("writeErrors").is_ok_and(|errors| !errors.is_empty()) {
            return Err(write_error(&reply));
        }
        Ok(reply)
    }

    /// The session, to commit; what to keep until then; and what follows from the commit.
    pub(super) fn into_parts(self) -> (ClientSession, (Slot<'a>, Option<Hold<'a>>), Consequences) {
        let moved = self.moved;
        let changed = self.changed.into_values().filter(|task| moved.contains(&task.id));
        let consequences = Consequences {
            events: self.effects.into_events(),
            moved: self.created.into_values().chain(changed).collect(),
        };
        (self.session, (self.slot, self.locked), consequences)
    }
}

/// A write error inside a command that was otherwise answered; a taken key is a conflict.
fn write_error(reply: &Document) -> Abort {
    const DUPLICATE_KEY: i32 = 11_000;
    let first = reply
        .get_array("writeErrors")
        .ok()
        .and_then(|errors| errors.first()?.as_document());
    match first {
        Some(error) if error.get_i32("code").is_ok_and(|code| code == DUPLICATE_KEY) => Abort::Conflict,
        Some(error) => Abort::Refused(Error::backend(
            "write",
            error.get_str("errmsg").unwrap_or("refused").to_owned(),
        )),
        None => Abort::Conflict,
    }
}

fn step_number(index: usize) -> Result<u16> {
    u16::try_from(index).map_err(|error| Error::backend("plan", error))
}

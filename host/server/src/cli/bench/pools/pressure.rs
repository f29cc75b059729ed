//! Work that keeps `batched` full for as long as one likes, with first-party plugins only.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use formwork_pipeline::{FormDefinition, Pipeline};
use formwork_store::{NewForm, NewSubmission, Page, Store, SubmissionId, Submit, TaskFilter, TaskId};
use formwork_tasks::{Priority, State};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::PRESSED;
use crate::clock;
use crate::serve::Server;

/// Words of a submission that takes most of a second of CPU to validate, and the patterns each has to match. Far below the
/// two seconds that `validate` may take.
const WORDS: usize = 60_000;
const PATTERNS: usize = 150;

/// Tasks that wait or run: more than the pool's permits, so that one that ends is followed at once.
const FULL: u64 = 32;

/// How often the pool is filled up.
const FILL_EVERY: Duration = Duration::from_millis(50);

/// How often a state is looked at that no event tells.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What fills the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Guests that compute.
    Guests,
    /// Guests that wait for the generator.
    Generations,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Guests => "guests",
            Self::Generations => "generations",
        }
    }

    fn definition(self) -> Value {
        match self {
            Self::Guests => {
                let patterns = (0..PATTERNS).map(|number| json!({ "pattern": format!("^[a-z]+(?:Q{number})?$") }));
                let words = json!({ "type": "array", "items": { "allOf": patterns.collect::<Vec<_>>() } });
                json!({ "title": "computes", "schema": { "properties": { "words": words } },
                    "pipeline": [ { "name": "only", "plugin": "validate", "pool": PRESSED } ] })
            }
            Self::Generations => {
                let text = |description: &str| json!({ "type": "string", "description": description });
                json!({ "title": "generates", "schema": { "type": "object" },
                    "pipeline": [ { "name": "only", "plugin": "extract", "pool": PRESSED, "settings": {
                        "fields": ["/message"],
                        "entities": {
                            "person": text("the customer's full name"),
                            "product": text("the product the customer writes about"),
                            "reason": text("why the customer is not content"),
                            "wish": text("what the customer wants to happen"),
                            "place": text("where the parcel should have gone") } } } ] })
            }
        }
    }

    /// A submission's data; no two are the same.
    fn data(self, number: usize) -> String {
        match self {
            Self::Guests => {
                let letter = |at: usize| char::from(b"abcdefghijklmnopqrstuvwxyz"[at % 26]);
                let word = |index: usize| -> String { (0..6).map(|at| letter(number + index * 7 + at * 11)).collect() };
                json!({ "words": (0..WORDS).map(word).collect::<Vec<_>>() }).to_string()
            }
            Self::Generations => json!({ "message": format!(
                "Dear team, my name is Maria Lindqvist. In week {number} I ordered a garden table with four chairs, and the \
                 parcel was to be brought to Harbour Street {number} in Malmo. Two chairs have broken legs. I would like \
                 new chairs or my money back. Please answer soon, this is letter {number}.") })
            .to_string(),
        }
    }
}

/// Submits work of one kind.
#[derive(Clone)]
pub(super) struct Source {
    kind: Kind,
    store: Arc<dyn Store>,
}

impl Source {
    /// Publishes the kind's form.
    pub(super) async fn publish(server: &Server, kind: Kind) -> anyhow::Result<Self> {
        let definition = kind.definition().to_string();
        let parsed = FormDefinition::parse(definition.as_bytes()).context("the form is not valid")?;
        let digest = parsed.digest();
        let pipeline = Pipeline::new(kind.name(), 1, Arc::new(parsed));
        let steps = pipeline.steps(server.catalog()).map_err(anyhow::Error::new)?;
        let form = NewForm {
            id: kind.name().into(),
            digest,
            definition,
            steps,
        };
        server.store().put_form(form, clock::now()).await?;
        Ok(Self {
            kind,
            store: Arc::clone(server.store()),
        })
    }

    /// One task; `number` makes its data its own, and with a priority it goes ahead of what fills the pool.
    pub(super) async fn submit(&self, number: usize, priority: Option<Priority>) -> anyhow::Result<TaskId> {
        let id = SubmissionId::generate();
        let submission = NewSubmission {
            id,
            form: self.kind.name().into(),
            form_version: 1,
            data: self.kind.data(number),
            correlation_id: id.to_string(),
            idempotency: None,
            priority,
        };
        let submitted = self.store.submit(submission, clock::now()).await?;
        anyhow::ensure!(matches!(submitted, Submit::Created), "the submission was there already");
        Ok(TaskId::new(id, 0))
    }

    /// Waits until a task runs.
    pub(super) async fn until_running(&self, id: TaskId) -> anyhow::Result<()> {
        loop {
            let task = self.store.task(id).await?.context("the task is gone")?;
            match task.summary.state {
                State::Running => return Ok(()),
                State::Available => tokio::time::sleep(LOOK_EVERY).await,
                other => anyhow::bail!("the task is {other}: {:?}", task.summary.error),
            }
        }
    }

    /// Keeps the pool full until it is dropped.
    pub(super) async fn pressure(&self) -> anyhow::Result<Pressure> {
        let mut number = 0;
        self.fill(&mut number).await?;
        let source = self.clone();
        let filling = tokio::spawn(async move {
            loop {
                tokio::time::sleep(FILL_EVERY).await;
                source.fill(&mut number).await?;
            }
        });
        Ok(Pressure(filling))
    }

    async fn fill(&self, number: &mut usize) -> anyhow::Result<()> {
        let stats = self.store.pool_stats(clock::now()).await?;
        let pool = stats.into_iter().find(|stats| stats.pool == PRESSED);
        let pool = pool.context("the pool has no figures")?;
        let failed = pool.dead + pool.retryable;
        anyhow::ensure!(failed == 0, "{failed} tasks failed: {}", self.first_failure().await?);
        for _ in pool.available + pool.running..FULL {
            *number += 1;
            self.submit(*number, None).await?;
        }
        Ok(())
    }

    /// What a task that failed says about it.
    async fn first_failure(&self) -> anyhow::Result<String> {
        for state in [State::Dead, State::Retryable] {
            let filter = TaskFilter {
                pool: Some(PRESSED),
                state: Some(state),
                ..TaskFilter::default()
            };
            let found = self.store.tasks(filter, Page::default()).await?;
            if let Some(error) = found.items.into_iter().find_map(|task| task.error) {
                return Ok(format!("{}: {}", error.code, error.message));
            }
        }
        Ok("none says why".to_owned())
    }
}

/// Fills the pool until it is dropped.
pub(super) struct Pressure(JoinHandle<anyhow::Result<()>>);

impl Pressure {
    /// Ends it.
    ///
    /// # Errors
    /// It had ended by itself: the pool was not full all the time.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.0.abort();
        match (&mut self.0).await {
            Ok(ended) => ended.context("the pool was not kept full"),
            Err(_aborted) => Ok(()),
        }
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! The queue rows: a submission from `submit` to its recorded result, through store, dispatcher, lane and recorder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use formwork_store::{NewSubmission, Store, SubmissionId, Submit};
use formwork_tasks::SubmissionStatus;

use super::figures::{Figures, round};
use super::work::{FORM_ID, Work};
use crate::clock;
use crate::serve::Server;
use crate::waiters::Waiters;

/// Submits the bench submission and waits for its end. The bench form must be published.
pub(crate) struct Queue {
    store: Arc<dyn Store>,
    waiters: Waiters,
    data: String,
}

impl Queue {
    pub(crate) fn new(server: &Server, work: &Work) -> Self {
        Self {
            store: Arc::clone(server.store()),
            waiters: server.app().waiters.clone(),
            data: work.submission.clone(),
        }
    }

    /// One after another: what a submission takes when nobody else submits.
    pub(crate) async fn one_by_one(&self, time: Duration) -> anyhow::Result<Figures> {
        round(time, async || self.call().await).await
    }

    /// `count` at a time: what the machine does in a second.
    pub(crate) async fn at_once(&self, count: usize, time: Duration) -> anyhow::Result<Figures> {
        let began = Instant::now();
        let clients = (0..count).map(|_| async {
            let mut samples = Vec::new();
            while began.elapsed() < time {
                let sent = Instant::now();
                self.call().await?;
                samples.push(sent.elapsed());
            }
            anyhow::Ok(samples)
        });
        let samples = futures::future::try_join_all(clients).await?;
        Ok(Figures::of(samples.concat(), began.elapsed()))
    }

    /// One submission, until it is done.
    pub(crate) async fn call(&self) -> anyhow::Result<()> {
        let id = SubmissionId::generate();
        let waiter = self.waiters.join(id);
        let submission = NewSubmission {
            id,
            form: FORM_ID.into(),
            form_version: 1,
            data: self.data.clone(),
            correlation_id: id.to_string(),
            idempotency: None,
            priority: None,
        };
        let submitted = self.store.submit(submission, clock::now()).await?;
        anyhow::ensure!(matches!(submitted, Submit::Created), "the submission was there already");
        loop {
            let hint = waiter.hint();
            if let Some(view) = self.store.submission(id).await?
                && view.summary.status.is_settled()
            {
                let status = view.summary.status;
                anyhow::ensure!(status == SubmissionStatus::Done, "the bench submission is {status}");
                return Ok(());
            }
            hint.await;
        }
    }
}

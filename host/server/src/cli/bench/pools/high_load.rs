//! Submissions for `high`: the bench form, validated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use formwork_pipeline::FormDefinition;
use formwork_store::NewForm;
use tokio::task::JoinSet;

use crate::cli::bench::figures::Figures;
use crate::cli::bench::queue::Queue;
use crate::cli::bench::work::{FORM_ID, Work};
use crate::clock;
use crate::serve::Server;

/// Clients of the closed load.
const CLIENTS: usize = 32;

/// How often the open load sends what is due.
const TICK: Duration = Duration::from_millis(1);

pub(super) struct High {
    queue: Arc<Queue>,
}

impl High {
    /// Publishes the form and waits for its snapshot, so that every call is a quick one.
    pub(super) async fn publish(server: &Server) -> anyhow::Result<Self> {
        let work = Work::standard()?;
        let definition = FormDefinition::parse(work.form.as_bytes()).map_err(anyhow::Error::new)?;
        let digest = definition.digest();
        let pipeline = formwork_pipeline::Pipeline::new(FORM_ID, 1, Arc::new(definition));
        let form = NewForm {
            id: FORM_ID.into(),
            digest,
            steps: pipeline.steps(server.catalog()).map_err(anyhow::Error::new)?,
            definition: work.form.clone(),
        };
        server.store().put_form(form, clock::now()).await?;
        let queue = Arc::new(Queue::new(server, &work));
        queue.call().await?;
        Ok(Self { queue })
    }

    /// As much as it takes, for `time`: submissions a second.
    pub(super) async fn closed(&self, time: Duration) -> anyhow::Result<f64> {
        Ok(self.queue.at_once(CLIENTS, time).await?.per_second)
    }

    /// So many submissions a second, whether the earlier ones have ended or not; from submission to end.
    pub(super) async fn open(&self, per_second: f64, time: Duration) -> anyhow::Result<Figures> {
        let mut calls = JoinSet::new();
        let began = Instant::now();
        let mut sent = 0_u64;
        while began.elapsed() < time {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "some thousands a second for some seconds"
            )]
            let due = (began.elapsed().as_secs_f64() * per_second) as u64;
            for _ in sent..due {
                let queue = Arc::clone(&self.queue);
                calls.spawn(async move {
                    let sent = Instant::now();
                    queue.call().await.map(|()| sent.elapsed())
                });
            }
            sent = due;
            tokio::time::sleep(TICK).await;
        }
        let mut samples = Vec::new();
        while let Some(call) = calls.join_next().await {
            samples.push(call??);
        }
        Ok(Figures::of(samples, began.elapsed()))
    }
}

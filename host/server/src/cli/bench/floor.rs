//! The one place of the benches that knows `formwork_engine::floor` and snapshots.

use formwork_engine::floor::{Floor, Instance};
use formwork_engine::{Plugin, Setup, SubmissionInput};

/// What wasmtime alone takes: the same image in a bare store, no limits, no meters.
pub(crate) struct BareFloor {
    floor: Floor,
    setup: Setup,
    submission: SubmissionInput,
}

impl BareFloor {
    /// Of the component as installed: each instance prepares itself. Only validators have a floor.
    pub(crate) fn plain(plugin: &Plugin, setup: &Setup, submission: &SubmissionInput) -> anyhow::Result<Self> {
        Ok(Self::of(Floor::plain(plugin)?, setup, submission))
    }

    /// Of the setup's snapshot; nothing where there is none.
    pub(crate) fn snapshot(
        plugin: &Plugin,
        setup: &Setup,
        submission: &SubmissionInput,
    ) -> anyhow::Result<Option<Self>> {
        let floor = Floor::snapshot(plugin, setup)?;
        Ok(floor.map(|floor| Self::of(floor, setup, submission)))
    }

    fn of(floor: Floor, setup: &Setup, submission: &SubmissionInput) -> Self {
        Self {
            floor,
            setup: setup.clone(),
            submission: submission.clone(),
        }
    }

    /// A fresh instance that validates and ends.
    pub(crate) async fn fresh(&self) -> anyhow::Result<()> {
        accepted(
            self.floor
                .instance(&self.setup)
                .await?
                .validate(&self.submission)
                .await?,
        )
    }

    /// An instance that stays.
    pub(crate) async fn warm(&self) -> anyhow::Result<WarmFloor<'_>> {
        Ok(WarmFloor {
            instance: self.floor.instance(&self.setup).await?,
            submission: &self.submission,
        })
    }
}

/// One instance for every submission, which is what Formwork never does.
pub(crate) struct WarmFloor<'a> {
    instance: Instance,
    submission: &'a SubmissionInput,
}

impl WarmFloor<'_> {
    pub(crate) async fn call(&mut self) -> anyhow::Result<()> {
        accepted(self.instance.validate(self.submission).await?)
    }
}

fn accepted(findings: usize) -> anyhow::Result<()> {
    anyhow::ensure!(findings == 0, "the bench submission has {findings} findings");
    Ok(())
}

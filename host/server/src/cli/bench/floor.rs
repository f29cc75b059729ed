//! The one place of the benches that knows `formwork_engine::floor` and snapshots.

use formwork_engine::floor::{Floor, Instance};
use formwork_engine::{Output, Plugin, Setup, SubmissionInput};

/// What wasmtime alone takes: the same image in a bare store, no limits, no meters.
pub(crate) struct BareFloor {
    floor: Floor,
    setup: Setup,
    submission: SubmissionInput,
}

impl BareFloor {
    /// Of the component as installed: each instance prepares itself.
    pub(crate) fn plain(plugin: &Plugin, setup: &Setup, submission: &SubmissionInput) -> Self {
        Self {
            floor: Floor::plain(plugin),
            setup: setup.clone(),
            submission: submission.clone(),
        }
    }

    /// Of the setup's snapshot; nothing where there is none.
    pub(crate) fn snapshot(plugin: &Plugin, setup: &Setup, submission: &SubmissionInput) -> Option<Self> {
        Some(Self {
            floor: Floor::snapshot(plugin, setup)?,
            ..Self::plain(plugin, setup, submission)
        })
    }

    /// A fresh instance that validates and ends.
    pub(crate) async fn fresh(&self) -> anyhow::Result<()> {
        accepted(&self.floor.instance(&self.setup).await?.work(&self.submission).await?)
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
        accepted(&self.instance.work(self.submission).await?)
    }
}

fn accepted(output: &Output) -> anyhow::Result<()> {
    anyhow::ensure!(!output.rejected, "the bench submission is not valid: {}", output.json);
    Ok(())
}

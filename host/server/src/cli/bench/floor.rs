//! The one place of the benches that knows `formwork_engine::floor` and snapshots.

use std::sync::Arc;

use formwork_engine::floor::{Floor, Instance};
use formwork_engine::{Output, Plugin, Report, Setup, SubmissionInput};

use super::work::call_context;

/// What wasmtime alone takes: the same image in a bare store, no limits, no meters.
pub(crate) struct BareFloor {
    floor: Floor,
    setup: Setup,
    submission: SubmissionInput,
}

impl BareFloor {
    /// Of the component as installed: each instance prepares itself. Only validators have a floor.
    pub(crate) fn plain(plugin: &Arc<Plugin>, setup: &Setup, submission: &SubmissionInput) -> Option<Self> {
        Some(Self {
            floor: Floor::plain(plugin).ok()?,
            setup: setup.clone(),
            submission: submission.clone(),
        })
    }

    /// Of the setup's snapshot; nothing where it cannot be had.
    pub(crate) fn snapshot(
        _plugin: &Arc<Plugin>,
        _setup: &Setup,
        _submission: &SubmissionInput,
    ) -> anyhow::Result<Option<Self>> {
        Ok(None)
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

/// Formwork's call on the path that is taken while there is no snapshot; it must not cause one to be made.
pub(crate) async fn plain_call(plugin: &Plugin, setup: &Setup, submission: &SubmissionInput) -> Report<Output> {
    plugin.work(setup, submission, call_context()).await
}

/// Makes the snapshot of a form version and waits until it serves; `false` where there are none.
pub(crate) async fn make_snapshot(_plugin: &Plugin, _setup: &Setup) -> anyhow::Result<bool> {
    Ok(false)
}

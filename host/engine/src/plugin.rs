//! An installed plugin and its calls.

use std::sync::Arc;
use std::time::Duration;

use formwork_manifest::{Digest, Manifest};
use serde_json::Value;
use wasmtime::Store;

use crate::call::drive;
use crate::guest::{Answer, Guest};
use crate::limits::Limits;
use crate::metrics::PluginMetrics;
use crate::sandbox::Call;
use crate::snapshot::{Image, Keeper, Lookup, Origin};
use crate::state::State;
use crate::{CallContext, CallError, Frame, Output, Report, Setup, SnapshotError, SubmissionInput};

/// What a call does after `prepare`.
#[derive(Clone, Copy)]
enum Work<'a> {
    Prepare,
    Submission(&'a SubmissionInput),
    Frame(Frame),
}

/// A snapshot of a plugin version that has prepared for a form version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Bytes of memory it holds.
    pub bytes: usize,
    /// It was made before this process started.
    pub from_disk: bool,
    /// How long making or loading it took.
    pub took: Duration,
}

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotStatus {
    /// Calls begin from it.
    Ready(SnapshotInfo),
    /// It is being made; calls take the plain path.
    Making,
    /// Nobody has asked for it, or it had to make room for others; the next call asks.
    Absent,
    /// There is none, and calls take the plain path for good.
    Failed(SnapshotError),
}

/// An installed plugin version. It holds no state of any submission.
pub struct Plugin {
    manifest: Manifest,
    digest: Digest,
    size: usize,
    origin: Arc<Origin>,
    snapshots: Arc<Keeper>,
    metrics: PluginMetrics,
}

impl Plugin {
    pub(crate) fn new(
        manifest: Manifest,
        digest: Digest,
        size: usize,
        origin: Arc<Origin>,
        snapshots: Arc<Keeper>,
    ) -> Self {
        Self {
            metrics: PluginMetrics::of(&manifest.name),
            manifest,
            digest,
            size,
            origin,
            snapshots,
        }
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its address.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes of its file.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What each of its calls may use: what its manifest asks, capped by the operator.
    pub fn limits(&self) -> &Limits {
        &self.origin.sandbox.limits
    }

    /// Why it cannot be snapshotted, if it cannot: every call then runs `prepare`.
    pub fn unsupported_snapshots(&self) -> Option<&str> {
        self.origin.unsupported.as_deref()
    }

    /// Makes the snapshot for a setup, or waits for it. Calls ask for it by themselves and do not wait.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub async fn snapshot(&self, setup: &Setup) -> Result<SnapshotInfo, SnapshotError> {
        self.snapshots.wait(&self.origin, setup).await
    }

    /// How far the snapshot for a setup is.
    pub fn snapshot_status(&self, setup: &Setup) -> SnapshotStatus {
        self.snapshots.status(&self.origin, setup)
    }

    /// Asks for the snapshot for a setup, so that it is there before the first call. Nobody waits for it.
    pub fn request_snapshot(&self, setup: &Setup) {
        let _asked = self.find(setup);
    }

    /// Runs `prepare` alone, without a snapshot: do the settings and the form's schema fit?
    ///
    /// The answer's errors carry pointers into the settings or the schema.
    pub async fn prepare(&self, setup: &Setup, context: CallContext) -> Report<()> {
        self.call(&Lookup::Plain, setup, Work::Prepare, &context)
            .await
            .map(|_| ())
    }

    /// Runs the work function in a fresh instance: one that begins from the setup's snapshot when there is one, else one
    /// that runs `prepare` first.
    pub async fn work(&self, setup: &Setup, submission: &SubmissionInput, context: CallContext) -> Report<Output> {
        self.call(&self.find(setup), setup, Work::Submission(submission), &context)
            .await
    }

    /// Runs the work function on several submissions, one after another **in one instance**: faster, and without the
    /// promise that no submission's data is in memory another one sees. For forms whose owner allows it.
    ///
    /// Each submission has its own limits, its own report and its own failure; after one that traps or hits a limit the
    /// next begins in a fresh instance.
    pub async fn work_batch(
        &self,
        setup: &Setup,
        submissions: &[SubmissionInput],
        context: &CallContext,
    ) -> Vec<Report<Output>> {
        let mut reports = Vec::with_capacity(submissions.len());
        let mut live: Option<(Call, Guest)> = None;
        for submission in submissions {
            let report = match &mut live {
                None => {
                    let snapshot = self.find(setup);
                    let (image, prepared) = self.image(&snapshot);
                    let mut call = self.origin.sandbox.call(context);
                    let mut started = None;
                    let report = {
                        let (store, guest) = (&mut call.store, &mut started);
                        let work = async move {
                            let new = match begin(image, prepared, store, setup).await? {
                                Ok(new) => new,
                                Err(error) => return Ok(Err(error)),
                            };
                            let answer = new.work(store, submission).await;
                            *guest = Some(new);
                            answer
                        };
                        drive(&call.meter, context, &call.stdio, work).await
                    };
                    live = started.map(|guest| (call, guest));
                    report
                }
                Some((call, guest)) => {
                    call.renew(self.limits());
                    drive(
                        &call.meter,
                        context,
                        &call.stdio,
                        guest.work(&mut call.store, submission),
                    )
                    .await
                }
            };
            // A plugin's own error is an answer; anything else may have stopped the guest in the middle of something.
            if !matches!(
                report.result,
                Ok(_) | Err(CallError::Plugin(_) | CallError::BadAnswer(_))
            ) {
                live = None;
            }
            self.metrics.observe(&report);
            reports.push(report);
        }
        reports
    }

    /// What an exporter writes before the first or after the last record.
    pub async fn export_frame(&self, setup: &Setup, frame: Frame, context: CallContext) -> Report<Vec<u8>> {
        let report = self.call(&self.find(setup), setup, Work::Frame(frame), &context).await;
        report.map(|output| output.export.unwrap_or_default())
    }

    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The snapshot for a call, if there is one; asks for it otherwise.
    pub(crate) fn find(&self, setup: &Setup) -> Lookup {
        self.snapshots.find(&self.origin, setup)
    }

    /// Where a call begins, and whether `prepare` is behind it there.
    fn image<'a>(&'a self, snapshot: &'a Lookup) -> (&'a Image, bool) {
        match snapshot {
            Lookup::Ready(image) => (image, true),
            Lookup::Plain => (&self.origin.base, false),
        }
    }

    /// One call in an instance of its own.
    async fn call(&self, snapshot: &Lookup, setup: &Setup, work: Work<'_>, context: &CallContext) -> Report<Output> {
        let (image, prepared) = self.image(snapshot);
        let Call { meter, stdio, store } = self.origin.sandbox.call(context);
        let report = drive(&meter, context, &stdio, run(image, prepared, store, setup, work)).await;
        self.metrics.observe(&report);
        report
    }

    /// A call on the plain path, which leaves no snapshot behind: the self-tests of an install are.
    pub(crate) async fn work_plainly(
        &self,
        setup: &Setup,
        submission: &SubmissionInput,
        context: &CallContext,
    ) -> Report<Output> {
        self.call(&Lookup::Plain, setup, Work::Submission(submission), context)
            .await
    }
}

/// A fresh instance that has prepared.
async fn begin(image: &Image, prepared: bool, store: &mut Store<State>, setup: &Setup) -> Answer<Guest> {
    let guest = image.world.instantiate(store).await?;
    if !prepared && let Err(error) = guest.prepare(store, setup).await? {
        return Ok(Err(error));
    }
    Ok(Ok(guest))
}

async fn run(image: &Image, prepared: bool, mut store: Store<State>, setup: &Setup, work: Work<'_>) -> Answer<Output> {
    let guest = match begin(image, prepared, &mut store, setup).await? {
        Ok(guest) => guest,
        Err(error) => return Ok(Err(error)),
    };
    match work {
        Work::Prepare => Ok(Ok(Output {
            json: Value::Null,
            rejected: false,
            export: None,
        })),
        Work::Submission(submission) => guest.work(&mut store, submission).await,
        Work::Frame(frame) => guest.frame(&mut store, frame).await,
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.snapshots.forget(&self.origin);
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("manifest", &self.manifest)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

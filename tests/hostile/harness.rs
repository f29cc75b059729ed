//! Letting a guest in, and saying how it must end.

use std::fmt::Debug;
use std::time::Duration;

use formwork_engine::{CallContext, CallError, InstallError, Limit, Output, Report};
use formwork_guests::Guest;
use formwork_tests::{Arena, call, submission};
use serde_json::{Value, json};

/// How much guest time may pass between a limit and the end.
const OVERRUN: Duration = Duration::from_millis(400);

/// A call that has ended.
pub(crate) struct Ended<T>(pub(crate) Report<T>);

/// Lets the guest have a submission; the engine must serve afterwards.
pub(crate) async fn attack(guest: &Guest) -> Ended<Output> {
    attack_with(guest, &json!({}), CallContext::default()).await
}

/// As [`attack`], with this submission and for this caller.
pub(crate) async fn attack_with(guest: &Guest, data: &Value, context: CallContext) -> Ended<Output> {
    let arena = Arena::shared().await;
    let plugin = arena.plugin(guest).await;
    let report = call(&plugin, &submission(data), context).await;
    arena.serves().await;
    Ended(report)
}

/// Cancels the guest once it has run for a moment: it must end before any limit.
pub(crate) async fn cancelled(guest: &Guest) {
    // Long enough to be cancelled in; the host runs a start function once at install, which nobody cancels.
    let patient = guest.clone().limits(&json!({ "cpu_ms": 2_000, "wall_ms": 60_000 }));
    let arena = Arena::shared().await;
    let plugin = arena.plugin(&patient).await;
    let context = CallContext::default();
    let cancel = context.cancel.clone();
    let submission = submission(&json!({}));
    // The call is polled first and runs until it gives the thread away: at an epoch, or when it waits.
    let (report, ()) = tokio::join!(biased; call(&plugin, &submission, context), async { cancel.cancel() });
    assert!(
        report.usage.wall > Duration::ZERO && report.usage.memory_bytes > 0,
        "it never ran"
    );
    assert_eq!(Ended(report).error(), CallError::Cancelled);
    arena.serves().await;
}

/// Installs what must not be installed; the engine must serve afterwards.
pub(crate) async fn refused(file: Vec<u8>) -> InstallError {
    let arena = Arena::shared().await;
    let error = arena.install(file).await.expect_err("it was installed");
    arena.serves().await;
    error
}

impl<T: Debug> Ended<T> {
    /// The answer.
    #[track_caller]
    pub(crate) fn answer(self) -> T {
        self.0.result.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// The error.
    #[track_caller]
    pub(crate) fn error(self) -> CallError {
        self.0.result.expect_err("it ended well")
    }

    /// A limit ended it: this one, of this value, and at least as much was used.
    #[track_caller]
    pub(crate) fn limit(self, limit: Limit, value: u64) {
        let usage = self.0.usage.clone();
        let exceeded = match self.error() {
            CallError::Limit(exceeded) => exceeded,
            other => panic!("no limit ended it: {other:?}"),
        };
        assert_eq!((exceeded.limit, exceeded.value), (limit, value), "{exceeded}");
        assert!(exceeded.used >= value, "{exceeded}");
        let metered = match limit {
            Limit::CpuMs => usage.cpu.as_millis(),
            Limit::WallMs => usage.wall.as_millis(),
            Limit::HostCalls => usage.host_calls.into(),
            Limit::HostCallBytes => usage.host_call_bytes.into(),
            _ => return,
        };
        assert!(metered >= value.into(), "the report says {metered}: {exceeded}");
        let most = match limit {
            // Guest time does not grow because the machine is busy; one slice and one long instruction do count.
            Limit::CpuMs => u128::from(value) + OVERRUN.as_millis(),
            // The call that was refused.
            Limit::HostCalls => u128::from(value) + 1,
            _ => return,
        };
        assert!(metered <= most, "it went on: the report says {metered}: {exceeded}");
    }

    /// It trapped, and the trap says this.
    #[track_caller]
    pub(crate) fn traps(self, expected: &str) {
        match self.error() {
            CallError::Trap(message) => assert!(message.contains(expected), "trap: {message}"),
            other => panic!("no trap: {other:?}"),
        }
    }

    /// Its answer was refused, and the refusal says this.
    #[track_caller]
    pub(crate) fn bad_answer(self, expected: &str) {
        match self.error() {
            CallError::BadAnswer(message) => assert!(message.contains(expected), "bad answer: {message}"),
            other => panic!("no bad answer: {other:?}"),
        }
    }

    /// It ended within this much guest time.
    #[track_caller]
    pub(crate) fn within(self, cpu: Duration) -> Self {
        let used = self.0.usage.cpu;
        assert!(used <= cpu, "{used:?} of guest time, {cpu:?} expected at most");
        self
    }
}

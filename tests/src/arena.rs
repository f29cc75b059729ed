//! An engine that hostile plugins are let into, beside one that does as it should.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use formwork_engine::{
    CallContext, Engine, EngineOptions, Grant, InstallError, Output, Plugin, Report, SubmissionInput,
};
use formwork_guests::{Guest, SCRATCH, text, words};
use formwork_inference::{Inference, Options};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{setup, submission};

/// An engine and a plugin in it that answers what it was given.
pub struct Arena {
    engine: Engine,
    good: Arc<Plugin>,
    asked: AtomicU64,
}

impl Arena {
    /// An arena of its own, for tests about the engine's options. There are no models.
    pub async fn new(options: EngineOptions) -> Self {
        let inference = Inference::start(Options::default(), Vec::new()).expect("inference without models starts");
        let engine = Engine::new(options, inference).expect("the engine starts");
        let good = engine
            .install(echo().file(), &BTreeSet::new())
            .await
            .expect("the good plugin installs");
        Self {
            engine,
            good,
            asked: AtomicU64::new(0),
        }
    }

    /// The arena of the whole test program: what one guest does to it, the guests beside it would feel.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Arena> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::new(EngineOptions::default())).await
    }

    /// Installs a plugin, whatever it asks for.
    ///
    /// # Errors
    /// As [`Engine::install`].
    pub async fn install(&self, file: Vec<u8>) -> Result<Arc<Plugin>, InstallError> {
        self.engine.install(file, &BTreeSet::from(Grant::ALL)).await
    }

    /// Installs a guest.
    pub async fn plugin(&self, guest: &Guest) -> Arc<Plugin> {
        let installed = self.install(guest.file()).await;
        installed.unwrap_or_else(|error| panic!("the guest was refused: {error}"))
    }

    /// Asserts that the engine still serves: the good plugin answers a text it has not seen before.
    ///
    /// # Panics
    /// When it does not.
    pub async fn serves(&self) {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let data = json!({ "number": number });
        let report = call(&self.good, &submission(&data), CallContext::default()).await;
        let output = report.result.expect("a good plugin is served after a hostile one");
        assert_eq!(output.json["findings"][0]["message"], data.to_string());
    }
}

/// Calls the work function with this submission.
pub async fn call(plugin: &Plugin, submission: &SubmissionInput, context: CallContext) -> Report<Output> {
    plugin.work(&setup(&json!({}), &Value::Null), submission, context).await
}

/// A validator whose only finding has the submission's data as its message.
pub fn echo() -> Guest {
    const FINDING: u32 = SCRATCH + 64;
    const CODE: u32 = SCRATCH + 128;
    let code = text(CODE, "echo");
    let finding = [0, 0, code[0], code[1], 0, 0, INFO, 0, 0];
    Guest::validator()
        .manifest(&json!({ "name": "echo" }))
        .limits(&json!({ "memory_mib": 16, "cpu_ms": 5_000 }))
        .data(CODE, b"echo")
        .data(FINDING, &words(&finding))
        .data(SCRATCH, &words(&[0, FINDING, 1]))
        .work(&format!(
            "(i32.store (i32.const {message}) (local.get 4)) (i32.store (i32.const {length}) (local.get 5))
             (i32.const {SCRATCH})",
            message = FINDING + 16,
            length = FINDING + 20,
        ))
}

/// The severity that rejects nothing.
const INFO: u32 = 2;

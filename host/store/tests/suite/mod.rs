//! The cases, by subject, and what they share.

pub(crate) mod controls;
pub(crate) mod dead_letters;
pub(crate) mod exports;
pub(crate) mod forms;
pub(crate) mod lifecycle;
pub(crate) mod operate;
pub(crate) mod pipeline;
pub(crate) mod plugins;
pub(crate) mod retention;
pub(crate) mod submissions;
pub(crate) mod work;

use formwork_store::{
    Claimed, ExportChunk, Failure, ModelRef, NewForm, NewSubmission, Page, PluginRef, Provenance, Store, SubmissionId,
    Submit, TaskResult,
    tasks::{DeadReason, Disposition, Millis, Pool, Step, SubmissionStatus, Verdict},
};
use std::sync::atomic::{AtomicU64, Ordering};
use ulid::Ulid;

pub(crate) const NOW: Millis = Millis(1_700_000_000_000);
pub(crate) const LEASE_MS: u64 = 30_000;
pub(crate) const FORM: &str = "contact";

/// Identifiers that rise, so that tests can say which is newer.
pub(crate) fn new_id() -> SubmissionId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SubmissionId(Ulid::from_parts(NOW.0 as u64 + number, 7))
}

pub(crate) fn form(steps: Vec<Step>) -> NewForm {
    let definition = serde_json::json!({ "title": "Contact us", "steps": steps.len() }).to_string();
    NewForm {
        id: FORM.into(),
        digest: format!("sha256:{definition}"),
        definition,
        steps,
    }
}

pub(crate) async fn publish(store: &dyn Store, steps: Vec<Step>) {
    store.put_form(form(steps), NOW).await.expect("form is published");
}

pub(crate) fn submission(id: SubmissionId) -> NewSubmission {
    NewSubmission {
        id,
        form: FORM.into(),
        form_version: 1,
        data: r#"{"message":"hello"}"#.into(),
        correlation_id: format!("request-{id}"),
        idempotency: None,
        priority: None,
    }
}

pub(crate) async fn submit(store: &dyn Store) -> SubmissionId {
    submit_at(store, NOW).await
}

pub(crate) async fn submit_at(store: &dyn Store, now: Millis) -> SubmissionId {
    let id = new_id();
    let outcome = store.submit(submission(id), now).await.expect("submission is recorded");
    assert_eq!(outcome, Submit::Created);
    id
}

pub(crate) fn provenance() -> Provenance {
    Provenance {
        plugin: PluginRef {
            name: "classify".into(),
            version: "1.2.0".into(),
            digest: "sha256:00ff".into(),
        },
        models: vec![ModelRef {
            name: "minilm".into(),
            version: "2".into(),
            sha256: "ab".repeat(32),
        }],
    }
}

pub(crate) fn result(output: &str) -> TaskResult {
    TaskResult {
        output: output.into(),
        verdict: Verdict::Accepted,
        provenance: provenance(),
        cpu_ms: 1.5,
        export: None,
    }
}

pub(crate) fn rejected(output: &str) -> TaskResult {
    TaskResult {
        verdict: Verdict::Rejected,
        ..result(output)
    }
}

pub(crate) fn export(bytes: &[u8]) -> TaskResult {
    TaskResult {
        export: Some(ExportChunk { bytes: bytes.to_vec() }),
        ..result("{}")
    }
}

pub(crate) fn failure(disposition: Disposition) -> Failure {
    Failure {
        code: "plugin_trapped".into(),
        message: "out of bounds memory access".into(),
        disposition,
        provenance: Some(provenance()),
        cpu_ms: Some(0.25),
    }
}

pub(crate) fn dead() -> Failure {
    failure(Disposition::Dead(DeadReason::Failed))
}

pub(crate) async fn claim(store: &dyn Store, pool: Pool, limit: u32, now: Millis) -> Vec<Claimed> {
    store
        .claim(pool, "worker-a", limit, LEASE_MS, now)
        .await
        .expect("claim works")
}

pub(crate) async fn claim_one(store: &dyn Store, now: Millis) -> Claimed {
    let mut claimed = claim(store, Pool::Default, 1, now).await;
    assert_eq!(claimed.len(), 1, "exactly one task is claimed");
    claimed.remove(0)
}

pub(crate) async fn status(store: &dyn Store, id: SubmissionId) -> SubmissionStatus {
    store
        .submission(id)
        .await
        .expect("submission is read")
        .expect("submission exists")
        .summary
        .status
}

pub(crate) fn page(limit: u32, after: Option<String>) -> Page {
    Page { limit, after }
}

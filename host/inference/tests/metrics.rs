//! What is counted for each model and form: there, bounded, and in the documentation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::collections::BTreeSet;

use formwork_inference::{CallContext, limits};
use support::{ask, call, counter, service, texts};

/// Forms that find no label of their own left.
const TOO_MANY: usize = 7;

#[tokio::test]
async fn forms_have_labels_of_their_own_up_to_a_number() {
    let inference = service();
    let of_form = |form: String| CallContext {
        form: Some(form.into()),
        ..call()
    };
    for number in 0..limits::FORM_LABELS + TOO_MANY {
        let call = of_form(format!("form-{number}"));
        inference
            .embed("minilm", texts(&["the same text"]), &call)
            .await
            .unwrap();
    }
    // What is not declared is no label, whatever a plugin asks for.
    let known = of_form("form-0".into());
    let hostile = inference.embed("no-such-model", texts(&["a"]), &known).await;
    hostile.unwrap_err();
    let too_much = vec!["a".to_owned(); limits::MAX_TEXTS + 1];
    inference.embed("minilm", too_much, &known).await.unwrap_err();

    let calls = |form: &str, outcome: &str| {
        let labels = [("form", form), ("model", "minilm"), ("outcome", outcome)];
        counter("formwork_inference_form_calls_total", &labels)
    };
    assert_eq!(calls("form-0", "ok"), 1);
    assert_eq!(calls("form-0", "too-large"), 1);
    assert_eq!(calls("other", "ok"), TOO_MANY as u64);
    let mut completion = inference.generate("smol", ask("Say yes.", 2), &call()).await.unwrap();
    completion.text().await.unwrap();
    let families = prometheus::gather();
    let labels = families
        .iter()
        .flat_map(|family| family.get_metric())
        .flat_map(|metric| metric.get_label());
    let forms: BTreeSet<&str> = labels
        .clone()
        .filter(|label| label.name() == "form")
        .map(|label| label.value())
        .collect();
    assert_eq!(forms.len(), limits::FORM_LABELS + 1);
    assert!(labels.clone().all(|label| label.value() != "no-such-model"));

    // Every metric stands in the documentation, in full or with its first part left out.
    let page = include_str!("../../../docs/models.md");
    let mut seen = 0;
    for family in &families {
        let Some(name) = family.name().strip_prefix("formwork_inference_") else {
            continue;
        };
        seen += 1;
        let documented = page.contains(family.name()) || page.contains(&format!("`…_{name}`"));
        assert!(documented, "{} is not in docs/models.md", family.name());
    }
    assert!(seen > 10, "{seen}");
}

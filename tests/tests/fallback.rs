//! A step's fallback chain with the real plugins and models: who answers when the step's own plugin cannot.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod with_models;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use formwork_engine::{CallContext, CallError, Grant, SubmissionInput};
use formwork_pipeline::{Catalog, DefinitionError, FormDefinition, Pipeline, Reason, StepReport};
use formwork_tasks::Pool;
use formwork_tests::{build, submission};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use with_models::{encoder, engine_and_models, generator};

struct House {
    catalog: Catalog,
    runtime: tokio::runtime::Runtime,
}

/// All first-party plugins that infer, and one that does not, beside both models; once for the whole test program.
async fn house() -> &'static House {
    static HOUSE: OnceCell<House> = OnceCell::const_new();
    HOUSE
        .get_or_init(|| async {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let catalog = runtime
                .spawn(async {
                    let (engine, _) = engine_and_models(vec![encoder(), generator()]);
                    let nothing = tempfile::tempdir().unwrap();
                    let names = ["validate", "classify", "extract", "respond", "export"];
                    let grants = names.map(|name| (name.to_owned(), BTreeSet::from(Grant::ALL)));
                    let grants = BTreeMap::from(grants);
                    let (catalog, _) = Catalog::open(&engine, nothing.path(), grants).await.unwrap();
                    for name in names {
                        catalog.install(build(name)).await.unwrap();
                    }
                    catalog
                })
                .await
                .unwrap();
            House { catalog, runtime }
        })
        .await
}

const TEXT: &str = "My name is Anna Berg and I live in Zurich. I bought a toaster on 1 May 2026 for 49.90 EUR.";

fn message(text: &str) -> SubmissionInput {
    submission(&json!({ "message": text }))
}

/// A step that extracts, with these members besides.
fn extract(members: Value) -> Value {
    let mut step = json!({ "name": "step", "plugin": "extract", "settings": {
        "fields": ["/message"],
        "entities": { "person": { "type": "string", "description": "the customer's name" }, "day": { "type": "date" } } } });
    step.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    if let Some(model) = step.as_object_mut().unwrap().remove("model") {
        step["settings"]["model"] = model;
    }
    step
}

fn definition(step: &Value) -> Result<FormDefinition, DefinitionError> {
    FormDefinition::parse(
        json!({ "schema": { "type": "object" }, "pipeline": [step] })
            .to_string()
            .as_bytes(),
    )
}

fn pipeline(step: &Value) -> Pipeline {
    Pipeline::new("test", 1, Arc::new(definition(step).unwrap()))
}

fn context() -> CallContext {
    CallContext {
        owner: "test".into(),
        ..CallContext::default()
    }
}

/// The step's report, with the definition checked first as publishing does.
async fn run_with(step: Value, text: &str, context: CallContext) -> StepReport {
    let house = house().await;
    let text = message(text);
    let ran = house.runtime.spawn(async move {
        let pipeline = pipeline(&step);
        pipeline.check(&house.catalog, &context).await.unwrap();
        pipeline.run_step(&house.catalog, "step", &text, context).await
    });
    ran.await.unwrap()
}

async fn run(step: Value, text: &str) -> StepReport {
    run_with(step, text, context()).await
}

#[track_caller]
fn output(report: &StepReport) -> &Value {
    match &report.report.result {
        Ok(output) => &output.json,
        Err(error) => panic!("{error}"),
    }
}

/// The problems of a definition: (pointer, code).
async fn problems(step: Value) -> Vec<(String, String)> {
    let house = house().await;
    let checked = house.runtime.spawn(async move {
        match definition(&step) {
            Err(error) => Err(error),
            Ok(definition) => {
                let pipeline = Pipeline::new("test", 1, Arc::new(definition));
                pipeline.check(&house.catalog, &context()).await
            }
        }
    });
    let error = checked.await.unwrap().expect_err("the definition is wrong");
    let places = error
        .problems
        .into_iter()
        .map(|problem| (problem.pointer, problem.code));
    places.collect()
}

#[tokio::test]
async fn a_missing_model_leads_to_a_smaller_one_and_the_output_says_so() {
    let step = extract(json!({ "model": "generator-large", "fallback": [
        { "settings": { "model": "generator" } }, { "settings": { "model": null } }, "needs-review" ] }));
    let report = run(step, TEXT).await;
    let output = output(&report);
    let fallback = &output["fallback"];
    assert_eq!(fallback["rung"], 1, "{output}");
    assert_eq!(fallback["needs_review"], false);
    assert_eq!(fallback["above"].as_array().map(Vec::len), Some(1));
    let above = &fallback["above"][0];
    assert_eq!(above["rung"], 0);
    assert_eq!(above["plugin"]["name"], "extract");
    assert_eq!(
        (&above["reason"], &above["code"]),
        (&json!("unavailable"), &json!("unavailable"))
    );
    assert_eq!(above["inference"], "unknown-model");
    assert!(
        above["message"].as_str().unwrap().contains("generator-large"),
        "{above}"
    );
    // The alternative kept the step's entities.
    assert!(
        output["fields"]
            .as_array()
            .unwrap()
            .iter()
            .any(|field| field["name"] == "day"),
        "{output}"
    );
    let models: Vec<&str> = report.report.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(models, ["generator"]);
    assert!(report.report.usage.wall > Duration::ZERO);
}

#[tokio::test]
async fn the_steps_own_plugin_is_rung_0() {
    let step = extract(json!({ "model": null, "fallback": ["needs-review"] }));
    let report = run(step, TEXT).await;
    let fallback = &output(&report)["fallback"];
    assert_eq!((&fallback["rung"], &fallback["above"]), (&json!(0), &json!([])));
    // Rules alone: what only a model could find is missing.
    assert_eq!(output(&report)["missing"], json!(["person"]));
    assert!(report.report.models.is_empty());
}

#[tokio::test]
async fn a_slow_generator_leaves_time_for_the_rules() {
    let step = extract(json!({ "timeout_ms": 1, "fallback": [{ "settings": { "model": null }, "on": ["deadline"] }] }));
    let began = Instant::now();
    let context = CallContext {
        deadline: Some(began + Duration::from_secs(60)),
        ..context()
    };
    let report = run_with(step, TEXT, context).await;
    let fallback = &output(&report)["fallback"];
    assert_eq!(
        (&fallback["rung"], &fallback["above"][0]["reason"]),
        (&json!(1), &json!("deadline")),
        "{fallback}"
    );
}

#[tokio::test]
async fn an_unsure_answer_leads_on_and_is_a_suggestion_for_the_person_who_looks() {
    // Two dates, none of them named: the rule is not sure which is meant.
    let text = "On 1 May 2026 and on 2 May 2026.";
    let fallback = json!([{ "settings": { "entities": { "other": { "type": "iban" } } } }, "needs-review"]);
    let step = extract(json!({ "model": null, "min_confidence": 0.9, "fallback": fallback }));
    let report = run(step, text).await;
    let output = output(&report);
    assert_eq!(output["fallback"]["needs_review"], true, "{output}");
    assert_eq!(output["fallback"]["rung"], 2);
    assert!(output.get("fields").is_none(), "a suggestion is not an answer");
    assert_eq!(
        output["suggestion"]["fields"][0]["name"], "day",
        "the surest of the two: {output}"
    );
    let above = output["fallback"]["above"].as_array().unwrap();
    let reasons: Vec<_> = above
        .iter()
        .map(|rung| (&rung["reason"], rung["confidence"].as_f64().unwrap()))
        .collect();
    assert!(
        reasons
            .iter()
            .all(|(reason, confidence)| *reason == "low-confidence" && *confidence < 0.9),
        "{reasons:?}"
    );
    assert_eq!(reasons[1].1, 0.0, "nothing found is not sure at all");
    assert!(report.plugin.is_some());
}

#[tokio::test]
async fn without_a_last_resort_the_step_fails_with_every_rungs_reason() {
    let step = extract(json!({ "model": "large", "min_confidence": 1.0,
        "fallback": [{ "settings": { "model": "medium" } }, { "settings": { "model": null } }] }));
    let report = run(step, TEXT).await;
    let error = report.report.result.as_ref().unwrap_err();
    // A model that is not there now may be there later.
    assert_eq!((error.code(), error.retryable()), ("unavailable", true));
    let message = report.message().unwrap();
    for part in [
        "the step's own plugin: ",
        "large",
        "fallback 0: ",
        "medium",
        "fallback 1: ",
        "below the 1",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(
        report.refused.iter().map(|rung| rung.reason).collect::<Vec<_>>(),
        [Reason::Unavailable, Reason::Unavailable, Reason::LowConfidence]
    );
    // Nothing that may change: it is not tried again.
    let report = run(extract(json!({ "model": null, "min_confidence": 1.0 })), TEXT).await;
    let error = report.report.result.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("low-confidence", false));
}

#[tokio::test]
async fn only_the_named_reasons_lead_to_a_rung() {
    let step = extract(json!({ "model": "large", "fallback": [
        { "settings": { "entities": { "wrong": { "type": "date" } }, "model": null }, "on": ["deadline", "busy"] },
        { "settings": { "model": null }, "on": ["unavailable"] } ] }));
    let report = run(step, TEXT).await;
    let output = output(&report);
    assert_eq!(output["fallback"]["rung"], 2, "{output}");
    assert_eq!(output["fields"][0]["name"], "day");
    let step =
        extract(json!({ "model": "large", "fallback": [{ "settings": { "model": null }, "on": ["deadline"] }] }));
    assert_eq!(run(step, TEXT).await.report.result.unwrap_err().code(), "unavailable");
}

#[tokio::test]
async fn a_cancellation_ends_the_whole_chain() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let step = extract(json!({ "fallback": [{ "settings": { "model": null } }, "needs-review"] }));
    let report = run_with_unchecked(step, CallContext { cancel, ..context() }).await;
    assert_eq!(report.report.result, Err(CallError::Cancelled));
}

async fn run_with_unchecked(step: Value, context: CallContext) -> StepReport {
    let house = house().await;
    let ran = house.runtime.spawn(async move {
        pipeline(&step)
            .run_step(&house.catalog, "step", &message(TEXT), context)
            .await
    });
    ran.await.unwrap()
}

#[tokio::test]
async fn a_classifier_that_fits_no_label_is_for_a_person() {
    let step = |model: &str| {
        json!({ "name": "step", "plugin": "classify", "min_confidence": 0.5,
        "settings": { "fields": ["/message"], "model": model, "labels": [
            { "name": "refund", "description": "The customer wants money back.", "examples": ["I want my money back"] },
            { "name": "delivery", "description": "A parcel is late or lost.", "examples": ["Where is my parcel?"] } ] },
        "fallback": [{ "settings": { "model": "encoder" } }, "needs-review"] })
    };
    let report = run(step("encoder"), "I want my money back, please.").await;
    assert_eq!(output(&report)["label"], "refund");
    assert_eq!(output(&report)["fallback"]["rung"], 0);
    let report = run(step("encoder-large"), "I want my money back, please.").await;
    assert_eq!(output(&report)["fallback"]["rung"], 1);
    let report = run(step("encoder"), "The volcano erupted at dawn.").await;
    assert_eq!(output(&report)["fallback"]["needs_review"], true, "{}", output(&report));
    assert_eq!(output(&report)["suggestion"]["label"], "none");
}

#[tokio::test]
async fn a_response_is_drafted_with_progress_or_filled_in() {
    let step = |model: Value| {
        json!({ "name": "step", "plugin": "respond",
        "settings": { "model": model, "instruction": "Write a short and friendly reply to the customer.",
            "fields": ["/message"], "max_tokens": 24 },
        "fallback": [{ "settings": { "model": null, "text": "Thank you for: {/message}" } }] })
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let context = CallContext {
        progress: Some(Arc::new({
            let seen = Arc::clone(&seen);
            move |update| seen.lock().unwrap().push(update)
        })),
        ..context()
    };
    let report = run_with(step(json!("generator")), TEXT, context).await;
    let draft = output(&report);
    assert!(!draft["response"]["text"].as_str().unwrap().is_empty());
    let tokens = draft["response"]["tokens"].as_u64().unwrap();
    assert!((1..=24).contains(&tokens), "{draft}");
    assert!(["stop", "length"].contains(&draft["response"]["finish"].as_str().unwrap()));
    assert_eq!(draft["fallback"]["confidence"], draft["confidence"]);
    assert!((0.0..1.0).contains(&draft["confidence"].as_f64().unwrap()), "{draft}");
    let last = seen.lock().unwrap().pop().expect("progress is reported");
    assert!(
        last.done >= 1 && last.done <= last.total && last.total == 24,
        "{last:?}"
    );
    let report = run(step(json!("generator-large")), "an order").await;
    let text = &output(&report)["response"]["text"];
    assert_eq!(text, "Thank you for: an order");
    assert_eq!(output(&report)["fallback"]["rung"], 1);
}

#[tokio::test]
async fn what_is_wrong_with_a_chain_is_said_with_its_place() {
    let cases = [
        (
            json!({ "fallback": ["needs-review", { "settings": {} }] }),
            "/pipeline/0/fallback/0",
            "fallback",
        ),
        (json!({ "fallback": ["later"] }), "/pipeline/0/fallback/0", "definition"),
        (json!({ "fallback": [7] }), "/pipeline/0/fallback/0", "definition"),
        (
            json!({ "fallback": [{ "setting": {} }] }),
            "/pipeline/0/fallback/0/setting",
            "definition",
        ),
        (
            json!({ "fallback": [{ "on": ["rain"] }] }),
            "/pipeline/0/fallback/0/on/0",
            "definition",
        ),
        (
            json!({ "fallback": [{ "on": [] }] }),
            "/pipeline/0/fallback/0/on",
            "fallback",
        ),
        (
            json!({ "fallback": [{ "plugin": "a b" }] }),
            "/pipeline/0/fallback/0/plugin",
            "plugin-reference",
        ),
        (
            json!({ "fallback": [{ "plugin": "nobody" }] }),
            "/pipeline/0/fallback/0/plugin",
            "unknown-plugin",
        ),
        (
            json!({ "fallback": [{ "plugin": "classify" }] }),
            "/pipeline/0/fallback/0/plugin",
            "fallback-kind",
        ),
        (
            json!({ "fallback": [{ "min_confidence": 1.5 }] }),
            "/pipeline/0/fallback/0/min_confidence",
            "min-confidence",
        ),
        (
            json!({ "min_confidence": -0.5 }),
            "/pipeline/0/min_confidence",
            "min-confidence",
        ),
        (
            json!({ "fallback": [{ "timeout_ms": 0 }] }),
            "/pipeline/0/fallback/0/timeout_ms",
            "timeout",
        ),
        (
            json!({ "fallback": [{ "settings": { "entities": { "a": { "type": "dates" } } } }] }),
            "/pipeline/0/fallback/0/settings/entities/a/type",
            "settings",
        ),
        (
            json!({ "fallback": [{ "plugin": "respond", "settings": { "model": null } }] }),
            "/pipeline/0/fallback/0/settings/text",
            "required",
        ),
        (
            json!({ "plugin": "validate", "settings": {}, "fallback": ["needs-review"] }),
            "/pipeline/0/fallback",
            "fallback-kind",
        ),
        (
            json!({ "plugin": "export", "settings": {}, "min_confidence": 0.5 }),
            "/pipeline/0/min_confidence",
            "min-confidence",
        ),
    ];
    for (members, pointer, code) in cases {
        let found = problems(extract(members.clone())).await;
        assert_eq!(found, [(pointer.to_owned(), code.to_owned())], "{members}");
    }
    // What an alternative took over from the step is wrong in one place only.
    let mut step = extract(json!({ "fallback": [{ "settings": { "model": null } }] }));
    step["settings"]["country"] = json!("XX");
    assert_eq!(
        problems(step).await,
        [("/pipeline/0/settings/country".to_owned(), "country".to_owned())]
    );
}

#[tokio::test]
async fn a_chain_with_a_model_in_it_belongs_to_the_pool_of_inference() {
    let house = house().await;
    let step = extract(json!({ "fallback": [{ "settings": { "model": null } }, "needs-review"] }));
    let form = definition(&step).unwrap();
    let text = form.to_json();
    assert_eq!(
        FormDefinition::parse(text.as_bytes()).unwrap(),
        form,
        "it is stored as it was given"
    );
    let steps = pipeline(&step).steps(&house.catalog).unwrap();
    assert_eq!(steps[0].pool, Pool::Batched);
    let snapshots: Vec<_> = pipeline(&step)
        .snapshots(&house.catalog)
        .map(|(step, rung, _)| (step.to_owned(), rung))
        .collect();
    assert_eq!(snapshots, [("step".to_owned(), 0), ("step".to_owned(), 1)]);
}

/// Generations that keep a generator's only place in the queue taken, at the same time.
const CROWD: usize = 4;

#[tokio::test]
async fn a_busy_generator_leads_to_the_rules() {
    let house = house().await;
    // A service of its own: one call may wait for its generator, and no more.
    let ran = house.runtime.spawn(async {
        let options = formwork_inference::Options {
            queue: 1,
            ..formwork_inference::Options::default()
        };
        let inference = formwork_inference::Inference::start(options, vec![generator().at_start()]).unwrap();
        let engine =
            formwork_engine::Engine::new(formwork_engine::EngineOptions::default(), inference.clone()).unwrap();
        let nothing = tempfile::tempdir().unwrap();
        let grants = BTreeMap::from([("extract".to_owned(), BTreeSet::from(Grant::ALL))]);
        let (catalog, _) = Catalog::open(&engine, nothing.path(), grants).await.unwrap();
        catalog.install(build("extract")).await.unwrap();

        let stop = CancellationToken::new();
        let mut crowd = tokio::task::JoinSet::new();
        for number in 0..CROWD {
            let (inference, stop) = (inference.clone(), stop.clone());
            crowd.spawn(async move {
                // One that is refused asks again at once: there is always one that waits.
                while !stop.is_cancelled() {
                    let request = formwork_inference::GenerationRequest {
                        prompt: format!("Tell me a long story about the number {number}."),
                        max_tokens: 400,
                        ..formwork_inference::GenerationRequest::default()
                    };
                    let call = formwork_inference::CallContext {
                        cancel: stop.child_token(),
                        owner: "crowd".into(),
                        ..formwork_inference::CallContext::default()
                    };
                    match inference.generate("generator", request, &call).await {
                        Ok(mut story) => drop(story.text().await),
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            });
        }
        let step = extract(json!({ "fallback": [{ "settings": { "model": null }, "on": ["busy"] }] }));
        // The crowd may make room for a moment; that it is full is what is waited for.
        let answered = loop {
            let report = pipeline(&step)
                .run_step(&catalog, "step", &message(TEXT), context())
                .await;
            let answer = output(&report).clone();
            if answer["fallback"]["rung"] == 1 {
                break answer;
            }
        };
        stop.cancel();
        while crowd.join_next().await.is_some() {}
        answered
    });
    let answer = tokio::time::timeout(Duration::from_secs(60), ran)
        .await
        .unwrap()
        .unwrap();
    let above = &answer["fallback"]["above"][0];
    assert_eq!(
        (&above["reason"], &above["inference"]),
        (&json!("busy"), &json!("busy")),
        "{answer}"
    );
    // The rules found what they can.
    assert_eq!(answer["fields"][0]["name"], "day", "{answer}");
    assert_eq!(answer["missing"], json!(["person"]));
}

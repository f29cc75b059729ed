//! Models come into memory when they are called, stay within the budget, and go when they are not needed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use formwork_inference::{CancellationToken, Error, Inference, ModelSpec, ModelState, ModelStatus, Options};
use support::{ask, call, encoder, generator, options, texts};

/// What each model of these tests says it takes.
const MODEL_BYTES: u64 = 100 << 20;

fn on_demand(model: ModelSpec) -> ModelSpec {
    ModelSpec {
        memory_bytes: MODEL_BYTES,
        load: formwork_inference::Load::Demand,
        ..model
    }
}

/// A service whose budget holds so many of these models.
fn start(room_for: u64, models: Vec<ModelSpec>) -> Inference {
    let options = Options {
        memory_bytes: room_for * MODEL_BYTES,
        ..options()
    };
    Inference::start(options, models).unwrap()
}

fn status(inference: &Inference, name: &str) -> ModelStatus {
    let model = inference.models().into_iter().find(|model| model.id.name == name);
    model.expect("the model is declared")
}

fn state(inference: &Inference, name: &str) -> ModelState {
    status(inference, name).state
}

/// Waits until the model is in this state.
async fn until(inference: &Inference, name: &str, wanted: ModelState) {
    let begun = Instant::now();
    while state(inference, name) != wanted {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{name} is {:?}, not {wanted:?}",
            state(inference, name)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn embed(inference: &Inference, model: &str, text: &str) -> Result<(), Error> {
    inference.embed(model, texts(&[text]), &call()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_calls_load_a_model_once_and_all_are_answered() {
    let inference = start(3, vec![on_demand(encoder("first"))]);
    assert_eq!(state(&inference, "first"), ModelState::Evicted);
    let calls: Vec<_> = (0..8)
        .map(|n| {
            let inference = inference.clone();
            tokio::spawn(async move { embed(&inference, "first", &format!("text {n}")).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let status = status(&inference, "first");
    assert_eq!((status.state, status.loads, status.in_use), (ModelState::Ready, 1, 0));
    assert!(status.load_time.is_some() && status.last_used.is_some());
}

#[tokio::test]
async fn the_least_recently_used_makes_room_and_the_pinned_stays() {
    let mut pinned = on_demand(encoder("pinned"));
    pinned.pin = true;
    let inference = start(
        3,
        vec![
            pinned,
            on_demand(encoder("a")),
            on_demand(encoder("b")),
            on_demand(encoder("c")),
        ],
    );
    for model in ["pinned", "a", "b"] {
        embed(&inference, model, model).await.unwrap();
    }
    embed(&inference, "a", "again").await.unwrap();
    embed(&inference, "c", "c").await.unwrap();
    let states = ["pinned", "a", "b", "c"].map(|name| state(&inference, name));
    use ModelState::{Evicted, Ready};
    assert_eq!(states, [Ready, Ready, Evicted, Ready]);
    inference.pin("a", true).unwrap();
    inference.pin("c", true).unwrap();
    let error = embed(&inference, "b", "no room").await.unwrap_err();
    match &error {
        Error::Memory { model, held_by, .. } => {
            assert_eq!((model.as_str(), held_by.len()), ("b", 3), "{error}");
        }
        other => panic!("{other}"),
    }
    inference.pin("c", false).unwrap();
    embed(&inference, "b", "room").await.unwrap();
    let memory = inference.memory();
    assert_eq!(
        (memory.used_bytes, memory.peak_bytes),
        (memory.budget_bytes, memory.budget_bytes)
    );
}

#[tokio::test]
async fn what_is_known_is_answered_by_a_model_that_is_not_in_memory() {
    let inference = start(1, vec![on_demand(encoder("known")), on_demand(encoder("other"))]);
    let before = inference.embed("known", texts(&["hello"]), &call()).await.unwrap();
    // The same weights: what one of them knows, the other does.
    let twin = inference.embed("other", texts(&["hello"]), &call()).await.unwrap();
    assert_eq!((twin.model.name.as_str(), &twin.vectors), ("other", &before.vectors));
    assert_eq!(status(&inference, "other").loads, 0);
}

#[tokio::test]
async fn a_model_in_use_is_not_taken_away_and_the_next_one_waits_for_it() {
    let inference = start(1, vec![on_demand(generator("writer")), on_demand(encoder("reader"))]);
    let mut story = inference
        .generate("writer", ask("Write a long story.", 60), &call())
        .await
        .unwrap();
    assert!(story.next().await.unwrap().is_some());
    assert!(matches!(
        inference.unload("writer").await,
        Err(Error::InUse { calls: 1, .. })
    ));
    let mut hasty = call();
    hasty.deadline = Some(Instant::now() + Duration::from_millis(50));
    let error = inference.embed("reader", texts(&["a"]), &hasty).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error}");
    let patient = tokio::spawn({
        let inference = inference.clone();
        async move { embed(&inference, "reader", "b").await }
    });
    story.text().await.unwrap();
    drop(story);
    patient.await.unwrap().unwrap();
    assert_eq!(state(&inference, "writer"), ModelState::Evicted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_model_in_constant_use_makes_room_after_a_while() {
    let inference = start(1, vec![on_demand(encoder("busy")), on_demand(encoder("rare"))]);
    let stop = CancellationToken::new();
    let callers: Vec<_> = (0..3)
        .map(|caller| {
            let (inference, stop) = (inference.clone(), stop.clone());
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.is_cancelled() {
                    n += 1;
                    embed(&inference, "busy", &format!("{caller} {n} {}", "word ".repeat(100)))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    until(&inference, "busy", ModelState::Ready).await;
    embed(&inference, "rare", "me too").await.unwrap();
    // And those who were asked to wait get theirs back.
    let before = status(&inference, "busy").loads;
    let begun = Instant::now();
    while status(&inference, "busy").loads == before {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_model_larger_than_the_budget_is_refused_with_what_to_do() {
    let mut large = on_demand(encoder("large"));
    large.memory_bytes = 2 * MODEL_BYTES;
    let inference = start(1, vec![large.clone()]);
    let error = embed(&inference, "large", "a").await.unwrap_err().to_string();
    assert!(error.contains("inference.memory_bytes"), "{error}");
    let options = Options {
        memory_bytes: MODEL_BYTES,
        ..options()
    };
    let error = Inference::start(options, vec![large.at_start()]).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_says_why_and_does_not_touch_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut broken = on_demand(encoder("broken"));
    let whole = fs::read(&broken.file.path).unwrap();
    broken.file.path = dir.path().join("model.onnx");
    let mut tampered = whole.clone();
    tampered[1_000_000] ^= 1;
    fs::write(&broken.file.path, &tampered).unwrap();
    let inference = start(2, vec![broken.clone(), on_demand(encoder("sound"))]);
    let first = embed(&inference, "broken", "a").await.unwrap_err();
    assert!(matches!(first, Error::Checksum { .. }), "{first}");
    let second = embed(&inference, "broken", "a").await.unwrap_err();
    assert!(
        matches!(&second, Error::LoadFailed { reason, .. } if *reason == first.to_string()),
        "{second}"
    );
    let status_now = status(&inference, "broken");
    assert_eq!(status_now.state, ModelState::Failed);
    assert_eq!(status_now.reason, Some(first.to_string()));
    embed(&inference, "sound", "a").await.unwrap();
    // By hand at once; by calls after the pause.
    let error = inference.load("broken", &call()).await.unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    fs::write(&broken.file.path, &whole).unwrap();
    inference.load("broken", &call()).await.unwrap();
    embed(&inference, "broken", "b").await.unwrap();
    // What was verified once is verified again.
    inference.unload("broken").await.unwrap();
    fs::write(&broken.file.path, &tampered).unwrap();
    let error = embed(&inference, "broken", "c").await.unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
}

#[tokio::test]
async fn an_idle_model_unloads_itself_if_told_to() {
    let mut idle = on_demand(encoder("idle"));
    idle.idle_unload_seconds = 1;
    let inference = start(2, vec![idle, on_demand(encoder("stays"))]);
    embed(&inference, "idle", "a").await.unwrap();
    embed(&inference, "stays", "b").await.unwrap();
    until(&inference, "idle", ModelState::Evicted).await;
    assert_eq!(state(&inference, "stays"), ModelState::Ready);
    embed(&inference, "idle", "c").await.unwrap();
    assert_eq!(status(&inference, "idle").loads, 2);
}

#[tokio::test]
async fn unknown_models_and_stopped_services_say_so() {
    let inference = start(1, vec![on_demand(encoder("only"))]);
    for error in [
        inference.load("none", &call()).await.unwrap_err(),
        inference.unload("none").await.unwrap_err(),
        inference.pin("none", true).unwrap_err(),
    ] {
        assert!(matches!(error, Error::UnknownModel { .. }), "{error}");
    }
    inference.unload("only").await.unwrap();
    inference.shutdown();
    let error = embed(&inference, "only", "a").await.unwrap_err();
    assert!(matches!(error, Error::ShuttingDown), "{error}");
    assert_eq!(state(&inference, "only"), ModelState::Stopped);
}

//! Texts become vectors that mean something, the same ones every time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::time::{Duration, Instant};

use formwork_inference::{CancellationToken, Error, Inference, Options};
use support::{call, dot, encoder, options, service, texts};

#[tokio::test]
async fn similar_sentences_are_closer_than_unrelated_ones() {
    let answer = service()
        .embed(
            "minilm",
            texts(&[
                "I want my money back for this order.",
                "Please refund what I paid.",
                "The weather in Oslo is cold today.",
            ]),
            &call(),
        )
        .await
        .unwrap();
    assert_eq!(answer.dimensions, 384);
    assert_eq!(answer.model.name, "minilm");
    assert_eq!(answer.model.sha256, support::onnx().sha256);
    assert_eq!(answer.truncated, 0);
    let rows: Vec<&[f32]> = answer.vectors.chunks(384).collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        assert!((dot(row, row) - 1.0).abs() < 1e-5, "a vector's length is not 1");
    }
    let (near, far) = (dot(rows[0], rows[1]), dot(rows[0], rows[2]));
    assert!(near > far + 0.3, "refund/refund {near}, refund/weather {far}");
}

#[tokio::test]
async fn a_cached_vector_equals_a_computed_one() {
    let fresh = Inference::start(
        Options {
            embedding_cache_bytes: 0,
            ..options()
        },
        vec![encoder("uncached")],
    )
    .unwrap();
    let question = texts(&["When will my parcel arrive?"]);
    let first = service().embed("minilm", question.clone(), &call()).await.unwrap();
    let hit = service().embed("minilm", question.clone(), &call()).await.unwrap();
    let computed = fresh.embed("uncached", question.clone(), &call()).await.unwrap();
    let again = fresh.embed("uncached", question, &call()).await.unwrap();
    assert_eq!(first.vectors, hit.vectors);
    assert_eq!(computed.vectors, again.vectors);
    assert_eq!(first.vectors, computed.vectors);
}

#[tokio::test]
async fn the_second_time_comes_from_the_cache_and_twins_are_computed_once() {
    let inference = Inference::start(options(), vec![encoder("counting")]).unwrap();
    let source = |source| {
        support::counter(
            "formwork_inference_texts_total",
            &[("model", "counting"), ("source", source)],
        )
    };
    inference
        .embed("counting", texts(&["a", "b", "a"]), &call())
        .await
        .unwrap();
    assert_eq!((source("model"), source("cache")), (2, 1));
    inference.embed("counting", texts(&["b", "c"]), &call()).await.unwrap();
    assert_eq!((source("model"), source("cache")), (3, 2));
}

#[tokio::test]
async fn a_text_means_the_same_alone_and_in_a_batch() {
    let inference = Inference::start(
        Options {
            embedding_cache_bytes: 0,
            ..options()
        },
        vec![encoder("batching")],
    )
    .unwrap();
    let all: Vec<String> = (0..40)
        .map(|n| {
            format!(
                "Order {n} arrived {} and I am {}.",
                "very ".repeat(n % 13),
                ["glad", "angry"][n % 2]
            )
        })
        .collect();
    let batch = inference.embed("batching", all.clone(), &call()).await.unwrap();
    for (row, text) in batch.vectors.chunks(batch.dimensions).zip(&all) {
        let single = inference.embed("batching", vec![text.clone()], &call()).await.unwrap();
        let worst = row
            .iter()
            .zip(&single.vectors)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "{text:?} differs by {worst}");
    }
}

#[tokio::test]
async fn empty_and_strange_texts_have_vectors_and_long_ones_are_cut_and_said_so() {
    let long = "word ".repeat(50_000);
    let answer = service()
        .embed("minilm", texts(&["", "\u{0}\u{fffd}🙂", &long, "short"]), &call())
        .await
        .unwrap();
    assert_eq!(answer.vectors.len(), 4 * answer.dimensions);
    assert_eq!(answer.truncated, 1);
    assert!(answer.vectors.iter().all(|value| value.is_finite()));
    let none = service().embed("minilm", Vec::new(), &call()).await.unwrap();
    assert!(none.vectors.is_empty());
}

#[tokio::test]
async fn too_many_texts_or_bytes_are_typed_errors() {
    let many = vec![String::new(); formwork_inference::limits::MAX_TEXTS + 1];
    let error = service().embed("minilm", many, &call()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                limit: 1024,
                got: 1025,
                ..
            }
        ),
        "{error}"
    );
    let big = vec!["x".repeat(formwork_inference::limits::MAX_EMBED_BYTES + 1)];
    let error = service().embed("minilm", big, &call()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn unknown_models_and_wrong_tasks_are_named() {
    let error = service().embed("minilm2", texts(&["a"]), &call()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown model: minilm2 (declared: graph, minilm, smol)"
    );
    let error = service().embed("smol", texts(&["a"]), &call()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::WrongTask {
                actual: "generator",
                wanted: "embed",
                ..
            }
        ),
        "{error}"
    );
    let error = service().embed("graph", texts(&["a"]), &call()).await.unwrap_err();
    assert!(matches!(error, Error::WrongTask { actual: "graph", .. }), "{error}");
}

#[tokio::test]
async fn a_past_deadline_or_cancelled_call_is_not_worked_on() {
    let mut late = call();
    late.deadline = Some(Instant::now());
    let error = service().embed("minilm", texts(&["late"]), &late).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error}");
    let mut gone = call();
    gone.cancel = CancellationToken::new();
    gone.cancel.cancel();
    let error = service().embed("minilm", texts(&["gone"]), &gone).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[tokio::test]
async fn a_deadline_within_a_large_batch_ends_it_and_the_model_answers_the_next() {
    let inference = Inference::start(
        Options {
            embedding_cache_bytes: 0,
            ..options()
        },
        vec![encoder("deadline")],
    )
    .unwrap();
    let large: Vec<String> = (0..1_000)
        .map(|n| format!("{n} {}", "long text ".repeat(200)))
        .collect();
    let mut short = call();
    short.deadline = Some(Instant::now() + Duration::from_millis(300));
    let error = inference.embed("deadline", large, &short).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded), "{error}");
    inference.embed("deadline", texts(&["next"]), &call()).await.unwrap();
}

#[tokio::test]
async fn after_shutdown_calls_are_refused_and_it_can_be_repeated() {
    let inference = Inference::start(options(), vec![encoder("stopping")]).unwrap();
    inference.shutdown();
    inference.shutdown();
    let error = inference.embed("stopping", texts(&["a"]), &call()).await.unwrap_err();
    assert!(matches!(error, Error::ShuttingDown), "{error}");
    assert_eq!(inference.models()[0].state, formwork_inference::ModelState::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_at_the_same_time_share_runs_and_a_bulk_does_not_hold_up_the_others() {
    let uncached = Options {
        embedding_cache_bytes: 0,
        ..options()
    };
    let inference = Inference::start(uncached, vec![encoder("sharing")]).unwrap();
    let runs = || support::observations("formwork_inference_batch_texts", "sharing");
    let bulk: Vec<String> = (0..240)
        .map(|n| format!("bulk text {n} {}", "and so on ".repeat(20)))
        .collect();
    let bulk = tokio::spawn({
        let inference = inference.clone();
        async move { inference.embed("sharing", bulk, &call()).await.unwrap().vectors.len() }
    });
    while runs() == 0 {
        tokio::task::yield_now().await;
    }
    // While the bulk runs, 12 callers queue up: they get their answers, and before the bulk is through.
    let callers: Vec<_> = (0..12)
        .map(|n| {
            let inference = inference.clone();
            tokio::spawn(async move {
                let text = format!("caller {n} asks");
                inference.embed("sharing", vec![text], &call()).await.unwrap()
            })
        })
        .collect();
    let mut together = Vec::new();
    for caller in callers {
        together.push(caller.await.unwrap().vectors);
    }
    assert!(!bulk.is_finished(), "the bulk held up the others");
    assert_eq!(bulk.await.unwrap(), 240 * 384);
    let all = runs();
    for (n, vector) in together.iter().enumerate() {
        let alone = inference
            .embed("sharing", vec![format!("caller {n} asks")], &call())
            .await
            .unwrap();
        assert!(
            dot(vector, &alone.vectors) > 0.9999,
            "caller {n} got another vector than alone"
        );
    }
    assert_eq!(runs(), all + 12, "a lone call is a run of its own");
    // 240 texts of about 66 tokens, 3 a run, and at most a run for each caller.
    assert!(all <= 80 + 12, "{all} runs");
}

#[tokio::test]
async fn texts_beyond_the_window_that_begin_alike_have_the_same_vector() {
    let window = "word ".repeat(400);
    let endless = "word ".repeat(800_000);
    let answer = service().embed("minilm", vec![window, endless], &call()).await.unwrap();
    assert_eq!(answer.truncated, 2);
    assert_eq!(answer.vectors[..384], answer.vectors[384..]);
}

#[tokio::test]
async fn int8_arithmetic_changes_a_vector_little() {
    let floats = Options {
        integer_arithmetic: false,
        embedding_cache_bytes: 0,
        ..options()
    };
    let inference = Inference::start(floats, vec![encoder("floats")]).unwrap();
    let questions = texts(&[
        "When will my parcel arrive?",
        "please transfer 400 dollars from checking to savings",
        "Ok lar... Joking wif u oni...",
        "12345",
        "The invoice of 2026-03-01 names the wrong company; our VAT number is DE123456789, and the sum should be 1,204.50.",
    ]);
    let exact = inference.embed("floats", questions.clone(), &call()).await.unwrap();
    let quick = service().embed("minilm", questions.clone(), &call()).await.unwrap();
    let vectors = quick
        .vectors
        .chunks(quick.dimensions)
        .zip(exact.vectors.chunks(exact.dimensions));
    for ((quick, exact), question) in vectors.zip(questions) {
        let cosine = dot(quick, exact);
        assert!(cosine > 0.99, "{question}: {cosine}");
    }
    let pays = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    assert_eq!(quick.vectors != exact.vectors, pays, "whether the graph was rewritten");
}

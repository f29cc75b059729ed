//! Both libraries at once, from many callers: everybody gets the right answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use formwork_inference::Inference;
use support::{ask, call, encoder, generator, options, service, texts, written};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embeddings_and_generations_at_the_same_time_do_not_disturb_each_other() {
    let alone = written(service(), "smol", "Name the capital of France.", 8).await;
    let vector = service()
        .embed("minilm", texts(&["alone"]), &call())
        .await
        .unwrap()
        .vectors;
    let mut tasks = Vec::new();
    for n in 0..12 {
        let (alone, vector) = (alone.clone(), vector.clone());
        tasks.push(tokio::spawn(async move {
            if n % 3 == 0 {
                let request = ask("Name the capital of France.", 8);
                let text = service()
                    .generate("smol", request, &call())
                    .await
                    .unwrap()
                    .text()
                    .await
                    .unwrap();
                assert_eq!(text, alone);
            } else {
                let fresh = format!("a text of task {n}");
                let answer = service()
                    .embed("minilm", texts(&[&fresh, "alone"]), &call())
                    .await
                    .unwrap();
                assert_eq!(answer.vectors[384..], vector);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedding_does_not_wait_for_a_long_generation() {
    let inference = Inference::start(options(), vec![generator("slow"), encoder("quick")]).unwrap();
    let drawn = || {
        support::counter(
            "formwork_inference_tokens_total",
            &[("model", "slow"), ("kind", "output")],
        )
    };
    let request = ask("Write a very long story.", 300);
    let mut long = inference.generate("slow", request, &call()).await.unwrap();
    assert!(long.next().await.unwrap().is_some());
    inference.embed("quick", texts(&["in between"]), &call()).await.unwrap();
    let when_embedded = drawn();
    long.text().await.unwrap();
    assert!(
        when_embedded < drawn(),
        "the story had ended before the embedding was there"
    );
}

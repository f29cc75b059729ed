//! Prints how fast this machine answers: embeddings and tokens a second, time to the first token.
//!
//! `cargo run --release -p formwork-inference --example speed -- [ROUNDS]`; models as for the tests.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use formwork_inference::{CallContext, FileSpec, GenerationRequest, Inference, ModelSpec, ModelTask, Options};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(100), |rounds| rounds.parse())?;
    let options = Options {
        onnxruntime: cache()?.join("lib/libonnxruntime.so"),
        embedding_cache_bytes: 0,
        ..Options::default()
    };
    println!("threads                        {}", options.threads);
    let inference = Inference::start(options, models()?)?;
    for model in inference.models() {
        println!(
            "{:<30} load {} ms, file {} MB, memory +{} MB",
            model.id.name,
            model.load_time.unwrap_or_default().as_millis(),
            model.file_bytes / 1_000_000,
            model.memory_bytes / 1_000_000
        );
    }
    embeddings(&inference, rounds).await?;
    generation(&inference).await
}

async fn embeddings(inference: &Inference, rounds: u32) -> Outcome<()> {
    let call = CallContext::default();
    let text = |n: u32| format!("Order {n} has not arrived yet, could you please tell me where it is?");
    let mut times = Vec::new();
    for round in 0..rounds {
        let begun = Instant::now();
        inference.embed("minilm", vec![text(round)], &call).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    let total: Duration = times.iter().sum();
    println!(
        "embed, one text                {:.0}/s, p50 {:.2} ms, p95 {:.2} ms",
        f64::from(rounds) / total.as_secs_f64(),
        milliseconds(times[times.len() / 2]),
        milliseconds(times[times.len() * 95 / 100])
    );
    let batches = rounds.div_ceil(10);
    let begun = Instant::now();
    for batch in 0..batches {
        let texts = (0..32).map(|n| text(1_000_000 + batch * 32 + n)).collect();
        inference.embed("minilm", texts, &call).await?;
    }
    println!(
        "embed, 32 texts                {:.0}/s",
        f64::from(batches * 32) / begun.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn generation(inference: &Inference) -> Outcome<()> {
    let system = "You extract details from messages to a shop. ".repeat(40);
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":40},
        "email":{"type":"string","maxLength":60},"order_number":{"type":"string","maxLength":20},
        "date":{"type":"string","format":"date"},"intent":{"enum":["refund","delivery","complaint","other"]}},
        "required":["name","email","order_number","date","intent"]}"#;
    let message = "Hello, I am Anna Berg (anna@example.org). Order AB-1234 of 2026-03-01 is broken, money back!";
    for (name, prompt, schema, max_tokens) in [
        (
            "generate, cold prefix",
            "Tell me a story about a lost bicycle.",
            None,
            100,
        ),
        (
            "generate, cached prefix",
            "Tell me a story about a found umbrella.",
            None,
            100,
        ),
        ("extract JSON, cached prefix", message, Some(schema.to_owned()), 200),
        ("extract JSON, again", message, Some(schema.to_owned()), 200),
    ] {
        let request = GenerationRequest {
            system: system.clone(),
            prompt: prompt.to_owned(),
            max_tokens,
            json_schema: schema,
            ..GenerationRequest::default()
        };
        let begun = Instant::now();
        let mut completion = inference.generate("smollm2", request, &CallContext::default()).await?;
        let (mut first, mut text) = (None, String::new());
        while let Some(chunk) = completion.next().await? {
            first.get_or_insert_with(|| begun.elapsed());
            text.push_str(&chunk.text);
        }
        let (total, first) = (begun.elapsed(), first.unwrap_or_default());
        let summary = completion.summary().ok_or("no summary")?;
        println!(
            "{name:<30} first token {:.0} ms, then {:.0} tokens/s; {} of {} prompt tokens cached, {} out, {:.2} s in all",
            milliseconds(first),
            f64::from(summary.output_tokens.saturating_sub(1)) / (total - first).as_secs_f64(),
            summary.cached_tokens,
            summary.prompt_tokens,
            summary.output_tokens,
            total.as_secs_f64()
        );
        if name.starts_with("extract") {
            println!("    {}", text.replace('\n', " "));
        }
    }
    Ok(())
}

fn models() -> Outcome<Vec<ModelSpec>> {
    let file = |path: &str, sha256: &str| -> Outcome<FileSpec> {
        Ok(FileSpec {
            path: cache()?.join(path),
            sha256: sha256.to_owned(),
        })
    };
    let model = |name: &str, task, file| ModelSpec::new(name, "1", task, file).at_start();
    Ok(vec![
        model(
            "minilm",
            ModelTask::Encoder {
                tokenizer: file(
                    "models/all-MiniLM-L6-v2-tokenizer.json",
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                )?,
                max_tokens: 256,
            },
            file(
                "models/all-MiniLM-L6-v2-int8.onnx",
                "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
            )?,
        ),
        model(
            "smollm2",
            ModelTask::Generator {
                context_tokens: 2_048,
                prefix_slots: 2,
            },
            file(
                "models/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            )?,
        ),
    ])
}

fn cache() -> Outcome<PathBuf> {
    match std::env::var_os("FORMWORK_CACHE") {
        Some(cache) => Ok(cache.into()),
        None => Ok(PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache/formwork")),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

//! Prints how fast, how fair and how obedient generation is on this machine.
//!
//! `generation_speed [THREADS] [PART…]`; parts: speed, prefix, schema, extract, cancel, share, valid=N,
//! all but the last by default. The models are those of the tests (`make setup`), or the GGUF file named
//! by `FORMWORK_GGUF` (then its sha256 in `FORMWORK_GGUF_SHA256`).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use formwork_inference::{
    CallContext, FileSpec, FinishReason, GenerationRequest, Inference, ModelSpec, ModelTask, Options, Priority, Summary,
};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const MODEL: &str = "generator";
const ROUNDS: usize = 5;
const EXTRACT: &str = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":40},
    "email":{"type":"string","maxLength":60},"order_number":{"type":"string","maxLength":20},
    "date":{"type":"string","format":"date"},"intent":{"enum":["refund","delivery","complaint","other"]}},
    "required":["name","email","order_number","date","intent"],"additionalProperties":false}"#;
const MESSAGE: &str =
    "Hello, I am Anna Berg (anna@example.org). Order AB-1234 of 2026-03-01 is broken, money back please!";

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let threads = match arguments.peek().and_then(|first| first.parse().ok()) {
        Some(threads) => {
            arguments.next();
            threads
        }
        None => Options::default().threads,
    };
    let mut parts: Vec<String> = arguments.collect();
    if parts.is_empty() {
        parts = ["speed", "prefix", "schema", "extract", "cancel", "share"]
            .map(str::to_owned)
            .to_vec();
    }
    println!("threads asked for {threads}");
    let inference = start(threads)?;
    for part in parts {
        match part.as_str() {
            "speed" => speed(&inference).await?,
            "prefix" => prefix(threads).await?,
            "schema" => schema_cost(&inference).await?,
            "extract" => extract(&inference).await?,
            "cancel" => cancel(&inference).await?,
            "share" => share(&inference).await?,
            other => match other.strip_prefix("valid=").map(str::parse) {
                Some(Ok(count)) => valid(&inference, count).await?,
                _ => return Err(format!("unknown part: {other}").into()),
            },
        }
    }
    Ok(())
}

/// Greedy text: 128 tokens after a short prompt.
async fn speed(inference: &Inference) -> Outcome<()> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let run = generate(
            inference,
            ask("Tell me a long story about a lost bicycle.", 128),
            &call(),
        )
        .await?;
        rates.push(run.rate());
    }
    println!(
        "speed: greedy, tokens/s after the first        median {:.1}, all {}",
        median(&rates),
        list(&rates)
    );
    Ok(())
}

/// Time to the first token, with nothing kept and with the system text kept.
async fn prefix(threads: usize) -> Outcome<()> {
    let inference = start(threads)?;
    let (mut cold, mut warm, mut other, mut summary) = (Vec::new(), Vec::new(), Vec::new(), None);
    for round in 0..ROUNDS {
        // Differs from its first token on, so that nothing is shared between rounds.
        let system = |form: &str| {
            format!("{round}{form} You sort messages of customers of a bicycle shop. ") + &SENTENCES.repeat(8)
        };
        let request = |form: &str, prompt: &str| GenerationRequest {
            system: system(form),
            ..ask(prompt, 2)
        };
        cold.push(
            generate(&inference, request("a", "My chain broke."), &call())
                .await?
                .first_ms(),
        );
        let run = generate(&inference, request("a", "Where is it?"), &call()).await?;
        warm.push(run.first_ms());
        summary = Some(run.summary);
        // Other forms take all sequences; then the first comes back.
        for form in ["b", "c", "d"] {
            generate(&inference, request(form, "Hello."), &call()).await?;
        }
        other.push(
            generate(&inference, request("a", "Is it here?"), &call())
                .await?
                .first_ms(),
        );
    }
    let summary = summary.ok_or("no round")?;
    println!(
        "prefix: first token cold {:.0} ms; kept {:.1} ms ({:.0} times shorter); after three other forms {:.1} ms \
         ({:.0} times); {} of {} tokens reused",
        median(&cold),
        median(&warm),
        median(&cold) / median(&warm),
        median(&other),
        median(&cold) / median(&other),
        summary.cached_tokens,
        summary.prompt_tokens
    );
    Ok(())
}

const SENTENCES: &str = "Read the message with care, find what the customer wants, and answer in one short sentence. \
    Topics are orders, repairs, refunds, parts and opening hours. Never promise a date that is not in the text. ";

/// Time of a token with and without a schema, on the same prompt.
async fn schema_cost(inference: &Inference) -> Outcome<()> {
    let (mut free, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let prompt = format!("Write a JSON object about this message: {MESSAGE}");
        let request = |schema: Option<&str>| GenerationRequest {
            json_schema: schema.map(str::to_owned),
            ..ask(&prompt, 64)
        };
        free.push(generate(inference, request(None), &call()).await?.rate());
        bound.push(generate(inference, request(Some(EXTRACT)), &call()).await?.rate());
    }
    println!(
        "schema: tokens/s free {:.1}, constrained {:.1}: cost {:.1} %",
        median(&free),
        median(&bound),
        (1.0 - median(&bound) / median(&free)) * 100.0
    );
    Ok(())
}

/// Five fields out of a message, the system text kept.
async fn extract(inference: &Inference) -> Outcome<()> {
    let mut times = Vec::new();
    let mut last = None;
    for round in 0..=ROUNDS {
        let request = GenerationRequest {
            system: "You extract details from messages to a shop. Answer with JSON. ".to_owned() + SENTENCES,
            json_schema: Some(EXTRACT.to_owned()),
            ..ask(&format!("{MESSAGE} ({round})"), 200)
        };
        let run = generate(inference, request, &call()).await?;
        if round > 0 {
            times.push(run.total.as_secs_f64());
        }
        last = Some(run);
    }
    let last = last.ok_or("no round")?;
    println!(
        "extract: five fields median {:.3} s, {} tokens, {} of {} prompt tokens reused: {}",
        median(&times),
        last.summary.output_tokens,
        last.summary.cached_tokens,
        last.summary.prompt_tokens,
        last.text.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

/// From cancelling to the model being free, in the middle of a prompt and in the middle of a text.
async fn cancel(inference: &Inference) -> Outcome<()> {
    for (what, prompt, wait) in [
        ("a prompt", "word ".repeat(1_500), 100_u64),
        ("a text", "Write a very long story.".to_owned(), 400),
    ] {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let frame = call();
            let mut running = inference
                .generate(MODEL, ask(&format!("{round} {prompt}"), 1_000), &frame)
                .await?;
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let begun = Instant::now();
            frame.cancel.cancel();
            running.stopped().await;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        println!(
            "cancel: in {what}, stopped after median {:.1} ms, all {}",
            median(&times),
            list(&times)
        );
    }
    Ok(())
}

/// A short text while long ones run.
async fn share(inference: &Inference) -> Outcome<()> {
    let short = || ask("Name the capital of France.", 8);
    let alone = generate(inference, short(), &call()).await?;
    println!("share: 8 tokens alone {:.0} ms", alone.total.as_secs_f64() * 1e3);
    for (what, priority, rivals) in [
        ("beside 1 long text", Priority::Normal, 1),
        ("beside 4 long texts", Priority::Normal, 4),
        ("high, beside 4 long low ones", Priority::High, 4),
    ] {
        let frame = CallContext {
            priority: if priority == Priority::High {
                Priority::Low
            } else {
                Priority::Normal
            },
            ..call()
        };
        let mut tasks = Vec::new();
        for rival in 0..rivals {
            let (inference, frame) = (inference.clone(), frame.clone());
            tasks.push(tokio::spawn(async move {
                let request = ask(&format!("Write long story {rival}."), 600);
                if let Ok(mut running) = inference.generate(MODEL, request, &frame).await {
                    while let Ok(Some(_)) = running.next().await {}
                }
            }));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let run = generate(inference, short(), &CallContext { priority, ..call() }).await?;
        println!(
            "share: 8 tokens {what}: {:.0} ms, first token after {:.0} ms",
            run.total.as_secs_f64() * 1e3,
            run.first_ms()
        );
        frame.cancel.cancel();
        for task in tasks {
            task.await?;
        }
    }
    Ok(())
}

/// Texts under many schemas, each parsed and validated; an answer cut by the token limit must say so.
async fn valid(inference: &Inference, count: usize) -> Outcome<()> {
    let schemas = schemas();
    let (mut whole, mut cut, mut refused, mut tokens) = (0, 0, 0, 0);
    let begun = Instant::now();
    for index in 0..count {
        let schema = &schemas[index % schemas.len()];
        let request = GenerationRequest {
            temperature: [0.0, 0.7, 1.5][index / schemas.len() % 3],
            seed: index as u64,
            json_schema: Some(schema.to_string()),
            ..ask(&format!("Fill in the form. {MESSAGE} ({index})"), 400)
        };
        let run = generate(inference, request, &call()).await?;
        tokens += run.summary.output_tokens;
        match run.summary.reason {
            FinishReason::Length => cut += 1,
            _ => {
                let value: Value = serde_json::from_str(&run.text)?;
                if jsonschema::is_valid(schema, &value) {
                    whole += 1;
                } else {
                    refused += 1;
                    println!("valid: {value} is not valid for {schema}");
                }
            }
        }
    }
    println!(
        "valid: {whole} of {count} parsed and valid, {cut} cut by the token limit and said so, {refused} invalid; \
         {tokens} tokens in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    if refused > 0 {
        Err("invalid outputs".into())
    } else {
        Ok(())
    }
}

/// Bounded in length, so that a small model that rambles still comes to an end.
fn schemas() -> Vec<Value> {
    let text = |most: u32| json!({ "type": "string", "maxLength": most });
    let object = |properties: Value| {
        let names: Vec<&String> = properties
            .as_object()
            .map(|object| object.keys().collect())
            .unwrap_or_default();
        json!({ "type": "object", "required": names, "properties": properties, "additionalProperties": false })
    };
    vec![
        serde_json::from_str(EXTRACT).unwrap_or_default(),
        object(
            json!({ "first": text(20), "last": text(20), "age": { "type": "integer", "minimum": 0, "maximum": 130 } }),
        ),
        object(
            json!({ "tags": { "type": "array", "items": text(12), "minItems": 1, "maxItems": 4 }, "urgent": { "type": "boolean" } }),
        ),
        object(
            json!({ "address": object(json!({ "street": text(30), "zip": { "type": "string", "pattern": r"^\d{5}$" } })) }),
        ),
        json!({ "enum": ["refund", "delivery", "complaint", "other"] }),
        json!({ "type": "integer", "minimum": -20, "maximum": 20 }),
        json!({ "type": "array", "minItems": 2, "maxItems": 3, "items": object(json!({ "day": { "type": "string", "format": "date" }, "n": { "type": "integer", "minimum": 1, "maximum": 9 } })) }),
        json!({ "anyOf": [ { "type": "null" }, object(json!({ "id": { "type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$" } })) ] }),
        object(
            json!({ "when": { "type": "string", "format": "date-time" }, "note": { "type": ["string", "null"], "maxLength": 24 } }),
        ),
        object(
            json!({ "größe \"q\"": { "type": "boolean" }, "root-cause": text(20), "score": { "type": "integer", "minimum": 1, "maximum": 5 } }),
        ),
        json!({ "type": "object", "properties": { "a": text(10), "b": { "type": "boolean" }, "c": { "const": 3 } }, "required": ["b"], "additionalProperties": false }),
        object(
            json!({ "lines": { "type": "array", "maxItems": 2, "items": { "type": "array", "maxItems": 3, "items": { "type": "boolean" } } }, "id": { "type": "string", "format": "uuid" } }),
        ),
    ]
}

struct Run {
    text: String,
    first: Duration,
    total: Duration,
    summary: Summary,
}

impl Run {
    fn first_ms(&self) -> f64 {
        self.first.as_secs_f64() * 1e3
    }

    fn rate(&self) -> f64 {
        f64::from(self.summary.output_tokens.saturating_sub(1)) / (self.total - self.first).as_secs_f64()
    }
}

async fn generate(inference: &Inference, request: GenerationRequest, call: &CallContext) -> Outcome<Run> {
    let begun = Instant::now();
    let mut completion = inference.generate(MODEL, request, call).await?;
    let (mut first, mut text) = (None, String::new());
    while let Some(chunk) = completion.next().await? {
        first.get_or_insert_with(|| begun.elapsed());
        text.push_str(&chunk.text);
    }
    let total = begun.elapsed();
    Ok(Run {
        text,
        first: first.unwrap_or(total),
        total,
        summary: completion.summary().ok_or("no summary")?,
    })
}

fn ask(prompt: &str, max_tokens: u32) -> GenerationRequest {
    GenerationRequest {
        prompt: prompt.to_owned(),
        max_tokens,
        ..GenerationRequest::default()
    }
}

fn call() -> CallContext {
    CallContext {
        owner: "bench".to_owned(),
        ..CallContext::default()
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn list(values: &[f64]) -> String {
    let shown: Vec<String> = values.iter().map(|value| format!("{value:.1}")).collect();
    shown.join(" ")
}

fn start(threads: usize) -> Outcome<Inference> {
    let options = Options {
        threads,
        ..Options::default()
    };
    let file = match std::env::var_os("FORMWORK_GGUF") {
        Some(path) => FileSpec {
            path: path.into(),
            sha256: std::env::var("FORMWORK_GGUF_SHA256")?,
        },
        None => FileSpec {
            path: cache()?.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53".to_owned(),
        },
    };
    let task = ModelTask::Generator {
        context_tokens: 2_048,
        prefix_slots: 2,
    };
    let model = ModelSpec::new(MODEL, "1", task, file).at_start();
    Ok(Inference::start(options, vec![model])?)
}

fn cache() -> Outcome<PathBuf> {
    match std::env::var_os("FORMWORK_CACHE") {
        Some(cache) => Ok(cache.into()),
        None => Ok(PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?).join(".cache/formwork")),
    }
}

//! Eight models, memory for three, random calls: the budget holds, memory goes back, and only documented errors are heard.
//! In a process of its own, because it looks at the process's memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::fs;
use std::time::Duration;

use formwork_inference::{CallContext, Error, Inference, ModelSpec, Options, Tensor, TensorData};
use support::{ask, call, encoder, generator, graph, options};

const CALLS: usize = 160;
const CALLERS: usize = 6;

fn models() -> Vec<ModelSpec> {
    let mut models: Vec<ModelSpec> = (0..4).map(|n| encoder(&format!("encoder{n}"))).collect();
    models.extend((0..2).map(|n| graph(&format!("graph{n}"))));
    models.extend((0..2).map(|n| generator(&format!("generator{n}"))));
    for model in &mut models {
        model.load = formwork_inference::Load::Demand;
    }
    models
}

async fn one_call(inference: &Inference, model: &str, n: usize, call: &CallContext) -> Result<(), Error> {
    match model.trim_end_matches(char::is_numeric) {
        "encoder" => {
            let texts = vec![format!("text {n} of {model}"), "a longer text ".repeat(n % 40)];
            inference.embed(model, texts, call).await.map(drop)
        }
        "graph" => {
            let ids = |value: i64| Tensor {
                shape: vec![1, 16],
                data: TensorData::I64(vec![value; 16]),
            };
            let inputs = [("input_ids", 2_000), ("attention_mask", 1), ("token_type_ids", 0)];
            let inputs = inputs.map(|(name, value)| (name.to_owned(), ids(value))).to_vec();
            inference.run(model, inputs, call).await.map(drop)
        }
        _ => {
            let mut completion = inference.generate(model, ask("Count to five.", 4), call).await?;
            completion.text().await.map(drop)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_calls_for_eight_models_stay_within_memory_for_three() {
    // Eight float copies of int8 weights are not what this test is about.
    let options = || Options {
        integer_arithmetic: true,
        ..options()
    };
    let unlimited = Inference::start(options(), models()).unwrap();
    unlimited.load("generator0", &call()).await.unwrap();
    unlimited.load("encoder0", &call()).await.unwrap();
    let reckoned: u64 = unlimited.models().iter().map(|model| model.memory_bytes).sum();
    let loaded = resident_bytes();
    unlimited.unload("generator0").await.unwrap();
    unlimited.unload("encoder0").await.unwrap();
    let freed = loaded.saturating_sub(resident_bytes());
    // 98 MB of weights, 47 MB of cache, 40 MB of encoder.
    assert!(
        freed > 120 << 20,
        "only {} MiB of {} MiB went back",
        freed >> 20,
        loaded >> 20
    );
    assert_eq!(unlimited.memory().used_bytes, 0);
    unlimited.shutdown();

    // A generator and two of the others.
    let budget = reckoned + reckoned / 3;
    let limited = Options {
        memory_bytes: budget,
        embedding_cache_bytes: 0,
        ..options()
    };
    let inference = Inference::start(limited, models()).unwrap();
    let empty = resident_bytes();
    let names: Vec<String> = inference.models().into_iter().map(|model| model.id.name).collect();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (inference, names) = (inference.clone(), names.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                for n in 0..CALLS / CALLERS {
                    // A fixed walk that looks random: a failure can be had again.
                    let model = &names[(n * 5 + caller * 3 + n * n) % names.len()];
                    let call = CallContext {
                        deadline: Some(std::time::Instant::now() + Duration::from_secs(60)),
                        ..call()
                    };
                    match one_call(&inference, model, n, &call).await {
                        Ok(()) => answered += 1,
                        Err(Error::Memory { .. } | Error::Busy { .. } | Error::DeadlineExceeded) => {}
                        Err(error) => panic!("{model}: {error}"),
                    }
                }
                answered
            })
        })
        .collect();
    let mut most = 0;
    while !callers.iter().all(|caller| caller.is_finished()) {
        most = most.max(resident_bytes());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answered = 0;
    for caller in callers {
        answered += caller.await.unwrap();
    }
    let memory = inference.memory();
    assert!(memory.peak_bytes <= budget, "{memory:?}");
    let grown = most.saturating_sub(empty);
    assert!(
        grown <= budget + budget / 20,
        "grew by {} MiB of {} MiB",
        grown >> 20,
        budget >> 20
    );
    assert!(answered > CALLS * 9 / 10, "{answered} of {CALLS} were answered");
    let evictions: u64 = inference.models().iter().map(|model| model.evictions).sum();
    assert!(evictions >= 5, "only {evictions} evictions: the budget was not tried");
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

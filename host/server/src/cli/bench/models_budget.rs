//! `formwork bench models-budget`: more models than memory, random calls, for as long as you like.
//!
//! **Problem.** Loading and freeing native models under load is where memory is lost bit by bit, which no test of seconds
//! shows. **Promise.** Variants of the declared models (the same weights, other names and digests, so that nothing is
//! shared) are called at random by several callers, with a budget for the largest few of them. The accounts are read and the
//! process's resident memory is sampled all the while; every answer that is not documented for a lack of memory or time is
//! a failure. The command fails when a bar is missed. **Cost.** The copies take disk: 0.4 GB with the default models.
//! **Rejected.** Reading only the accounts: they are what is to be checked.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use formwork_inference::{
    CallContext, Error, FileSpec, GenerationRequest, Inference, Load, ModelSpec, ModelTask, Tensor, TensorData,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::figures::Bar;
use super::publish::Memory;
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{Table, print, print_json};

/// How often resident memory is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// How long a caller waits for one answer: loads of all others may come before it.
const CALL_PATIENCE: Duration = Duration::from_secs(60);

/// Longest text of a call, in words; an encoder's window and a generator's context take it.
const WORDS: usize = 120;

/// How far resident memory may be above the budget.
const ABOVE: f64 = 1.05;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long, seconds.
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    /// Models, made of the declared ones.
    #[arg(long, value_name = "N", default_value_t = 8)]
    models: usize,
    /// How many of the largest models the budget holds.
    #[arg(long, value_name = "N", default_value_t = 3)]
    room: usize,
    /// Callers, each with one call under way.
    #[arg(long, value_name = "N", default_value_t = 6)]
    callers: usize,
    /// The same seed makes the same calls.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What the calls came to.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    /// By code, those that are documented for a lack of memory or time.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// All others.
    failures: Mutex<Vec<String>>,
}

/// What was measured.
struct Outcome {
    models: Vec<(String, u64)>,
    budget: u64,
    peak_accounted: u64,
    peak_resident: u64,
    resident_before: u64,
    loads: u64,
    evictions: u64,
    tally: Arc<Tally>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let config = crate::cli::load_config(options.config.as_deref())
        .map_err(|error| Failure::Usage(error.to_string()))?
        .config;
    if options.models == 0 || !(1..=options.models).contains(&options.room) || options.callers == 0 {
        return Err(Failure::Usage(
            "--models and --callers must be at least 1, --room at most --models".into(),
        ));
    }
    if config.models.is_empty() {
        return Err(Failure::Usage("no [[models]] in the configuration".into()));
    }
    let mut log = config.log.clone();
    // Every load and every model that found no room would be a line.
    log.filter = "off".into();
    crate::logging::start_for_tools(&log);
    let folder = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
    let models = variants(&config.models, options.models, folder.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(soak(&config.inference, models, options))?;
    report(&outcome, options, global)
}

/// So many models of the declared ones in turn, each file a copy with a few bytes of its own.
fn variants(declared: &[ModelSpec], count: usize, folder: &Path) -> anyhow::Result<Vec<ModelSpec>> {
    let mut kinds = declared.to_vec();
    let encoder = declared
        .iter()
        .find(|model| matches!(model.task, ModelTask::Encoder { .. }));
    kinds.extend(encoder.map(|encoder| ModelSpec {
        name: format!("{}-graph", encoder.name),
        task: ModelTask::Graph {},
        ..encoder.clone()
    }));
    let mut models = Vec::with_capacity(count);
    for number in 0..count {
        let kind = &kinds[number % kinds.len()];
        let path = folder.join(format!("{number}"));
        fs::copy(&kind.file.path, &path)
            .with_context(|| format!("copying {} (missing files: make setup)", kind.file.path.display()))?;
        let mut file = fs::File::options().append(true).open(&path)?;
        match kind.task {
            // What follows the last tensor is nobody's.
            ModelTask::Generator { .. } => file.write_all(&(number as u64).to_le_bytes().repeat(4))?,
            // One more `doc_string` (field 6): the last one counts.
            _ => file.write_all(&[0x32, 1, b'a' + u8::try_from(number % 26)?])?,
        }
        let sha256 = hex::encode(Sha256::digest(fs::read(&path)?));
        models.push(ModelSpec {
            name: format!("{}-{number}", kind.name),
            file: FileSpec { path, sha256 },
            load: Load::Demand,
            pin: false,
            ..kind.clone()
        });
    }
    Ok(models)
}

async fn soak(
    inference: &formwork_inference::Options,
    models: Vec<ModelSpec>,
    options: &Options,
) -> anyhow::Result<Outcome> {
    // What each takes, one at a time. It also brings in what stays: the libraries and their threads.
    let alone = Inference::start(inference.clone(), models.clone())?;
    let mut sizes = Vec::with_capacity(models.len());
    for model in &models {
        alone.load(&model.name, &CallContext::default()).await?;
        let status = alone.models().into_iter().find(|status| status.id.name == model.name);
        sizes.push((model.name.clone(), status.map_or(0, |status| status.memory_bytes)));
        alone.unload(&model.name).await?;
    }
    alone.shutdown();
    drop(alone);
    let mut largest: Vec<u64> = sizes.iter().map(|(_, bytes)| *bytes).collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let budget = largest.iter().take(options.room).sum();

    let limited = formwork_inference::Options {
        memory_bytes: budget,
        // Kept answers would spare the models, and grow beside them.
        embedding_cache_bytes: 0,
        ..inference.clone()
    };
    let inference = Inference::start(limited, models.clone())?;
    let resident_before = resident_bytes()?;
    let tally = Arc::new(Tally::default());
    let end = Instant::now() + Duration::from_secs(options.seconds.max(1));
    let callers: Vec<_> = (0..options.callers)
        .map(|caller| {
            let (inference, models, tally) = (inference.clone(), models.clone(), Arc::clone(&tally));
            let mut chance = SmallRng::seed_from_u64(options.seed.wrapping_add(caller as u64));
            tokio::spawn(async move {
                while Instant::now() < end {
                    let model = &models[chance.random_range(0..models.len())];
                    let ended = one_call(&inference, model, &mut chance).await;
                    tally.count(&model.name, ended);
                }
            })
        })
        .collect();
    let mut peak_resident = resident_before;
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        peak_resident = peak_resident.max(resident_bytes()?);
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
    for caller in callers {
        caller.await?;
    }
    let statuses = inference.models();
    let outcome = Outcome {
        models: sizes,
        budget,
        peak_accounted: inference.memory().peak_bytes,
        peak_resident,
        resident_before,
        loads: statuses.iter().map(|model| model.loads).sum(),
        evictions: statuses.iter().map(|model| model.evictions).sum(),
        tally,
    };
    inference.shutdown();
    Ok(outcome)
}

async fn one_call(inference: &Inference, model: &ModelSpec, chance: &mut SmallRng) -> Result<(), Error> {
    let call = CallContext {
        deadline: Some(Instant::now() + CALL_PATIENCE),
        owner: "bench".into(),
        ..CallContext::default()
    };
    let words = chance.random_range(1..=WORDS);
    let text = format!("{} {}", chance.random::<u32>(), "word ".repeat(words));
    match &model.task {
        ModelTask::Encoder { .. } => {
            let texts = vec![text; chance.random_range(1..=8)];
            inference.embed(&model.name, texts, &call).await.map(drop)
        }
        ModelTask::Generator { .. } => {
            let request = GenerationRequest {
                prompt: text,
                max_tokens: chance.random_range(1..=16),
                ..GenerationRequest::default()
            };
            inference
                .generate(&model.name, request, &call)
                .await?
                .text()
                .await
                .map(drop)
        }
        ModelTask::Graph {} => {
            let length = u32::try_from(words).unwrap_or(1);
            let ids = |value: i64| Tensor {
                shape: vec![1, length],
                data: TensorData::I64(vec![value; words]),
            };
            let inputs = [("input_ids", 2_000), ("attention_mask", 1), ("token_type_ids", 0)];
            let inputs = inputs.map(|(name, value)| (name.to_owned(), ids(value))).to_vec();
            inference.run(&model.name, inputs, &call).await.map(drop)
        }
    }
}

impl Tally {
    fn count(&self, model: &str, ended: Result<(), Error>) {
        match ended {
            Ok(()) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error @ (Error::Memory { .. } | Error::Busy { .. } | Error::DeadlineExceeded)) => {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                *refused.entry(error.code()).or_default() += 1;
            }
            Err(error) => {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(format!("{model}: {error}"));
            }
        }
    }
}

fn report(outcome: &Outcome, options: &Options, global: &Global) -> Result<(), Failure> {
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
    let share = |bytes: u64| bytes as f64 / outcome.budget.max(1) as f64;
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let grown = outcome.peak_resident.saturating_sub(outcome.resident_before);
    let failures = outcome.tally.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = outcome.tally.refused.lock().unwrap_or_else(PoisonError::into_inner);
    let answered = outcome.tally.answered.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "a count of failures")]
    let bars = [
        (
            "accounted memory, peak",
            share(outcome.peak_accounted),
            mib(outcome.peak_accounted),
            Bar::AtMost(1.0),
        ),
        (
            "resident memory, peak growth",
            share(grown),
            mib(grown),
            Bar::AtMost(ABOVE),
        ),
        (
            "undocumented failures",
            failures.len() as f64,
            failures.len().to_string(),
            Bar::AtMost(0.0),
        ),
    ];
    let missed = bars.iter().filter(|(_, value, _, bar)| !bar.is_met(*value)).count();
    if global.json {
        let bars = bars.iter().map(|(what, value, _, bar)| {
            json!({ "what": what, "value": value, "bar": bar.text(), "met": bar.is_met(*value) })
        });
        print_json(&json!({
            "seconds": options.seconds, "seed": options.seed, "budget_bytes": outcome.budget,
            "models": outcome.models.iter().map(|(name, bytes)| json!({ "name": name, "memory_bytes": bytes })).collect::<Vec<_>>(),
            "peak_accounted_bytes": outcome.peak_accounted, "resident_before_bytes": outcome.resident_before,
            "peak_resident_bytes": outcome.peak_resident, "answered": answered, "refused": *refused,
            "failures": *failures, "loads": outcome.loads, "evictions": outcome.evictions, "bars": bars.collect::<Vec<_>>(),
        }))?;
    } else {
        let mut models = Table::new(&["model", "memory"]);
        for (name, bytes) in &outcome.models {
            models.row([name.clone(), mib(*bytes)]);
        }
        let mut table = Table::new(&["what", "measured", "of the budget", "bar", "met"]);
        for (what, value, shown, bar) in &bars {
            let share = if shown.ends_with("MiB") {
                format!("{value:.3}")
            } else {
                String::new()
            };
            let met = if bar.is_met(*value) { "yes" } else { "NO" };
            table.row([(*what).into(), shown.clone(), share, bar.text(), met.into()]);
        }
        let refused: Vec<String> = refused.iter().map(|(code, count)| format!("{count} {code}")).collect();
        let refused = if refused.is_empty() {
            "none".to_owned()
        } else {
            refused.join(", ")
        };
        print(&format!(
            "{}\nbudget {} for the largest {}; {} s, {} callers, seed {}\n{answered} calls answered, refused as documented: \
             {refused}; {} loads, {} evictions\n\n{}",
            models.render(),
            mib(outcome.budget),
            options.room,
            options.seconds,
            options.callers,
            options.seed,
            outcome.loads,
            outcome.evictions,
            table.render()
        ))?;
        for failure in failures.iter().take(20) {
            print(&format!("FAILED {failure}"))?;
        }
    }
    if missed == 0 {
        Ok(())
    } else {
        Err(Failure::failed(anyhow::anyhow!(
            "{missed} of {} bars were missed",
            bars.len()
        )))
    }
}

fn resident_bytes() -> anyhow::Result<u64> {
    Ok(Memory::read()?.resident_kib * 1024)
}

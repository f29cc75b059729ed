//! The process that is measured: models, an engine and the bench's plugin, driven over standard input and output.
//!
//! **Problem.** ONNX Runtime's threads are set once in a process's life, memory is a process's, and peers in other
//! languages must take turns with Formwork. **Promise.** One process for each setting; a line of JSON asks for work, a
//! line of JSON answers how long it took. Times are taken here, so what passes between the processes is not in them.
//! **Cost.** Models are loaded anew for each setting.

use std::io::BufRead;
use std::time::{Duration, Instant};

use anyhow::Context;
use formwork_engine::Engine;
use formwork_inference::{CallContext, FinishReason, GenerationRequest, Inference};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::guest::Guest;
use crate::cli::output::print;
use crate::config::Config;

/// Which way a call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Route {
    /// The inference service's own function.
    Service,
    /// A plugin in its sandbox, through the engine.
    Plugin,
}

/// What a line asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Work {
    Embed {
        route: Route,
        model: String,
        /// The texts of each call.
        calls: Vec<Vec<String>>,
        /// Whether the vectors are wanted, too (by the service's route).
        #[serde(default)]
        vectors: bool,
    },
    Generate {
        route: Route,
        model: String,
        system: String,
        prompt: String,
        max_tokens: u32,
        #[serde(default)]
        schema: Option<String>,
        #[serde(default)]
        temperature: f32,
        #[serde(default)]
        seed: u64,
    },
    Memory,
}

/// How a generation went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) first_ms: f64,
    pub(super) total_ms: f64,
    pub(super) output_tokens: u64,
    pub(super) cached_tokens: u64,
    /// Tokens of the prompt, what was written, and whether `max_tokens` ended it: by the service's route.
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) text: String,
    #[serde(default)]
    pub(super) cut: bool,
}

impl Generation {
    /// Tokens a second after the first.
    pub(super) fn rate(&self) -> f64 {
        1e3 * self.output_tokens.saturating_sub(1) as f64 / (self.total_ms - self.first_ms).max(f64::EPSILON)
    }
}

struct Worker {
    inference: Inference,
    guest: Guest,
}

/// Serves until standard input ends.
pub(super) fn serve(config: &Config) -> anyhow::Result<()> {
    let inference = Inference::start(config.inference.clone(), config.models.clone())?;
    let engine = Engine::new(config.engine.clone(), inference.clone())?;
    // Guests have a thread of their own in the product, too.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let guest = Guest::install(&engine).await?;
        let worker = Worker { inference, guest };
        for spec in &config.models {
            worker.inference.load(&spec.name, &call()).await?;
        }
        print(&worker.models().to_string())?;
        for line in std::io::stdin().lock().lines() {
            let work = serde_json::from_str(&line?).context("a line of work")?;
            print(&worker.work(work).await?.to_string())?;
        }
        worker.inference.shutdown();
        Ok(())
    })
}

impl Worker {
    fn models(&self) -> Value {
        let models = self.inference.models().into_iter().map(|model| {
            json!({ "name": model.id.name, "version": model.id.version, "sha256": model.id.sha256, "task": model.task,
                "cpu_variant": (model.task == "generator").then(|| self.inference.cpu_variant()),
                "file_bytes": model.file_bytes, "memory_bytes": model.memory_bytes,
                "load_ms": model.load_time.map(milliseconds) })
        });
        json!({ "models": models.collect::<Vec<_>>(), "resident_bytes": resident_bytes() })
    }

    async fn work(&self, work: Work) -> anyhow::Result<Value> {
        match work {
            Work::Embed {
                route,
                model,
                calls,
                vectors,
            } => self.embed(route, &model, calls, vectors).await,
            Work::Generate {
                route: Route::Plugin,
                model,
                system,
                prompt,
                max_tokens,
                schema,
                ..
            } => {
                let begun = Instant::now();
                let generated = self
                    .guest
                    .generate(&model, &system, &prompt, schema.as_deref(), max_tokens)
                    .await?;
                Ok(serde_json::to_value(Generation {
                    first_ms: milliseconds(generated.first),
                    total_ms: milliseconds(begun.elapsed()),
                    output_tokens: generated.output_tokens,
                    cached_tokens: generated.cached_tokens,
                    ..Generation::default()
                })?)
            }
            Work::Generate {
                route: Route::Service,
                model,
                system,
                prompt,
                max_tokens,
                schema,
                temperature,
                seed,
            } => {
                let request = GenerationRequest {
                    system,
                    prompt,
                    max_tokens,
                    temperature,
                    seed,
                    json_schema: schema,
                    ..GenerationRequest::default()
                };
                Ok(serde_json::to_value(self.generate(&model, request).await?)?)
            }
            Work::Memory => Ok(json!({ "resident_bytes": resident_bytes() })),
        }
    }

    async fn embed(&self, route: Route, model: &str, calls: Vec<Vec<String>>, wanted: bool) -> anyhow::Result<Value> {
        let (mut times, mut vectors) = (Vec::with_capacity(calls.len()), Vec::new());
        for texts in calls {
            let begun = Instant::now();
            match route {
                Route::Plugin => self.guest.embed(model, &texts).await?,
                Route::Service => {
                    let answer = self.inference.embed(model, texts, &call()).await?;
                    if wanted {
                        vectors.extend(answer.vectors.chunks(answer.dimensions).map(<[f32]>::to_vec));
                    }
                }
            }
            times.push(milliseconds(begun.elapsed()));
        }
        Ok(json!({ "ms": times, "vectors": vectors }))
    }

    async fn generate(&self, model: &str, request: GenerationRequest) -> anyhow::Result<Generation> {
        let begun = Instant::now();
        let mut completion = self.inference.generate(model, request, &call()).await?;
        let (mut first, mut text) = (None, String::new());
        while let Some(chunk) = completion.next().await? {
            first.get_or_insert_with(|| begun.elapsed());
            text.push_str(&chunk.text);
        }
        let total = begun.elapsed();
        let summary = completion.summary().context("a generation without a summary")?;
        Ok(Generation {
            first_ms: milliseconds(first.unwrap_or(total)),
            total_ms: milliseconds(total),
            output_tokens: summary.output_tokens.into(),
            cached_tokens: summary.cached_tokens.into(),
            prompt_tokens: summary.prompt_tokens.into(),
            cut: summary.reason == FinishReason::Length,
            text,
        })
    }
}

fn call() -> CallContext {
    CallContext {
        owner: "bench".into(),
        ..CallContext::default()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory of this process; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

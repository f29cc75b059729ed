//! The bench's plugin: `bench/guest.wat` as a component, installed as any plugin is.
//!
//! **Promise.** A call takes the way of every plugin's call: a fresh instance, the contract, limits, meters. **Rejected.** A
//! first-party plugin: what `classify` or `extract` do besides asking the model would be in the figure.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use formwork_engine::{CallContext, Engine, FormInput, Grant, Plugin, Setup, SubmissionInput};
use formwork_manifest::Manifest;
use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, SourceMap};

const GUEST: &str = include_str!("../../../../bench/guest.wat");
const CONTRACT: [(&str, &str); 3] = [
    ("host.wit", include_str!("../../../../../../wit/1.0.0/host.wit")),
    ("types.wit", include_str!("../../../../../../wit/1.0.0/types.wit")),
    ("worlds.wit", include_str!("../../../../../../wit/1.0.0/worlds.wit")),
];

/// What stands between the parts of what is asked for.
const SEPARATOR: &str = "\u{1f}";

/// The installed plugin.
pub(super) struct Guest {
    plugin: Arc<Plugin>,
    setup: Setup,
}

/// What a generation through the plugin took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Generated {
    pub(super) first: Duration,
    pub(super) output_tokens: u64,
    pub(super) cached_tokens: u64,
}

impl Guest {
    pub(super) async fn install(engine: &Engine) -> anyhow::Result<Self> {
        let plugin = engine
            .install(component()?, &BTreeSet::from(Grant::ALL))
            .await
            .context("installing the bench's plugin")?;
        let form = FormInput {
            id: "bench".into(),
            version: 1,
            schema: json!({ "type": "object" }).to_string(),
            schemas: Vec::new(),
        };
        let setup = Setup::new(form, "null");
        plugin
            .snapshot(&setup)
            .await
            .context("the snapshot of the bench's plugin")?;
        Ok(Self { plugin, setup })
    }

    pub(super) async fn embed(&self, model: &str, texts: &[String]) -> anyhow::Result<()> {
        let mut asked = ["e", SEPARATOR, model].concat();
        for text in texts {
            asked.push_str(SEPARATOR);
            asked.push_str(text);
        }
        self.call(asked, CallContext::default()).await
    }

    pub(super) async fn generate(
        &self,
        model: &str,
        system: &str,
        prompt: &str,
        schema: Option<&str>,
        max_tokens: u32,
    ) -> anyhow::Result<Generated> {
        let parts = [
            "g",
            model,
            system,
            prompt,
            schema.unwrap_or_default(),
            &max_tokens.to_string(),
        ];
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&reports);
        let begun = Instant::now();
        let context = CallContext {
            progress: Some(Arc::new(move |update| {
                let report = (begun.elapsed(), update.done, update.total);
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            })),
            ..CallContext::default()
        };
        self.call(parts.join(SEPARATOR), context).await?;
        let reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        match reports[..] {
            [(first, ..), .., (_, output_tokens, cached_tokens)] => Ok(Generated {
                first,
                output_tokens,
                cached_tokens,
            }),
            _ => anyhow::bail!("the model wrote nothing"),
        }
    }

    async fn call(&self, asked: String, context: CallContext) -> anyhow::Result<()> {
        let submission = SubmissionInput {
            // The data must be JSON, which the plugin would have to read.
            id: asked,
            submitted_at: crate::clock::rfc3339(crate::clock::now()),
            data: "null".into(),
            results: Vec::new(),
        };
        let context = CallContext {
            owner: "bench".into(),
            ..context
        };
        let report = self.plugin.work(&self.setup, &submission, context).await;
        report.result.context("the bench's plugin")?;
        Ok(())
    }
}

fn component() -> anyhow::Result<Vec<u8>> {
    let mut module = wat::parse_str(GUEST)?;
    let mut resolve = Resolve::default();
    let mut contract = SourceMap::default();
    for (name, text) in CONTRACT {
        contract.push_str(name, text);
    }
    let contract = contract.parse().map_err(|(_, error)| error)?;
    let package = resolve.push_group(contract)?;
    let world = resolve.select_world(&[package], Some("extractor"))?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let component = ComponentEncoder::default().module(&module)?.encode()?;
    let manifest = json!({
        "name": "model-bench", "version": "1.0.0", "kind": "extractor", "contract": "1.0.0", "licence": "Apache-2.0",
        "description": "asks models for what the bench wants",
        "grants": { "embeddings": "to measure", "generation": "to measure" },
        "limits": { "cpu_ms": 10_000, "wall_ms": 300_000, "memory_mib": 64, "host_calls": 100_000 }
    });
    let manifest = Manifest::from_json(manifest.to_string().as_bytes())?;
    Ok(formwork_manifest::embed(&component, &manifest)?)
}

//! The Extism rows: compiled once, then a fresh plugin for every call or one plugin for all of them.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, Wasm};

use crate::guests::Built;
use crate::report::{self, Figures};

/// As in Formwork's own rows.
const MIN_CALLS: usize = 100;
const WARM_UP: usize = 5;

const FUNCTION: &str = "validate";
const EXPECTED: &str = "\"valid\":true";

/// How instances are made.
enum Life {
    /// A fresh plugin for every call.
    Fresh(Box<CompiledPlugin>),
    /// One plugin for every call: what one submission leaves in memory is there for the next.
    Warm(Box<Plugin>),
}

pub struct ExtismRow {
    pub name: &'static str,
    life: Life,
}

impl ExtismRow {
    pub fn all(built: &Built) -> anyhow::Result<Vec<Self>> {
        let fresh = |name, file: &Path, pooling| {
            anyhow::Ok(Self {
                name,
                life: Life::Fresh(Box::new(compile(file, pooling)?)),
            })
        };
        let warm = Plugin::new_from_compiled(&compile(&built.extism, false)?)?;
        Ok(vec![
            fresh(report::EXTISM_FRESH, &built.extism, false)?,
            fresh(report::EXTISM_WIZENED, &built.extism_wizened, false)?,
            fresh(report::EXTISM_POOLED, &built.extism_wizened, true)?,
            Self {
                name: report::EXTISM_WARM,
                life: Life::Warm(Box::new(warm)),
            },
        ])
    }

    pub fn round(&mut self, submission: &str, time: Duration) -> anyhow::Result<Figures> {
        for _ in 0..WARM_UP {
            self.call(submission)?;
        }
        let mut samples = Vec::with_capacity(MIN_CALLS);
        let began = Instant::now();
        let mut last = began;
        while samples.len() < MIN_CALLS || last - began < time {
            self.call(submission)?;
            let now = Instant::now();
            samples.push(now - last);
            last = now;
        }
        Ok(Figures::of(samples, last - began))
    }

    fn call(&mut self, submission: &str) -> anyhow::Result<()> {
        let answer: String = match &mut self.life {
            Life::Fresh(compiled) => Plugin::new_from_compiled(compiled)?.call(FUNCTION, black_box(submission))?,
            Life::Warm(plugin) => plugin.call(FUNCTION, black_box(submission))?,
        };
        anyhow::ensure!(answer.contains(EXPECTED), "Extism answered {answer}");
        Ok(())
    }
}

fn compile(file: &Path, pooling: bool) -> anyhow::Result<CompiledPlugin> {
    let module = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mut builder = PluginBuilder::new(Manifest::new([Wasm::data(module)])).with_wasi(true);
    if pooling {
        let mut config = wasmtime::Config::new();
        config.allocation_strategy(wasmtime::InstanceAllocationStrategy::pooling());
        builder = builder.with_wasmtime_config(config);
    }
    CompiledPlugin::new(builder)
}

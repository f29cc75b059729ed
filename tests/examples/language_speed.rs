//! What a plugin costs in each language: size, build, installation, one call in a fresh instance.
//!
//! `cargo build --release --locked --workspace --examples, then target/release/examples/language_speed` (other builds slow it down: run it alone).

#![allow(
    clippy::expect_used,
    reason = "a measurement that cannot go on should stop with a message"
)]

use std::time::{Duration, Instant};

use formwork_engine::{CallContext, Plugin, Setup};
use formwork_tests::{build_folder, install_folder, setup, submission};
use serde_json::{Value, json};

const CALLS: usize = 300;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let person = json!({
        "type": "object", "required": ["name"],
        "properties": { "name": { "type": "string" }, "zip": { "type": "string", "pattern": "^[0-9]{5}$" } }
    });
    let rules = json!({ "rules": [
        { "code": "zip", "message": "m", "at": "/zip", "matches": "[0-9]{5}" },
        { "code": "iban", "message": "m", "at": "/iban", "checksum": "iban" },
        { "code": "order", "message": "m", "at": "/stay/to", "after": { "date": "/stay/from", "max_days": 30 } },
        { "code": "adult", "message": "m", "at": "/people/*/born", "age": { "min": 18 } },
    ] });
    let data = json!({ "name": "Ada", "zip": "10115", "iban": "DE89370400440532013000", "vat": "DE136695976",
        "stay": { "from": "2026-01-01", "to": "2026-01-20" }, "people": [{ "born": "1990-01-01" }, { "born": "1991-01-01" }] });
    let places =
        json!({ "postal_codes": [{ "at": "/zip", "default_country": "DE" }], "vat_numbers": [{ "at": "/vat" }] });
    let plugins = [
        ("Rust", "plugins/validate", Value::Null),
        (
            "JavaScript",
            "examples/plugins/javascript/addresses-and-tax-numbers",
            places,
        ),
        ("Python", "examples/plugins/python/cross-field-rules", rules),
    ];
    println!("language    size      build     install   prepare p50   prepare + validate p50 / p95   memory");
    for (language, folder, settings) in plugins {
        let began = Instant::now();
        let size = build_folder(folder).len();
        let build = began.elapsed();
        let began = Instant::now();
        let plugin = install_folder(folder).await;
        let install = began.elapsed();
        let setup = setup(&person, &settings);
        let prepare = times(&plugin, &setup, None).await;
        let work = times(&plugin, &setup, Some(&data)).await;
        println!(
            "{language:<10} {:>6.1} MB {:>7.2} s {:>8.2} s {:>10.2} ms {:>18.2} / {:.2} ms {:>12.1} MiB",
            size as f64 / 1e6,
            build.as_secs_f64(),
            install.as_secs_f64(),
            ms(prepare.at(50)),
            ms(work.at(50)),
            ms(work.at(95)),
            work.memory as f64 / f64::from(1 << 20),
        );
    }
}

struct Times {
    sorted: Vec<Duration>,
    memory: u64,
}

impl Times {
    fn at(&self, percent: usize) -> Duration {
        self.sorted[self.sorted.len() * percent / 100]
    }
}

async fn times(plugin: &Plugin, setup: &Setup, data: Option<&Value>) -> Times {
    let mut sorted = Vec::with_capacity(CALLS);
    let mut memory = 0;
    for _ in 0..CALLS {
        let began = Instant::now();
        let usage = match data {
            Some(data) => {
                let report = plugin.work(setup, &submission(data), CallContext::default()).await;
                let output = report.result.expect("the call works");
                assert!(!output.rejected, "{}", output.json);
                report.usage
            }
            None => plugin.prepare(setup, CallContext::default()).await.usage,
        };
        sorted.push(began.elapsed());
        memory = usage.memory_bytes;
    }
    sorted.sort_unstable();
    Times { sorted, memory }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

//! One table of all rows: medians over rounds, and ratios taken within rounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Options;

pub const NATIVE: &str = "native";
pub const CALL_SNAPSHOT: &str = "call, snapshot";
pub const CALL_PLAIN: &str = "call, plain";
pub const EXTISM_FRESH: &str = "Extism, fresh plugin";
pub const EXTISM_WIZENED: &str = "Extism, fresh plugin, pre-initialised";
pub const EXTISM_POOLED: &str = "Extism, the same with a pooling allocator";
pub const EXTISM_WARM: &str = "Extism, warm plugin";
pub const HTTP_FORMWORK: &str = "formwork serve";
pub const HTTP_NATIVE: &str = "native Rust in Formwork's route";
pub const HTTP_BARE: &str = "native Rust in bare axum";
pub const HTTP_SERVE: &str = "wasmtime serve";
pub const HTTP_SERVE_REUSED: &str = "wasmtime serve, instances reused";
pub const HTTP_SERVE_WIZENED: &str = "wasmtime serve, pre-initialised";
pub const HTTP_SERVE_TUNED: &str = "wasmtime serve, pre-initialised, tuned";

/// The rows of the report in their order: name, whether it is an HTTP row, what it does with memory between submissions,
/// what the schema costs a call.
const ROWS: [(&str, bool, &str, &str); 16] = [
    (NATIVE, false, "one process", "compiled once"),
    ("warm", false, "shared", "compiled once"),
    ("floor, snapshot", false, "fresh", "in the snapshot"),
    (CALL_SNAPSHOT, false, "fresh", "in the snapshot"),
    (CALL_PLAIN, false, "fresh", "compiled per call"),
    (EXTISM_WARM, false, "shared", "compiled once"),
    (EXTISM_FRESH, false, "fresh", "compiled per call"),
    (EXTISM_WIZENED, false, "fresh", "in the module"),
    (EXTISM_POOLED, false, "fresh", "in the module"),
    (HTTP_BARE, true, "one process", "compiled once"),
    (HTTP_NATIVE, true, "one process", "compiled once"),
    (HTTP_FORMWORK, true, "fresh", "in the snapshot, where there is one"),
    (HTTP_SERVE_REUSED, true, "shared", "compiled once an instance"),
    (HTTP_SERVE, true, "fresh", "compiled per request"),
    (HTTP_SERVE_WIZENED, true, "fresh", "in the component"),
    (HTTP_SERVE_TUNED, true, "fresh", "in the component"),
];

/// What the in-process rows and the HTTP rows are divided by; a row of Formwork's own that is not there yet is left out.
const IN_PROCESS_BASES: [&str; 2] = [CALL_SNAPSHOT, CALL_PLAIN];

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub per_second: f64,
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
}

impl Figures {
    /// The figures of `samples`, taken within `elapsed` together; percentiles are the nearest rank.
    pub fn of(mut samples: Vec<Duration>, elapsed: Duration) -> Self {
        samples.sort_unstable();
        let micros = |percent: usize| {
            let index = (samples.len() * percent).div_ceil(100).saturating_sub(1);
            samples.get(index).map_or(0.0, |sample| sample.as_secs_f64() * 1e6)
        };
        Self {
            per_second: samples.len() as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            p50_us: micros(50),
            p95_us: micros(95),
            p99_us: micros(99),
        }
    }
}

#[derive(Default)]
pub struct Report {
    rounds: Vec<Vec<(String, Figures)>>,
}

impl Report {
    pub fn begin_round(&mut self) {
        self.rounds.push(Vec::new());
    }

    pub fn add(&mut self, name: &str, figures: Figures) {
        if let Some(round) = self.rounds.last_mut() {
            round.push((name.to_owned(), figures));
        }
    }

    fn of<'a>(round: &'a [(String, Figures)], name: &str) -> Option<&'a Figures> {
        round.iter().find(|(row, _)| row == name).map(|(_, figures)| figures)
    }

    fn median(&self, name: &str, figure: fn(&Figures) -> f64) -> Option<f64> {
        median(
            self.rounds
                .iter()
                .filter_map(|round| Self::of(round, name).map(figure))
                .collect(),
        )
    }

    /// How many times `name` takes what `base` takes, or answers what `base` answers.
    fn ratio(&self, name: &str, base: &str, figure: fn(&Figures) -> f64) -> Option<f64> {
        let quotient =
            |round: &Vec<(String, Figures)>| Some(figure(Self::of(round, name)?) / figure(Self::of(round, base)?));
        median(self.rounds.iter().filter_map(quotient).collect())
    }

    fn figures(&self, name: &str) -> Option<Figures> {
        Some(Figures {
            per_second: self.median(name, |figures| figures.per_second)?,
            p50_us: self.median(name, |figures| figures.p50_us)?,
            p95_us: self.median(name, |figures| figures.p95_us)?,
            p99_us: self.median(name, |figures| figures.p99_us)?,
        })
    }

    pub fn json(&self) -> Value {
        let rows = ROWS.iter().filter_map(|(name, http, memory, schema)| {
            let figures = self.figures(name)?;
            Some(json!({ "name": name, "http": http, "memory": memory, "schema": schema, "figures": figures }))
        });
        json!({ "rounds": self.rounds.len(), "rows": rows.collect::<Vec<_>>() })
    }

    pub fn markdown(&self, options: &Options, versions: &[String]) -> String {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut text = format!(
            "# Formwork and its peers\n\n{}; {cpus} CPUs; medians over {} rounds.\n\n## In process, one call at a time\n\n",
            versions.join(", "),
            self.rounds.len(),
        );
        let base = IN_PROCESS_BASES.into_iter().find(|name| self.figures(name).is_some());
        let base = base.unwrap_or(NATIVE);
        self.table(&mut text, false, base, "p50 against", |figures| figures.p50_us);
        text.push_str(&format!("\n## HTTP, {} connections\n\n", options.connections));
        self.table(&mut text, true, HTTP_FORMWORK, "a second against", |figures| {
            figures.per_second
        });
        text
    }

    fn table(&self, text: &mut String, http: bool, base: &str, against: &str, figure: fn(&Figures) -> f64) {
        text.push_str(&format!(
            "| row | memory | schema | a second | p50 us | p95 us | p99 us | {against} `{base}` |\n|---|---|---|---|---|---|---|---|\n"
        ));
        for (name, _, memory, schema) in ROWS.iter().filter(|row| row.1 == http) {
            let Some(figures) = self.figures(name) else { continue };
            let ratio = self.ratio(name, base, figure).map_or("-".into(), quotient);
            text.push_str(&format!(
                "| {name} | {memory} | {schema} | {:.0} | {:.1} | {:.1} | {:.1} | {ratio} |\n",
                figures.per_second, figures.p50_us, figures.p95_us, figures.p99_us
            ));
        }
    }
}

/// Two significant figures below one, two decimals above.
fn quotient(value: f64) -> String {
    let decimals = if value < 0.1 { 4 } else { 2 };
    format!("{value:.decimals$}")
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => values.get(middle).copied(),
        _ => Some(f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_rounds() {
        let figures = |p50_us: f64| Figures {
            per_second: 1e6 / p50_us,
            p50_us,
            p95_us: p50_us,
            p99_us: p50_us,
        };
        let mut report = Report::default();
        for slow in [1.0, 10.0, 3.0] {
            report.begin_round();
            report.add(CALL_SNAPSHOT, figures(slow));
            report.add(EXTISM_FRESH, figures(5.0 * slow));
        }
        let ratio = report.ratio(EXTISM_FRESH, CALL_SNAPSHOT, |figures| figures.p50_us);
        assert_eq!(ratio, Some(5.0));
        assert_eq!(report.figures(EXTISM_FRESH).map(|figures| figures.p50_us), Some(15.0));
        assert_eq!(report.figures(NATIVE), None);
    }
}

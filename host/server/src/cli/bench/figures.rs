//! From durations to a report: percentiles of a round, medians over rounds, ratios between rows.
//!
//! **Problem.** On a machine shared with others the second minute is not like the first: rows measured one after another
//! differ by what else ran. **Promise.** Rows take turns, a round of each after the other; a row's figure is the median of
//! its rounds', and a ratio is the median of the ratios *within* rounds, so that what slows a round slows both sides.
//! **Cost.** A percentile is that of a round of some hundred calls, not of all calls: what happens once in ten thousand
//! is not seen. **Rejected.** The best round of each row: it flatters rows that vary.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::output::Table;

/// Fewest calls of a round, so that a 99th percentile is one.
const MIN_CALLS: usize = 100;

/// Calls before a round's first that is counted: caches are warm, as they are between calls of a busy server.
const WARM_UP: usize = 5;

/// One row in one round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p95_us: f64,
    pub(crate) p99_us: f64,
}

impl Figures {
    /// The figures of `samples`, taken within `elapsed` together.
    pub(crate) fn of(mut samples: Vec<Duration>, elapsed: Duration) -> Self {
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

    fn get(&self, figure: Figure) -> f64 {
        match figure {
            Figure::PerSecond => self.per_second,
            Figure::P50 => self.p50_us,
            Figure::P99 => self.p99_us,
        }
    }
}

/// Calls `work` one after another for `time`, but at least [`MIN_CALLS`] times.
pub(crate) async fn round(
    time: Duration,
    mut work: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Figures> {
    for _ in 0..WARM_UP {
        work().await?;
    }
    let mut samples = Vec::with_capacity(MIN_CALLS);
    let began = Instant::now();
    let mut last = began;
    while samples.len() < MIN_CALLS || last - began < time {
        work().await?;
        let now = Instant::now();
        samples.push(now - last);
        last = now;
    }
    Ok(Figures::of(samples, last - began))
}

/// Which of the figures a ratio is between.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    PerSecond,
    P50,
    P99,
}

/// A ratio between two figures of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    /// What it says.
    pub(crate) what: &'static str,
    /// Row and figure above the line.
    pub(crate) of: (&'static str, Figure),
    /// Row and figure below it.
    pub(crate) to: (&'static str, Figure),
    /// What it is held against.
    pub(crate) bar: Option<Bar>,
}

/// What a ratio or a figure is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Bar {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
        }
    }
}

struct Row {
    name: &'static str,
    note: &'static str,
    rounds: Vec<Option<Figures>>,
}

/// Rows that take turns.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    rounds: usize,
}

impl Report {
    pub(crate) fn new(ratios: &[Ratio]) -> Self {
        Self {
            ratios: ratios.to_vec(),
            ..Self::default()
        }
    }

    /// Begins the next round.
    pub(crate) fn begin_round(&mut self) {
        self.rounds += 1;
    }

    /// Puts a row's figures into the current round.
    pub(crate) fn add(&mut self, name: &'static str, note: &'static str, figures: Figures) {
        let index = match self.rows.iter().position(|row| row.name == name) {
            Some(index) => index,
            None => {
                self.rows.push(Row {
                    name,
                    note,
                    rounds: Vec::new(),
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[index];
        row.rounds.resize(self.rounds, None);
        if let Some(place) = row.rounds.last_mut() {
            *place = Some(figures);
        }
    }

    /// The current round, by row.
    pub(crate) fn last_round(&self) -> Value {
        let rows = self.rows.iter().filter_map(|row| {
            let figures = row.rounds.get(self.rounds.checked_sub(1)?)?.as_ref()?;
            Some((row.name.to_owned(), json!(figures)))
        });
        json!({ "rows": rows.collect::<serde_json::Map<_, _>>() })
    }

    fn figures(&self, row: &Row) -> Figures {
        let median_of = |figure: fn(&Figures) -> f64| median(row.rounds.iter().flatten().map(figure).collect());
        Figures {
            per_second: median_of(|figures| figures.per_second),
            p50_us: median_of(|figures| figures.p50_us),
            p95_us: median_of(|figures| figures.p95_us),
            p99_us: median_of(|figures| figures.p99_us),
        }
    }

    /// The median of a ratio over the rounds that have both sides.
    fn ratio(&self, ratio: &Ratio) -> Option<f64> {
        let row = |name: &str| self.rows.iter().find(|row| row.name == name);
        let (of, to) = (row(ratio.of.0)?, row(ratio.to.0)?);
        let quotients: Vec<f64> = of
            .rounds
            .iter()
            .zip(&to.rounds)
            .filter_map(|(of, to)| Some(of.as_ref()?.get(ratio.of.1) / to.as_ref()?.get(ratio.to.1)))
            .filter(|quotient| quotient.is_finite())
            .collect();
        (!quotients.is_empty()).then(|| median(quotients))
    }

    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| json!({ "name": row.name, "note": row.note, "figures": self.figures(row) }))
            .collect();
        let ratios: Vec<Value> = self
            .ratios
            .iter()
            .filter_map(|ratio| {
                let value = self.ratio(ratio)?;
                let bar = ratio.bar.map(Bar::text);
                let met = ratio.bar.map(|bar| bar.is_met(value));
                Some(json!({ "what": ratio.what, "value": value, "bar": bar, "met": met }))
            })
            .collect();
        json!({ "cpus": cpus(), "rounds": self.rounds, "rows": rows, "ratios": ratios })
    }

    pub(crate) fn to_text(&self) -> String {
        let mut rows = Table::new(&["row", "a second", "p50 us", "p95 us", "p99 us", "what"]);
        for row in &self.rows {
            let figures = self.figures(row);
            rows.row([
                row.name.into(),
                format!("{:.0}", figures.per_second),
                format!("{:.1}", figures.p50_us),
                format!("{:.1}", figures.p95_us),
                format!("{:.1}", figures.p99_us),
                row.note.into(),
            ]);
        }
        let mut ratios = Table::new(&["ratio", "value", "bar", ""]);
        for ratio in &self.ratios {
            let value = self.ratio(ratio);
            let met = match (ratio.bar, value) {
                (Some(bar), Some(value)) if bar.is_met(value) => "met",
                (Some(_), Some(_)) => "missed",
                _ => "",
            };
            ratios.row([
                ratio.what.into(),
                value.map_or("not measured".into(), |value| format!("{value:.2}")),
                ratio.bar.map_or(String::new(), Bar::text),
                met.into(),
            ]);
        }
        format!(
            "{} CPUs, medians over {} rounds\n{}\n{}",
            cpus(),
            self.rounds,
            rows.render(),
            ratios.render()
        )
    }
}

pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The middle value; of two middle ones the mean.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(p50_us: f64) -> Figures {
        Figures {
            per_second: 1e6 / p50_us,
            p50_us,
            p95_us: p50_us,
            p99_us: p50_us,
        }
    }

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let samples = (1..=100).rev().map(Duration::from_micros).collect();
        let figures = Figures::of(samples, Duration::from_millis(10));
        assert_eq!((figures.p50_us, figures.p95_us, figures.p99_us), (50.0, 95.0, 99.0));
        assert_eq!(figures.per_second, 10_000.0);
    }

    #[test]
    fn a_ratio_is_taken_within_rounds() {
        const RATIO: Ratio = Ratio {
            what: "b/a",
            of: ("b", Figure::P50),
            to: ("a", Figure::P50),
            bar: Some(Bar::AtMost(2.0)),
        };
        let mut report = Report::new(&[RATIO]);
        // The machine is ten times slower in the second round; the third lacks a side.
        for (a, b) in [(1.0, Some(2.0)), (10.0, Some(20.0)), (1.0, None)] {
            report.begin_round();
            report.add("a", "", figures(a));
            if let Some(b) = b {
                report.add("b", "", figures(b));
            }
        }
        assert_eq!(report.ratio(&RATIO), Some(2.0));
        assert_eq!(report.to_json()["ratios"][0]["met"], true);
        assert_eq!(report.last_round()["rows"].as_object().unwrap().len(), 1);
    }
}

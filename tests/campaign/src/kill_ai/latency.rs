//! What the API takes to answer, with and without kills.
//!
//! Requests are sent when they are due, whether the ones before were answered or not, and are timed from when they were
//! due: an API that stands still for a second is seen in every request of that second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use super::nodes::PLAIN;
use crate::api;

/// What is sent, by the path behind the form.
const ROUTES: [&str; 2] = ["validate", "submissions"];

/// Whether the AI process is being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Calm,
    Kills,
}

/// Samples of one route in one round, by phase.
#[derive(Clone, Default)]
struct Round {
    calm: Vec<Duration>,
    kills: Vec<Duration>,
    /// Requests that were refused or not answered in time, in windows without and with kills.
    unanswered: [usize; 2],
}

struct Samples {
    phase: Phase,
    /// The rounds of each route; the last one is under way.
    routes: [Vec<Round>; ROUTES.len()],
    acknowledged: Vec<String>,
}

/// Requests that are sent all the time.
pub(super) struct Probes {
    client: reqwest::Client,
    api: String,
    samples: Mutex<Samples>,
}

/// Probes at work.
pub(super) struct Probing {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<anyhow::Result<()>>>,
}

/// Milliseconds of one phase.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Requests.
    pub count: usize,
    /// The middle.
    pub p50: f64,
    /// 95 of 100 took no longer.
    pub p95: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
}

/// A route's latencies in both phases.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The last part of the path.
    pub route: &'static str,
    /// All requests of windows without kills.
    pub calm: Figures,
    /// All requests of windows with kills.
    pub kills: Figures,
    /// Requests that were refused or not answered in time, in windows without and with kills.
    pub unanswered: [usize; 2],
    /// p95 with kills divided by p95 without: the median over rounds; not a number where nothing was compared.
    pub p95_ratio: f64,
}

impl Probes {
    pub(super) fn new(api: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: api::client()?,
            api: api.to_owned(),
            samples: Mutex::new(Samples {
                phase: Phase::Kills,
                routes: std::array::from_fn(|_| vec![Round::default()]),
                acknowledged: Vec::new(),
            }),
        })
    }

    /// Sends to each route every so often until it is stopped.
    pub(super) fn start(self: &Arc<Self>, every: Duration) -> Probing {
        let stop = Arc::new(AtomicBool::new(false));
        let running = (0..ROUTES.len())
            .map(|route| tokio::spawn(Arc::clone(self).send(route, every, Arc::clone(&stop))))
            .collect();
        Probing { stop, running }
    }

    async fn send(self: Arc<Self>, route: usize, every: Duration, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
        let mut due = Instant::now();
        let mut sent = JoinSet::new();
        let mut number = 0_u64;
        while !stop.load(Ordering::Acquire) {
            tokio::time::sleep_until(due.into()).await;
            let (probes, phase) = (Arc::clone(&self), self.lock().phase);
            sent.spawn(async move { probes.one(route, phase, due, number).await });
            while let Some(ended) = sent.try_join_next() {
                ended?;
            }
            number += 1;
            due += every;
        }
        while let Some(ended) = sent.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn one(&self, route: usize, phase: Phase, due: Instant, number: u64) {
        let answered = self.ask(route, number).await;
        let took = due.elapsed();
        let mut samples = self.lock();
        if let Ok(Some(id)) = &answered {
            samples.acknowledged.push(id.clone());
        }
        let Some(round) = samples.routes[route].last_mut() else {
            return;
        };
        match phase {
            Phase::Calm => round.calm.push(took),
            Phase::Kills => round.kills.push(took),
        }
        round.unanswered[usize::from(phase == Phase::Kills)] += usize::from(answered.is_err());
    }

    /// The id of the submission, where one was made.
    async fn ask(&self, route: usize, number: u64) -> anyhow::Result<Option<String>> {
        let url = format!("{}/v1/forms/{PLAIN}/{}", self.api, ROUTES[route]);
        // Nothing is repeated, so no idempotency key.
        let response = self
            .client
            .post(url)
            .json(&json!({ "message": format!("probe {number}") }))
            .send()
            .await?;
        let status = response.status();
        let answer: serde_json::Value = response.json().await?;
        anyhow::ensure!(status.is_success(), "{}: {status} {answer}", ROUTES[route]);
        Ok(answer["id"].as_str().map(str::to_owned))
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    pub(super) fn end_round(&self) {
        for rounds in &mut self.lock().routes {
            rounds.push(Round::default());
        }
    }

    /// The submissions that were acknowledged.
    pub(super) fn acknowledged(&self) -> Vec<String> {
        self.lock().acknowledged.clone()
    }

    pub(super) fn compare(&self) -> Vec<Comparison> {
        let samples = self.lock();
        ROUTES
            .iter()
            .zip(&samples.routes)
            .map(|(route, rounds)| compare(route, rounds))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probing {
    /// Waits for the last answers.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Release);
        for probe in self.running {
            probe.await??;
        }
        Ok(())
    }
}

fn compare(route: &'static str, rounds: &[Round]) -> Comparison {
    let all = |phase: fn(&Round) -> &Vec<Duration>| figures(rounds.iter().flat_map(phase).copied().collect());
    let mut ratios: Vec<f64> = rounds
        .iter()
        .filter(|round| !round.calm.is_empty() && !round.kills.is_empty())
        .map(|round| figures(round.kills.clone()).p95 / figures(round.calm.clone()).p95)
        .collect();
    ratios.sort_by(f64::total_cmp);
    Comparison {
        route,
        calm: all(|round| &round.calm),
        kills: all(|round| &round.kills),
        unanswered: [0, 1].map(|phase| rounds.iter().map(|round| round.unanswered[phase]).sum()),
        p95_ratio: ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN),
    }
}

fn figures(mut samples: Vec<Duration>) -> Figures {
    samples.sort_unstable();
    let at = |percent: usize| {
        let index = (samples.len() * percent).div_ceil(100).saturating_sub(1);
        samples.get(index).map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    };
    Figures {
        count: samples.len(),
        p50: at(50),
        p95: at(95),
        p99: at(99),
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50, p95, p99 } = self;
        write!(formatter, "p50 {p50:.1}, p95 {p95:.1}, p99 {p99:.1} ms of {count}")
    }
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            route,
            calm,
            kills,
            unanswered: [unanswered_calm, unanswered],
            p95_ratio,
        } = self;
        if p95_ratio.is_nan() {
            return write!(formatter, "{route}: with kills {kills}, {unanswered} not answered");
        }
        write!(
            formatter,
            "{route}: without kills {calm}, {unanswered_calm} not answered; with kills {kills}, {unanswered} not answered; \
             p95 times {p95_ratio:.2} (median of rounds)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_with_themselves() {
        let round = |calm: u64, kills: u64| Round {
            calm: vec![Duration::from_millis(calm); 20],
            kills: vec![Duration::from_millis(kills); 20],
            unanswered: [0, 1],
        };
        // The machine was ten times slower in the second one.
        let compared = compare(
            "validate",
            &[round(10, 11), round(100, 110), round(10, 11), Round::default()],
        );
        assert!((compared.p95_ratio - 1.1).abs() < 1e-9, "{compared}");
        assert_eq!(
            (compared.calm.count, compared.kills.count, compared.unanswered),
            (60, 60, [0, 3])
        );
    }
}

//! How long tasks of `high` wait for a thread, beside a `batched` that is full of generations.

use std::time::Duration;

use anyhow::Context;
use formwork_tasks::Pool;

use super::high_load::High;
use super::pressure::{Kind, Source};
use super::{Row, Stage};
use crate::cli::bench::figures::Bar;

/// The product's own account: only it sees when a run starts.
const PICK_UP: &str = "formwork_scheduler_wait_seconds";

/// How long the capacity of `high` is measured.
const CAPACITY: Duration = Duration::from_secs(5);

/// Before a measurement under pressure: every place of the pool is taken.
const SETTLE: Duration = Duration::from_secs(3);

/// A histogram's buckets: upper end in seconds, and how many were below it.
type Buckets = Vec<(f64, f64)>;

fn buckets() -> anyhow::Result<Buckets> {
    let families = prometheus::gather();
    let family = families.iter().find(|family| family.name() == PICK_UP);
    let metrics = family.context("no pick-up has been measured")?.get_metric();
    let of_high = metrics.iter().find(|metric| {
        metric
            .get_label()
            .iter()
            .any(|label| label.value() == Pool::High.as_str())
    });
    let histogram = of_high.context("no pick-up of high has been measured")?.get_histogram();
    #[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
    let bucket = |bucket: &prometheus::proto::Bucket| (bucket.upper_bound(), bucket.cumulative_count() as f64);
    Ok(histogram.get_bucket().iter().map(bucket).collect())
}

/// The value below which `share` of what came between two readings lies, milliseconds; straight lines within a bucket.
fn quantile(before: &Buckets, after: &Buckets, share: f64) -> f64 {
    let counts: Buckets = after
        .iter()
        .zip(before)
        .map(|((end, after), (_, before))| (*end, after - before))
        .collect();
    let all = counts.last().map_or(0.0, |(_, count)| *count);
    let wanted = all * share;
    let (mut start, mut below) = (0.0, 0.0);
    for (end, count) in counts {
        if count >= wanted && count > below {
            return (start + (end - start) * (wanted - below) / (count - below)) * 1e3;
        }
        (start, below) = (end, count);
    }
    start * 1e3
}

/// Pick-up at an open load, milliseconds: p50, p95, p99; and p95 from submission to end.
async fn at(high: &High, per_second: f64, time: Duration) -> anyhow::Result<[f64; 4]> {
    let before = buckets()?;
    let figures = high.open(per_second, time).await?;
    let after = buckets()?;
    let pick_up = |share| quantile(&before, &after, share);
    Ok([pick_up(0.5), pick_up(0.95), pick_up(0.99), figures.p95_us / 1e3])
}

pub(super) async fn measure(stage: &mut Stage, time: Duration) -> anyhow::Result<Vec<Row>> {
    let server = stage.start(|_| ()).await?;
    let high = High::publish(&server).await?;
    let capacity = high.closed(CAPACITY).await?;
    let half = capacity / 2.0;
    let idle = at(&high, half, time).await?;
    let source = Source::publish(&server, Kind::Generations).await?;
    let pressure = source.pressure().await?;
    tokio::time::sleep(SETTLE).await;
    let tokens_before = tokens();
    let pressed = at(&high, half, time).await?;
    let tokens = (tokens() - tokens_before) / time.as_secs_f64();
    pressure.end().await?;
    server.stop().await;
    let [p50, p95, p99, end] = pressed;
    let [idle_p50, idle_p95, idle_p99, idle_end] = idle;
    Ok(vec![
        Row::new("high alone: capacity", capacity, "tasks/s"),
        Row::new("high at half of it, alone: pick-up p50", idle_p50, "ms"),
        Row::new("  p95", idle_p95, "ms"),
        Row::new("  p99", idle_p99, "ms"),
        Row::new("  submitted to done p95", idle_end, "ms"),
        Row::new("beside batched full of generations: pick-up p50", p50, "ms"),
        Row::new("  p95", p95, "ms")
            .bar(Bar::AtMost(20.0))
            .bar(Bar::AtMost(((idle_p95 * 1.5 + 5.0) * 100.0).round() / 100.0)),
        Row::new("  p99", p99, "ms"),
        Row::new("  submitted to done p95", end, "ms"),
        Row::new("  generated meanwhile", tokens, "tokens/s"),
    ])
}

/// Tokens generated so far.
pub(super) fn tokens() -> f64 {
    let families = prometheus::gather();
    let family = families
        .iter()
        .find(|family| family.name() == "formwork_inference_tokens_total");
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let generated = metrics
        .iter()
        .filter(|metric| metric.get_label().iter().any(|label| label.value() == "output"));
    generated.map(|metric| metric.get_counter().get_value()).sum()
}

//! How much CPU a limited pool uses, by the kernel's account of its threads.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::high_load;
use super::pressure::{Kind, Source};
use super::{HALF, PRESSED, Row, Stage, half_a_cpu};
use crate::cli::bench::figures::Bar;
use crate::serve::Server;

/// Names of threads that work for `batched` in these parts: its own, and those of the models, which nobody else asks.
const THREADS: [&str; 4] = ["fw-batched", "infer", "llama", "ggml"];

/// Before a measurement: what was saved up is spent, snapshots are made.
const SETTLE: Duration = Duration::from_secs(3);

/// What the pool's threads used until now, seconds, and the whole process.
fn used() -> anyhow::Result<[f64; 2]> {
    let (mut pool, mut all) = (0.0, 0.0);
    for thread in fs::read_dir("/proc/self/task")? {
        let folder = thread?.path();
        // A thread may end between two lines.
        let (Ok(name), Ok(times)) = (
            fs::read_to_string(folder.join("comm")),
            fs::read_to_string(folder.join("schedstat")),
        ) else {
            continue;
        };
        let ns: f64 = times
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse().ok())
            .unwrap_or(0.0);
        all += ns / 1e9;
        if THREADS.iter().any(|thread| name.starts_with(thread)) {
            pool += ns / 1e9;
        }
    }
    Ok([pool, all])
}

/// CPUs that the pool used during `time`.
async fn use_during(time: Duration) -> anyhow::Result<f64> {
    let (before, began) = (used()?, Instant::now());
    tokio::time::sleep(time).await;
    Ok((used()?[0] - before[0]) / began.elapsed().as_secs_f64())
}

fn enforcement(server: &Server) -> &'static str {
    server.scheduler().status()[PRESSED as usize].enforcement.as_str()
}

/// Half a CPU, under pressure.
pub(super) async fn limited(stage: &mut Stage, kind: Kind, time: Duration) -> anyhow::Result<Vec<Row>> {
    let server = stage.start(|config| half_a_cpu(config, false)).await?;
    let source = Source::publish(&server, kind).await?;
    let pressure = source.pressure().await?;
    tokio::time::sleep(SETTLE).await;
    let before = server.scheduler().status()[PRESSED as usize];
    let began = Instant::now();
    let cpus = use_during(time).await?;
    let after = server.scheduler().status()[PRESSED as usize];
    let told = (after.cpu_seconds - before.cpu_seconds) / began.elapsed().as_secs_f64();
    let mode = enforcement(&server);
    pressure.end().await?;
    server.stop().await;
    let seconds = time.as_secs();
    let mut rows = vec![
        Row::new(
            format!("batched, cpus = {HALF}, full of {}, {seconds} s ({mode})", kind.name()),
            cpus,
            "CPUs",
        )
        .bar(Bar::AtLeast(0.45))
        .bar(Bar::AtMost(0.55)),
        Row::new("  the same as the product counts it", told, "CPUs"),
    ];
    if let Some(throttled) = after.throttled {
        let periods = throttled - before.throttled.unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "periods of some seconds")]
        rows.push(Row::new(
            "  periods in which the kernel stopped threads",
            periods as f64,
            "",
        ));
    }
    Ok(rows)
}

/// Half a CPU and what is to spare: alone, beside a `high` that takes what it gets, and alone again.
pub(super) async fn burst(stage: &mut Stage, time: Duration) -> anyhow::Result<Vec<Row>> {
    let unlimited = {
        let server = stage.start(|_| ()).await?;
        let source = Source::publish(&server, Kind::Guests).await?;
        let pressure = source.pressure().await?;
        tokio::time::sleep(SETTLE).await;
        let cpus = use_during(time).await?;
        pressure.end().await?;
        server.stop().await;
        cpus
    };
    let server = stage.start(|config| half_a_cpu(config, true)).await?;
    let source = Source::publish(&server, Kind::Guests).await?;
    let pressure = source.pressure().await?;
    tokio::time::sleep(SETTLE).await;
    let alone = use_during(time).await?;
    let high = Arc::new(high_load::High::publish(&server).await?);
    let (beside, _) = tokio::join!(
        async {
            tokio::time::sleep(SETTLE / 3).await;
            use_during(time).await
        },
        high.closed(time + SETTLE)
    );
    tokio::time::sleep(SETTLE / 3).await;
    let again = use_during(time).await?;
    pressure.end().await?;
    server.stop().await;
    Ok(vec![
        Row::new("batched without a limit, full of guests", unlimited, "CPUs"),
        Row::new(format!("cpus = {HALF}, burst: alone"), alone, "CPUs").bar(Bar::AtLeast(round(unlimited * 0.9))),
        Row::new("  while high takes all it gets", beside?, "CPUs"),
        Row::new("  alone again", again, "CPUs").bar(Bar::AtLeast(round(unlimited * 0.9))),
    ])
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

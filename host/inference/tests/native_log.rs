//! What operators read in the log of llama.cpp.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says where"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use formwork_inference::{Error, Inference};
use support::{ask, call, generator, options, written};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Counts error lines of llama.cpp.
struct Errors(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == "llama_cpp" && *event.metadata().level() == Level::ERROR {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_generation_that_is_told_to_stop_is_no_error() {
    let count = Arc::new(AtomicUsize::new(0));
    let errors = tracing_subscriber::registry().with(Errors(Arc::clone(&count)));
    tracing::subscriber::set_global_default(errors).unwrap();
    let inference = Inference::start(options(), vec![generator("told")]).unwrap();
    // So that what follows meets a model that is ready.
    written(&inference, "told", "Hi", 1).await;
    let mut late = call();
    late.deadline = Some(Instant::now() + Duration::from_millis(100));
    // Its prompt takes most of a second, in steps of some tenths.
    let long = inference.generate("told", ask(&"A letter about a table. ".repeat(140), 900), &late);
    let ended = match long.await {
        Ok(mut running) => running.text().await.expect_err("900 tokens within a tenth of a second"),
        Err(error) => error,
    };
    assert!(matches!(ended, Error::DeadlineExceeded), "{ended}");
    // The next one has its turn after the stopped step.
    written(&inference, "told", "Hi", 1).await;
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

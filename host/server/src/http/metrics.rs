//! `/metrics`: the process's counters in Prometheus's text format, and those of the HTTP API itself.

use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, TextEncoder, core::Collector, default_registry,
};

use super::problem::Problem;
use super::queue_metrics;
use super::state::App;

/// Seconds; from a cached answer to the longest wait.
const BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0,
];

/// Bytes of a memory page on every machine this builds for (x86-64, aarch64 with default kernels).
const PAGE_BYTES: u64 = 4_096;

/// Clock ticks a second in `/proc`, fixed by the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

static REQUESTS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let opts = Opts::new(
        "formwork_http_requests_total",
        "Requests answered, by method, route and status.",
    );
    register(IntCounterVec::new(opts, &["method", "route", "status"]))
});

static SECONDS: LazyLock<Option<HistogramVec>> = LazyLock::new(|| {
    let opts = HistogramOpts::new(
        "formwork_http_request_duration_seconds",
        "Time from the head of a request to the head of its answer.",
    );
    register(HistogramVec::new(opts.buckets(BUCKETS.to_vec()), &["method", "route"]))
});

static IN_FLIGHT: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    register(IntGauge::new(
        "formwork_http_requests_in_flight_count",
        "Requests being answered.",
    ))
});

static EVENT_STREAMS: LazyLock<Option<IntGauge>> = LazyLock::new(|| {
    register(IntGauge::new(
        "formwork_http_event_streams_count",
        "Event streams of tasks that are open.",
    ))
});

/// A metric that the default registry knows; a name that is taken is a fault of this program and must not end it.
fn register<C: Collector + Clone + 'static>(metric: prometheus::Result<C>) -> Option<C> {
    metric
        .and_then(|metric| default_registry().register(Box::new(metric.clone())).map(|()| metric))
        .inspect_err(|error| tracing::error!(%error, "a metric could not be registered"))
        .ok()
}

/// Counts one in a gauge until it is dropped.
pub(crate) struct Counted(&'static LazyLock<Option<IntGauge>>);

impl Counted {
    /// A request that is being answered.
    pub(crate) fn request() -> Self {
        Self::begin(&IN_FLIGHT)
    }

    /// An event stream that is open.
    pub(crate) fn event_stream() -> Self {
        Self::begin(&EVENT_STREAMS)
    }

    fn begin(gauge: &'static LazyLock<Option<IntGauge>>) -> Self {
        if let Some(gauge) = gauge.as_ref() {
            gauge.inc();
        }
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(gauge) = self.0.as_ref() {
            gauge.dec();
        }
    }
}

/// Counts an answered request. `route` is the pattern, never the path, so that labels are bounded.
pub(crate) fn observe(method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
    let method = match *method {
        Method::GET => "GET",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        _ => "other",
    };
    if let Some(requests) = REQUESTS.as_ref() {
        requests.with_label_values(&[method, route, status.as_str()]).inc();
    }
    if let Some(seconds) = SECONDS.as_ref() {
        seconds
            .with_label_values(&[method, route])
            .observe(elapsed.as_secs_f64());
    }
}

/// Counters and gauges of the process in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain", body = String)))]
pub(crate) async fn get(State(app): State<App>) -> Response {
    let queues = queue_metrics::gather(&app).await;
    // So that an alert on it sees 0 before the first stream.
    LazyLock::force(&EVENT_STREAMS);
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    let mut families = prometheus::gather();
    families.extend(queues);
    if let Err(error) = encoder.encode(&families, &mut text) {
        return Problem::internal(error).into_response();
    }
    text.extend_from_slice(process().as_bytes());
    ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response()
}

/// The usual `process_…` metrics, read from `/proc`; what the system does not tell is left out.
fn process() -> String {
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may hold blanks.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let field = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let cpu = field(11)
        .zip(field(12))
        .map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    add(
        "process_cpu_seconds_total",
        "counter",
        "CPU time of this process, seconds.",
        cpu,
    );
    add("process_threads", "gauge", "Threads of this process.", field(17));
    let resident = field(21).map(|pages| pages * PAGE_BYTES as f64);
    add(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory, bytes.",
        resident,
    );
    add(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory, bytes; most of it is address space of sandboxes.",
        field(20),
    );
    let files = std::fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count() as f64);
    add("process_open_fds", "gauge", "Open file descriptors.", files);
    text
}

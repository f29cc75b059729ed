//! What happens to a task, as it happens: server-sent events.
//!
//! **Problem.** Whoever waits for a slow step polls, too often or too late. **Promise.** A stream begins with the history so
//! far and goes on until the task has ended, on whichever node the task runs; every event has an id from which
//! `Last-Event-ID` goes on without a gap. A client that comes back after the end is told so (204), which keeps browsers from
//! connecting for ever. **Cost.** One connection and two reads of the store for each change. **Rejected.** Sending the
//! store's events themselves: they are hints that may be missed; what is sent is always what the store holds.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use formwork_store::{Store, TaskId};
use futures::Stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::answers::{EventAnswer, ProgressAnswer};
use super::metrics::Counted;
use super::params::InPath;
use super::problem::{Code, Problem, ProblemDocument};
use super::state::App;
use super::tasks::{task_id, unknown};
use crate::waiters::Waiter;

/// How often a comment is sent when there is nothing else: below the 60 s after which common proxies hang up, and what finds
/// clients that went away without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often the store is looked at when no hint came: hints from other nodes may be lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a stream lasts at most; the client connects again and goes on. Bounds what a forgotten client holds.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What a client waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The last event of a stream whose task has ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndAnswer {
    /// `completed`, `cancelled` or `dead`.
    #[schema(example = "completed")]
    state: String,
}

/// How far a client has heard: the latest line of the history, and the latest progress since (its time in milliseconds).
/// As text `SEQUENCE` or `SEQUENCE-TIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Heard {
    sequence: u32,
    progress_at: i64,
}

impl Heard {
    /// Where the client was, by its `Last-Event-ID`.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(LAST_EVENT_ID) else {
            return Ok(Self::default());
        };
        value.to_str().ok().and_then(Self::parse).ok_or_else(|| {
            let detail = "header last-event-id: send the `id` of an event of this task, or leave it out";
            Problem::new(Code::InvalidRequest, detail)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (sequence, progress_at) = match text.split_once('-') {
            Some((sequence, at)) => (sequence, at.parse().ok().filter(|at| *at >= 0)?),
            None => (text, 0),
        };
        Some(Self {
            sequence: sequence.parse().ok()?,
            progress_at,
        })
    }

    fn id(self) -> String {
        match self.progress_at {
            0 => self.sequence.to_string(),
            at => format!("{}-{at}", self.sequence),
        }
    }
}

/// Everything that happens to a task, from its beginning, as server-sent events: `state` for each line of its history,
/// `progress` for what its plugin says while it runs, `end` when it has ended, which ends the stream.
#[utoipa::path(get, path = "/v1/tasks/{id}/events", tag = "tasks",
    params(("id" = String, Path, description = "The task's id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the latest event that was seen: goes on behind it", example = "2")),
    responses((status = 200, description = "Events named `state` (data: as in the task's `history`), `progress` (data: as the task's \
            `progress`) and `end` (data: the last state). Without `end` the stream broke off: connect again with `Last-Event-ID`",
            content_type = "text/event-stream", body = String,
            example = "id: 1\nevent: state\ndata: {\"sequence\":1,\"at\":\"2026-03-14T09:26:53.589Z\",\"who\":\"pipeline\",\"from\":null,\"to\":\"available\",\"why\":\"created\"}\n\n"),
        (status = 204, description = "The task has ended, and `Last-Event-ID` is its last event: do not connect again"),
        (status = 400, description = "`invalid-request`: `Last-Event-ID` is none of this task's", body = ProblemDocument),
        (status = 404, description = "`unknown-task`", body = ProblemDocument),
        (status = 503, description = "`too-many-streams`", body = ProblemDocument)))]
pub(crate) async fn get(
    State(app): State<App>,
    InPath(id): InPath<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = task_id(&id)?;
    let heard = Heard::of(&headers)?;
    let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let most = app.http.max_event_streams;
        Problem::new(Code::TooManyStreams, format!("{most} event streams are open already"))
    })?;
    let waiter = app.waiters.join(id);
    let mut watch = Watch {
        store: Arc::clone(&app.store),
        id,
        hint: Box::pin(waiter.hint()),
        waiter,
        heard,
        next: VecDeque::new(),
        ended: false,
        until: Instant::now() + LONGEST,
        draining: app.draining.clone(),
        _place: place,
        _open: Counted::event_stream(),
    };
    match watch.look().await? {
        Look::Gone => return Err(unknown(id)),
        Look::Beyond => {
            let detail = format!("header last-event-id: the task has no event {} yet", heard.sequence);
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        Look::Seen if watch.ended && watch.next.len() <= 1 && heard.sequence > 0 => {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        Look::Seen => {}
    }
    if let Some(first) = watch.next.pop_front() {
        watch.next.push_front(first.retry(RETRY));
    }
    let stream = Sse::new(stream(watch)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = stream.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold events back until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One client that watches one task.
struct Watch {
    store: Arc<dyn Store>,
    id: TaskId,
    waiter: Waiter,
    /// Ends when the task has changed since the latest look.
    hint: Pin<Box<OwnedNotified>>,
    heard: Heard,
    /// What is to be sent.
    next: VecDeque<Event>,
    ended: bool,
    until: Instant,
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
    _open: Counted,
}

/// What a look at the store found.
enum Look {
    /// The task.
    Seen,
    /// The client has heard more than there is.
    Beyond,
    /// No such task, or not any more.
    Gone,
}

impl Watch {
    /// Looks at the store and takes down what the client has not heard yet.
    async fn look(&mut self) -> formwork_store::Result<Look> {
        // Made before anything is read: what changes meanwhile wakes.
        self.hint = Box::pin(self.waiter.hint());
        // The task first: what its history says is then at least as new, and only the history decides.
        let Some(task) = self.store.task(self.id).await? else {
            return Ok(Look::Gone);
        };
        let history = self.store.task_history(self.id).await?;
        let Some((sequence, state)) = history.last().map(|last| (last.sequence, last.to)) else {
            return Ok(Look::Gone);
        };
        if self.heard.sequence > sequence {
            return Ok(Look::Beyond);
        }
        for line in history {
            if line.sequence > self.heard.sequence {
                self.heard = Heard {
                    sequence: line.sequence,
                    progress_at: 0,
                };
                self.add("state", &EventAnswer::from(line));
            }
        }
        let of_now = |progress: &formwork_store::TaskProgress| progress.at.0 > self.heard.progress_at;
        if state == formwork_tasks::State::Running
            && let Some(progress) = task.progress.filter(of_now)
        {
            self.heard.progress_at = progress.at.0;
            self.add("progress", &ProgressAnswer::from(progress));
        }
        if state.is_terminal() {
            self.ended = true;
            let state = state.to_string();
            self.add("end", &EndAnswer { state });
        }
        Ok(Look::Seen)
    }

    fn add(&mut self, name: &str, data: &impl Serialize) {
        let event = Event::default().event(name).id(self.heard.id());
        match event.json_data(data) {
            Ok(event) => self.next.push_back(event),
            Err(error) => tracing::error!(%error, "an event cannot be written"),
        }
    }

    /// The next event; none when the stream ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.next.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                () = self.draining.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => return None,
                () = self.hint.as_mut() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match self.look().await {
                Ok(Look::Seen) => {}
                Ok(Look::Beyond | Look::Gone) => return None,
                Err(error) => {
                    tracing::warn!(task = %self.id, %error, "an event stream ends: the store does not answer");
                    return None;
                }
            }
        }
    }
}

fn stream(watch: Watch) -> impl Stream<Item = Result<Event, Infallible>> {
    futures::stream::unfold(watch, |mut watch| async {
        let event = watch.next().await?;
        Some((Ok(event), watch))
    })
}

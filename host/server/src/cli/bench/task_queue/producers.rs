//! Those who send jobs: a number of clients in a closed loop, or jobs by the clock.
//!
//! They live on one thread of their own, as the clients of the HTTP rows do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::body::Body;
use axum::http::{Request, header};
use formwork_store::{NewSubmission, Store, SubmissionId, Submit};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::work::FORM_ID;
use super::job::{Job, now_us};
use super::subject::Subject;
use crate::clock;

/// Largest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A job that is sent this late was not held up by the sleep but by what is measured: it counts from when it was due.
const LATE: Duration = Duration::from_millis(2);

/// How jobs get in.
#[derive(Clone)]
enum Way {
    Store(Arc<dyn Store>),
    Http(SocketAddr),
}

/// Makes clients.
#[derive(Clone)]
pub(crate) struct Producers {
    way: Way,
    batch: u64,
    clients: u16,
    payload_bytes: usize,
}

impl Producers {
    pub(crate) fn new(subject: &Subject, clients: u16, payload_bytes: usize) -> Self {
        let way = if subject.row.is_http() {
            Way::Http(subject.address())
        } else {
            Way::Store(Arc::clone(subject.store()))
        };
        Self {
            way,
            batch: subject.row.batch(),
            clients,
            payload_bytes,
        }
    }

    /// Sends jobs 0 to `jobs`, each client its next ones when the last were acknowledged; answers how long each request
    /// took, and all together.
    pub(crate) async fn closed(self, jobs: u64) -> anyhow::Result<(Vec<Duration>, Duration)> {
        on_own_thread(move || async move {
            let next = AtomicU64::new(0);
            let clients = self.connect().await?;
            let began = Instant::now();
            let sending = clients.into_iter().map(|mut client| {
                let (next, batch, bytes) = (&next, self.batch, self.payload_bytes);
                async move {
                    let mut samples = Vec::new();
                    loop {
                        let first = next.fetch_add(batch, Ordering::Relaxed);
                        if first >= jobs {
                            return anyhow::Ok(samples);
                        }
                        let sent = Instant::now();
                        let numbers = first..jobs.min(first + batch);
                        let documents = numbers.map(|number| Job::document(number, now_us(), bytes));
                        client.send(documents.collect()).await?;
                        samples.push(sent.elapsed());
                    }
                }
            });
            let samples = futures::future::try_join_all(sending).await?.concat();
            Ok((samples, began.elapsed()))
        })
        .await
    }

    /// Sends `jobs` jobs from number `first`, the n-th at `n / rate` seconds, whether or not the ones before were
    /// acknowledged.
    pub(crate) async fn paced(self, first: u64, jobs: u64, rate: f64) -> anyhow::Result<()> {
        on_own_thread(move || async move {
            let clients = self.connect().await?;
            let (began, places, bytes) = (Instant::now(), clients.len(), self.payload_bytes);
            // A client is a place in line: with all of them busy a job waits, and the wait counts.
            let sending = clients.into_iter().enumerate().map(|(place, mut client)| async move {
                for index in (place as u64..jobs).step_by(places) {
                    let due = began + Duration::from_secs_f64(index as f64 / rate);
                    tokio::time::sleep_until(due.into()).await;
                    let late = due.elapsed();
                    let since_due = if late > LATE { late } else { Duration::ZERO };
                    let sent_us = now_us().saturating_sub(u64::try_from(since_due.as_micros()).unwrap_or(0));
                    client.send(vec![Job::document(first + index, sent_us, bytes)]).await?;
                }
                anyhow::Ok(())
            });
            futures::future::try_join_all(sending).await?;
            Ok(())
        })
        .await
    }

    async fn connect(&self) -> anyhow::Result<Vec<Client>> {
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(match &self.way {
                Way::Store(store) => Client::Store(Arc::clone(store)),
                Way::Http(address) => Client::Http {
                    address: *address,
                    sender: connect(*address).await?,
                },
            });
        }
        Ok(clients)
    }
}

/// Runs `work` on a current-thread runtime of its own.
async fn on_own_thread<T, F, W>(work: W) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
    W: FnOnce() -> F + Send + 'static,
{
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("bench-clients".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(work()));
            // The bench may have been given up.
            let _ = tell.send(result);
        })?;
    told.await.context("the thread of the clients panicked")?
}

async fn connect(address: SocketAddr) -> anyhow::Result<http1::SendRequest<Body>> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

enum Client {
    Store(Arc<dyn Store>),
    Http {
        address: SocketAddr,
        sender: http1::SendRequest<Body>,
    },
}

impl Client {
    /// Sends jobs, over HTTP in one request; returns once they are acknowledged.
    async fn send(&mut self, documents: Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Store(store) => {
                for data in documents {
                    let id = SubmissionId::generate();
                    let submission = NewSubmission {
                        id,
                        form: FORM_ID.into(),
                        form_version: 1,
                        data,
                        correlation_id: id.to_string(),
                        idempotency: None,
                        priority: None,
                    };
                    let submitted = store.submit(submission, clock::now()).await?;
                    anyhow::ensure!(matches!(submitted, Submit::Created), "the submission was there already");
                }
            }
            Self::Http { address, sender } => {
                let (path, media_type) = match documents.len() {
                    1 => ("submissions", "application/json"),
                    _ => ("submit-lines", "application/x-ndjson"),
                };
                let request = Request::post(format!("/v1/forms/{FORM_ID}/{path}"))
                    .header(header::HOST, address.to_string())
                    .header(header::CONTENT_TYPE, media_type)
                    .body(Body::from(documents.join("\n")))?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let status = response.status();
                let bytes = axum::body::to_bytes(Body::new(response.into_body()), MAX_ANSWER_BYTES).await?;
                anyhow::ensure!(status.is_success(), "{status} {}", String::from_utf8_lossy(&bytes));
            }
        }
        Ok(())
    }
}

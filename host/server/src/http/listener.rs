//! Accepting connections: a bound on how many there are, on how long a head may take, and a graceful end.
//!
//! The framework's own `serve` has none of the three; a client that opens connections and says nothing would hold them
//! for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Longest time from the start of a connection, or the end of an answer, to the end of the next request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request, bytes; also the connection's read buffer.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Pause after the system refused to accept, usually for want of file descriptors: they come back when connections end.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The end of a listener.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
    /// Cancelled to cut connections off that do not end.
    abort: CancellationToken,
    /// Ends when every connection has dropped its sender.
    ended: mpsc::Receiver<()>,
}

/// Binds an address and serves the router on it.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(address: SocketAddr, max_connections: usize, router: Router) -> io::Result<Listening> {
    let listener = TcpListener::bind(address).await?;
    let (alive, ended) = mpsc::channel(1);
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    let listening = Listening {
        address: listener.local_addr()?,
        stop: stop.clone(),
        abort: abort.clone(),
        ended,
    };
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(max_connections));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                // A place first: without one, connections wait in the system's backlog.
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    continue;
                }
            };
            let (router, stop, abort, alive) = (router.clone(), stop.clone(), abort.clone(), alive.clone());
            tokio::spawn(async move {
                serve(stream, router, &stop, &abort).await;
                drop((place, alive));
            });
        }
    });
    Ok(listening)
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

async fn serve(stream: TcpStream, router: Router, stop: &CancellationToken, abort: &CancellationToken) {
    // Small answers go out at once.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = abort.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

impl Listening {
    /// The address that was bound; the port is a real one where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more and waits until what is being answered is; cuts the rest off after `patience`.
    pub async fn stop(mut self, patience: Duration) {
        self.stop.cancel();
        // Nothing is ever sent: the channel closes when the last connection has ended.
        if tokio::time::timeout(patience, self.ended.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut off");
            self.abort.cancel();
            self.ended.recv().await;
        }
    }
}

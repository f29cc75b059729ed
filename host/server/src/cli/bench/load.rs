//! Requests over and over from a number of connections: what the HTTP rows are measured with, here and against other
//! servers (`formwork bench load`), so that every server sees the same client.
//!
//! Each connection is kept alive and has one request under way at a time. All of them live on one thread: the client
//! shall take little of a small machine, and the same for every server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::body::Body;
use axum::http::{Request, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use super::figures::Figures;
use crate::cli::Global;
use crate::cli::exit::Failure;
use crate::cli::output::{print, print_json};

/// Largest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to post: `http://ADDRESS:PORT/PATH`.
    #[arg(long, value_name = "URL")]
    url: Uri,
    /// The file with the body; absent: the bench submission.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How long, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    time_ms: u64,
    /// What must stand in every answer.
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
}

/// What is sent, and from how many connections.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) body: String,
    pub(crate) connections: u16,
    /// What must stand in every answer: a server that answers nonsense quickly shall not win.
    pub(crate) expect: Option<String>,
}

pub(crate) fn run(options: &Options, global: &Global) -> Result<(), Failure> {
    let uri = &options.url;
    let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Failure::Usage(format!("{uri} is not http://ADDRESS:PORT/PATH")));
    };
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let body = match &options.body {
        Some(file) => String::from_utf8(crate::cli::read_input(file)?)
            .map_err(|_| Failure::Usage(format!("{} is not UTF-8", file.display())))?,
        None => super::work::Work::standard()?.submission,
    };
    let load = Load {
        address: std::net::ToSocketAddrs::to_socket_addrs(&address)?
            .next()
            .context("the host has no address")?,
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        body,
        connections: options.connections,
        expect: options.expect.clone(),
    };
    let figures = load.run_on_own_thread(Duration::from_millis(options.time_ms))?;
    if global.json {
        print_json(&json!(figures))?;
    } else {
        let Figures {
            per_second,
            p50_us,
            p95_us,
            p99_us,
        } = figures;
        print(&format!(
            "{per_second:.0} requests a second, p50 {p50_us:.0} us, p95 {p95_us:.0} us, p99 {p99_us:.0} us"
        ))?;
    }
    Ok(())
}

impl Load {
    /// Sends for `time`, on a thread of its own.
    pub(crate) fn run_on_own_thread(&self, time: Duration) -> anyhow::Result<Figures> {
        let load = self.clone();
        let thread = std::thread::Builder::new().name("bench-load".into()).spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(load.run(time))
        })?;
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the thread of the clients panicked"))?
    }

    async fn run(&self, time: Duration) -> anyhow::Result<Figures> {
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(Client::connect(self).await?);
        }
        let began = Instant::now();
        let sending = clients.into_iter().map(|client| client.send_until(began + time));
        let ended = futures::future::try_join_all(sending).await?;
        Ok(Figures::of(ended.concat(), began.elapsed()))
    }
}

struct Client<'a> {
    load: &'a Load,
    sender: http1::SendRequest<Body>,
}

impl<'a> Client<'a> {
    async fn connect(load: &'a Load) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(load.address)
            .await
            .with_context(|| format!("connecting to {}", load.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut client = Self { load, sender };
        // The first request of a connection is not like the others.
        client.send().await?;
        Ok(client)
    }

    async fn send_until(mut self, end: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut samples = Vec::new();
        let mut last = Instant::now();
        while last < end {
            self.send().await?;
            let now = Instant::now();
            samples.push(now - last);
            last = now;
        }
        Ok(samples)
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let load = self.load;
        let request = Request::post(load.path.as_str())
            .header(header::HOST, load.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(load.body.clone()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let bytes = axum::body::to_bytes(Body::new(response.into_body()), MAX_ANSWER_BYTES).await?;
        let answer = || String::from_utf8_lossy(&bytes).into_owned();
        anyhow::ensure!(
            status.is_success(),
            "{}{}: {status} {}",
            load.address,
            load.path,
            answer()
        );
        if let Some(expected) = &load.expect {
            anyhow::ensure!(
                bytes.windows(expected.len()).any(|part| part == expected.as_bytes()),
                "{}{} answered without `{expected}`: {}",
                load.address,
                load.path,
                answer()
            );
        }
        Ok(())
    }
}

//! What is measured: the product on a store of its own, with a runner that notes what it runs.

use std::sync::Arc;
use std::time::Duration;

use formwork_store::{PoolControlChange, Store};
use formwork_tasks::Pool;
use tempfile::TempDir;

use super::super::http::publish;
use super::super::work::Scratch;
use super::job::{BenchRunner, Starts};
use crate::serve::{Machinery, Server, open_store};

/// The pool of the form's only step.
const POOL: Pool = Pool::High;

/// One step; the runner decides what it does.
const FORM: &str = r#"{
  "title": "Queue bench",
  "schema": { "type": "object", "required": ["number", "sent_us"],
    "properties": { "number": { "type": "integer" }, "sent_us": { "type": "integer" }, "padding": { "type": "string" } } },
  "pipeline": [{ "name": "check", "plugin": "validate" }]
}"#;

/// A way in and a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// `Store::submit` in this process, a runner that does nothing.
    StoreNoop,
    /// HTTP, a runner that does nothing.
    HttpNoop,
    /// HTTP, a sandboxed validation.
    HttpValidate,
    /// HTTP, 100 documents a request, a runner that does nothing.
    HttpLinesNoop,
}

impl Row {
    pub(crate) const ALL: [Self; 4] = [Self::StoreNoop, Self::HttpNoop, Self::HttpValidate, Self::HttpLinesNoop];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StoreNoop => "store, no-op",
            Self::HttpNoop => "http, no-op",
            Self::HttpValidate => "http, validate",
            Self::HttpLinesNoop => "http, no-op, 100 a request",
        }
    }

    /// Jobs of a request of the first phase.
    pub(crate) fn batch(self) -> u64 {
        match self {
            Self::HttpLinesNoop => 100,
            _ => 1,
        }
    }

    pub(crate) fn is_http(self) -> bool {
        self != Self::StoreNoop
    }
}

/// The store's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Durability {
    /// Fsync before the answer.
    Sync,
    /// At most a second after it.
    Interval,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
        }
    }
}

/// A server on an empty store.
pub(crate) struct Subject {
    pub(crate) row: Row,
    pub(crate) starts: Starts,
    server: Server,
    // Removed when this is dropped.
    _folder: TempDir,
}

impl Subject {
    pub(crate) async fn start(
        scratch: &Scratch,
        machinery: &Machinery,
        row: Row,
        durability: Durability,
    ) -> anyhow::Result<Self> {
        // Beside the caller's files: a store in a memory file system would make fsync free.
        let folder = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
        let mut config = scratch.config.clone();
        let parameters = match durability {
            Durability::Sync => "",
            Durability::Interval => "?durability=interval",
        };
        config.store = format!("sqlite:{}{parameters}", folder.path().join("bench.db").display());
        let starts = Starts::default();
        let noted = starts.clone();
        let store = open_store(&config).await?;
        let server = Server::start_running(config, machinery.clone(), store, move |product| {
            Arc::new(BenchRunner {
                starts: noted,
                product: (row == Row::HttpValidate).then_some(product),
            })
        })
        .await?;
        publish(server.address(), FORM).await?;
        Ok(Self {
            row,
            starts,
            server,
            _folder: folder,
        })
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.server.store()
    }

    /// Nothing is claimed until [`Subject::resume`].
    pub(crate) async fn pause(&self) -> anyhow::Result<()> {
        self.set_paused(true).await
    }

    pub(crate) async fn resume(&self) -> anyhow::Result<()> {
        self.set_paused(false).await
    }

    /// Returns once the dispatcher has seen it.
    async fn set_paused(&self, paused: bool) -> anyhow::Result<()> {
        let change = PoolControlChange {
            paused: Some(paused),
            ..PoolControlChange::default()
        };
        self.store().set_pool_control(POOL, change, crate::clock::now()).await?;
        let scheduler = self.server.scheduler();
        while scheduler
            .status()
            .iter()
            .any(|status| status.pool == POOL && status.paused != paused)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Tasks recorded as completed.
    pub(crate) async fn completed(&self) -> anyhow::Result<u64> {
        let stats = self.store().pool_stats(crate::clock::now()).await?;
        Ok(stats
            .iter()
            .filter(|stats| stats.pool == POOL)
            .map(|stats| stats.completed)
            .sum())
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

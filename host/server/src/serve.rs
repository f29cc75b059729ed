//! Wiring: everything from one configuration, up in order, down in order.
//!
//! **Problem.** Server, demo, bench, tests and `formwork run` must not each wire a slightly different product. **Promise.**
//! [`Machinery`] is what runs plugins (models, engine, catalog); [`Server`] is that with a store, pools and the HTTP API.
//! What was started is stopped in the opposite order, also when a later part does not start. **Cost.** Start takes as long
//! as loading models and compiling plugins: seconds the first time. **Rejected.** Listening before everything is there:
//! an orchestrator would see a server that cannot serve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use formwork_engine::Engine;
use formwork_inference::Inference;
use formwork_pipeline::{Catalog, CatalogError, RefusedPlugin};
use formwork_scheduler::{DrainReport, Lane, Scheduler, TaskRunner};
use formwork_store::Store;
use formwork_store::cluster::{ClusterStore, Options as ClusterOptions};
use formwork_store::sqlite::{Durability, Options as SqliteOptions, SqliteStore};
use formwork_tasks::Pool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Role, StoreUrl, masked};
use crate::forms::Forms;
use crate::http::listener::{Listening, listen};
use crate::http::{self, App, Parts};
use crate::plugin_library::PluginLibrary;
use crate::retention;
use crate::runner::StepRunner;
use crate::waiters::Waiters;

/// How long a start waits for MongoDB: longer than a replica set takes to be made and to elect, short enough that whoever
/// started the process with a wrong address still looks at it.
const STORE_PATIENCE: Duration = Duration::from_secs(60);

/// Between two attempts to reach MongoDB, each of which waits some seconds itself.
const STORE_PAUSE: Duration = Duration::from_millis(500);

/// Why the product did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A model or a native library.
    #[error("starting inference: {0}")]
    Inference(#[from] formwork_inference::Error),
    /// The sandboxes.
    #[error(transparent)]
    Engine(#[from] formwork_engine::Error),
    /// The plugin folder.
    #[error("{0} (plugins are built by `make build`; the folder is `plugins.folder` in the configuration)")]
    Plugins(CatalogError),
    /// The folder of the store cannot be made.
    #[error("making the folder {path}: {source}", path = path.display())]
    Folder {
        /// The folder.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store.
    #[error("opening the store: {0}")]
    Store(#[from] formwork_store::Error),
    /// `store` or `redis` in the configuration.
    #[error("key `{key}`: {message}")]
    StoreUrl {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The pools.
    #[error(transparent)]
    Scheduler(#[from] formwork_scheduler::StartError),
    /// The address cannot be bound.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread that starts things died.
    #[error("starting: {0}")]
    Start(String),
}

/// How long a server whose store has failed goes on: enough to tell those who wait that nothing was recorded.
const FAILED_DRAIN: Duration = Duration::from_secs(1);

/// Why a server ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("the store stopped after an i/o error, check the disk and start again: {0}")]
pub struct StoreFailed(String);

/// What runs plugins, without a store.
#[derive(Clone)]
pub struct Machinery {
    /// The models.
    pub inference: Inference,
    /// The sandboxes.
    pub engine: Engine,
    /// The plugins.
    pub catalog: Catalog,
    /// Files of the plugin folder that were not taken, and why.
    pub refused: Arc<[RefusedPlugin]>,
}

impl Machinery {
    /// Loads plugins, and the models that are to be loaded at start. Takes as long as that takes, on a thread of its own.
    ///
    /// # Errors
    /// See [`StartError`]. A plugin that is refused is not one: it is logged and reported by `/readyz`.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let config = config.clone();
        let started = tokio::task::spawn_blocking(move || Self::load(&config));
        started.await.map_err(|error| StartError::Start(error.to_string()))?
    }

    fn load(config: &Config) -> Result<Self, StartError> {
        let began = Instant::now();
        let inference = Inference::start(config.inference.clone(), config.models.clone())?;
        let mut engine = config.engine.clone();
        // A process without AI work loads no models only to find out that a plugin is well.
        engine.self_tests_infer = config.roles.has(Role::Batched);
        let engine = Engine::new(engine, inference.clone())?;
        // Self-tests run guests: not on the runtime that serves requests.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| StartError::Start(error.to_string()))?;
        let opened = Catalog::open(&engine, &config.plugins.folder, config.plugins.grants.clone());
        let (catalog, refused) = runtime.block_on(opened).map_err(StartError::Plugins)?;
        for plugin in &refused {
            tracing::error!(file = %plugin.file.display(), error = %plugin.error, "plugin refused");
        }
        for plugin in catalog.list() {
            tracing::info!(
                name = plugin.name,
                version = plugin.version,
                digest = plugin.digest,
                kind = plugin.kind,
                "plugin ready"
            );
        }
        tracing::info!(
            elapsed_ms = began.elapsed().as_secs_f64() * 1e3,
            "models and plugins loaded"
        );
        Ok(Self {
            inference,
            engine,
            catalog,
            refused: refused.into(),
        })
    }
}

/// Opens the store that the configuration names; makes its folder.
///
/// # Errors
/// [`StartError::StoreUrl`], [`StartError::Folder`], [`StartError::Store`].
pub async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let url = StoreUrl::parse(&config.store, &config.redis)
        .map_err(|(key, message)| StartError::StoreUrl { key, message })?;
    match url {
        StoreUrl::Sqlite { path, interval } => open_sqlite(path, interval).await,
        StoreUrl::Cluster(options) => open_cluster(options).await,
    }
}

/// Opens the store of many nodes. Containers of one system start together, and the database is not the first to be there.
async fn open_cluster(options: ClusterOptions) -> Result<Arc<dyn Store>, StartError> {
    let began = Instant::now();
    loop {
        match ClusterStore::open(options.clone()).await {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error @ formwork_store::Error::Unavailable { .. }) if began.elapsed() < STORE_PATIENCE => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(STORE_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn open_sqlite(path: PathBuf, interval: bool) -> Result<Arc<dyn Store>, StartError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|source| StartError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    let mut options = SqliteOptions::new(path);
    if interval {
        options.durability = Durability::Interval {
            ms: formwork_store::limits::INTERVAL_MS,
        };
    }
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&options));
    let store = opened.await.map_err(|error| StartError::Start(error.to_string()))??;
    Ok(Arc::new(store))
}

/// The whole product, serving.
pub struct Server {
    app: App,
    listening: Listening,
    store_description: String,
    drain_timeout: Duration,
    /// What a run that is told to stop may take.
    stop_grace: Duration,
}

impl Server {
    /// Starts everything and listens. Must be called inside a runtime, which then serves the requests.
    ///
    /// # Errors
    /// See [`StartError`]; what was started before is stopped.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // First: without its store nothing is served, however many plugins are compiled.
        let store = open_store(&config).await?;
        match Machinery::start(&config).await {
            Ok(machinery) => Self::start_running(config, machinery, store, |steps| Arc::new(steps)).await,
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    /// [`Server::start`] with models and plugins that are loaded already.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(config: Config, machinery: Machinery) -> Result<Self, StartError> {
        let store = open_store(&config).await?;
        Self::start_running(config, machinery, store, |steps| Arc::new(steps)).await
    }

    /// [`Server::start_with`], but tasks are run by what `runner` makes of the product's own: for the benches, which
    /// measure the queue apart from the plugins.
    pub(crate) async fn start_running(
        config: Config,
        machinery: Machinery,
        store: Arc<dyn Store>,
        runner: impl FnOnce(StepRunner) -> Arc<dyn TaskRunner>,
    ) -> Result<Self, StartError> {
        let forms = Forms::new(Arc::clone(&store));
        let draining = CancellationToken::new();
        let library = PluginLibrary::start(Arc::clone(&store), machinery.catalog.clone(), draining.clone()).await;
        let runner = runner(StepRunner::new(
            forms.clone(),
            machinery.catalog.clone(),
            library.clone(),
        ));
        let mut pools = config.pools.clone();
        // Only an embedded store is known to have no other process at work on it.
        pools.sole_process = config.store.starts_with("sqlite:");
        pools.roles = config.roles.in_pools();
        let scheduler = Scheduler::start(pools, Arc::clone(&store), runner)?;
        retention::start(Arc::clone(&store), config.retention, draining.clone());
        let app = App::new(Parts {
            waiters: Waiters::start(&store),
            store,
            catalog: machinery.catalog,
            library,
            refused: machinery.refused,
            inference: machinery.inference,
            scheduler,
            forms,
            streams: Arc::new(Semaphore::new(config.http.max_event_streams)),
            http: config.http.clone(),
            draining,
        });
        let address = config.http.listen;
        let router = http::router(app.clone(), config.roles.has(Role::Api));
        let listened = listen(address, config.http.max_connections, router).await;
        let drain_timeout = Duration::from_millis(config.http.drain_timeout_ms);
        let stop_grace = Duration::from_millis(config.pools.stop_grace_ms);
        match listened {
            Ok(listening) => {
                tracing::info!(
                    address = %listening.address(),
                    store = masked(&config.store),
                    roles = %config.roles,
                    "serving"
                );
                Ok(Self {
                    app,
                    listening,
                    store_description: masked(&config.store),
                    drain_timeout,
                    stop_grace,
                })
            }
            Err(source) => {
                app.scheduler.drain(Duration::ZERO).await;
                app.store.close().await;
                Err(StartError::Listen { address, source })
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// The store, as the configuration names it.
    #[must_use]
    pub fn store_description(&self) -> &str {
        &self.store_description
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.app.store
    }

    /// The plugins.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.app.catalog
    }

    /// The models.
    #[must_use]
    pub fn inference(&self) -> &Inference {
        &self.app.inference
    }

    /// The pools.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.app.scheduler
    }

    /// What the handlers share.
    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// The threads of a pool.
    #[must_use]
    pub fn lane(&self, pool: Pool) -> &Lane {
        self.app.scheduler.lane(pool)
    }

    /// Serves until the process is told to stop (SIGTERM, SIGINT), then stops. A second signal ends the process at once.
    ///
    /// # Errors
    /// [`StoreFailed`] when it stopped because its store did: nothing could be acknowledged any more.
    pub async fn until_stopped(mut self) -> Result<(), StoreFailed> {
        let store = Arc::clone(&self.app.store);
        let outcome = tokio::select! {
            () = signalled() => {
                tracing::info!("told to stop");
                Ok(())
            }
            why = store.failed() => {
                tracing::error!(why, "the store has stopped: ending, what was acknowledged is on disk");
                // Nothing that ends now can be recorded.
                self.drain_timeout = self.drain_timeout.min(FAILED_DRAIN);
                Err(StoreFailed(why))
            }
        };
        let inference = self.app.inference.clone();
        let second = tokio::spawn(async {
            signalled().await;
            tracing::warn!("told to stop twice: ending at once");
            // 128 and the number of SIGINT, as shells report it.
            std::process::exit(130);
        });
        self.stop().await;
        if let Err(error) = tokio::task::spawn_blocking(move || inference.shutdown()).await {
            tracing::warn!(%error, "inference did not shut down");
        }
        second.abort();
        outcome
    }

    /// Stops in order: says no to probes, answers what is being asked, finishes or gives back what runs, closes the store.
    /// The models are freed with their last handle.
    pub async fn stop(self) -> DrainReport {
        let began = Instant::now();
        self.app.draining.cancel();
        // Half of the time for requests, so that tasks have the other half.
        self.listening.stop(self.drain_timeout / 2).await;
        // What does not end by itself is told to stop in time to do so.
        let left = self.drain_timeout.saturating_sub(began.elapsed() + self.stop_grace);
        let report = self.app.scheduler.drain(left).await;
        self.app.store.close().await;
        tracing::info!(
            elapsed_ms = began.elapsed().as_secs_f64() * 1e3,
            finished = report.finished,
            released = report.released,
            "stopped"
        );
        report
    }
}

/// Ends when the process is told to stop.
pub(crate) async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be listened to, only SIGKILL ends this process");
            std::future::pending::<()>().await;
        }
    }
}

//! Plugins that were pushed: kept in the store, installed on every node.
//!
//! **Problem.** A folder on one machine is not seen by the others, and reading it again takes a restart. **Promise.** A
//! pushed plugin is checked and installed by the node that took it, then kept in the store; every other node finds it
//! within [`LOOK_EVERY`] and installs it, and so does a node that starts later. What is refused on one node (its operator
//! grants less) is reported there and does not stop the others. **Cost.** One small read every [`LOOK_EVERY`].
//! **Rejected.** Watching the folder: on many machines it would have to be a shared file system.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use formwork_engine::Plugin;
use formwork_pipeline::{Catalog, CatalogError};
use formwork_store::{NewPlugin, PutPlugin, Store, StoredPlugin};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// How often the store is asked for plugins that are not installed here: what is pushed is seen everywhere within a second.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long after a failure the same plugin is tried again: long enough not to compile in vain all the time.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Why a plugin was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// It was not installed: not a plugin, refused, or its version is taken.
    #[error(transparent)]
    Refused(#[from] CatalogError),
    /// Another component was pushed under this name and version.
    #[error("{name} {version} was pushed already with digest {stored}: give the new file a new version")]
    VersionTaken {
        /// The plugin's name.
        name: String,
        /// Its version.
        version: String,
        /// The digest that holds the version.
        stored: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] formwork_store::Error),
    /// The thread that installs died.
    #[error("installing broke off: {0}")]
    Install(String),
}

/// A stored plugin that is not installed here, and why.
#[derive(Clone, Debug)]
pub struct Failed {
    /// `NAME@VERSION`.
    pub plugin: String,
    /// What was wrong.
    pub reason: String,
    at: Instant,
}

/// Handle to the pushed plugins; cloning is cheap.
#[derive(Clone)]
pub struct PluginLibrary(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    catalog: Catalog,
    /// One look at a time: two would compile the same plugin twice.
    looking: AsyncMutex<()>,
    failed: Mutex<BTreeMap<String, Failed>>,
}

impl PluginLibrary {
    /// Installs what the store holds and goes on looking until `stopped`. A store that fails is asked again.
    pub async fn start(store: Arc<dyn Store>, catalog: Catalog, stopped: CancellationToken) -> Self {
        let library = Self(Arc::new(Inner {
            store,
            catalog,
            looking: AsyncMutex::default(),
            failed: Mutex::default(),
        }));
        if let Err(error) = library.look().await {
            tracing::warn!(%error, "pushed plugins not read yet");
        }
        let looking = library.clone();
        tokio::spawn(async move {
            let mut turns = tokio::time::interval(LOOK_EVERY);
            turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    _ = turns.tick() => {}
                }
                if let Err(error) = looking.look().await {
                    tracing::debug!(%error, "pushed plugins not read");
                }
            }
        });
        library
    }

    /// Checks, installs and keeps a component; the same one again changes nothing. Answers the plugin and whether it is new.
    ///
    /// # Errors
    /// See [`PushError`]; nothing is kept then.
    pub async fn push(&self, component: Vec<u8>) -> Result<(Arc<Plugin>, bool), PushError> {
        let library = self.clone();
        // A client that goes away does not stop an installation half-way.
        let pushed = tokio::spawn(async move {
            let plugin = library.install(component.clone()).await?;
            let manifest = plugin.manifest();
            let new = NewPlugin {
                name: manifest.name.clone(),
                version: manifest.version.to_string(),
                digest: plugin.digest().to_string(),
                component,
            };
            match library.0.store.put_plugin(new, clock::now()).await? {
                PutPlugin::Created => Ok((plugin, true)),
                PutPlugin::Unchanged => Ok((plugin, false)),
                PutPlugin::VersionTaken { digest } => Err(PushError::VersionTaken {
                    name: manifest.name.clone(),
                    version: manifest.version.to_string(),
                    stored: digest,
                }),
            }
        });
        pushed.await.map_err(|error| PushError::Install(error.to_string()))?
    }

    /// Installs what the store has and this node has not.
    ///
    /// # Errors
    /// When the store cannot be read. A plugin that is refused is not one; see [`PluginLibrary::failed`].
    pub async fn look(&self) -> Result<(), formwork_store::Error> {
        let _one_at_a_time = self.0.looking.lock().await;
        for stored in self.0.store.plugins().await? {
            if self.is_settled(&stored) {
                continue;
            }
            let name = format!("{}@{}", stored.name, stored.version);
            let Some(component) = self.0.store.plugin_component(&stored.digest).await? else {
                continue;
            };
            match self.install(component).await {
                Ok(plugin) => {
                    lock(&self.0.failed).remove(&stored.digest);
                    tracing::info!(plugin = name, digest = %plugin.digest(), "pushed plugin installed");
                }
                Err(error) => {
                    tracing::error!(plugin = name, %error, "pushed plugin refused here");
                    let failed = Failed {
                        plugin: name,
                        reason: error.to_string(),
                        at: Instant::now(),
                    };
                    lock(&self.0.failed).insert(stored.digest, failed);
                }
            }
        }
        Ok(())
    }

    /// Stored plugins that this node did not take.
    #[must_use]
    pub fn failed(&self) -> Vec<Failed> {
        lock(&self.0.failed).values().cloned().collect()
    }

    fn is_settled(&self, stored: &StoredPlugin) -> bool {
        let reference = format!("{}@{}", stored.name, stored.version);
        let installed = self.0.catalog.resolve(&reference);
        installed.is_ok_and(|plugin| plugin.digest().to_string() == stored.digest)
            || lock(&self.0.failed)
                .get(&stored.digest)
                .is_some_and(|failed| failed.at.elapsed() < TRY_AGAIN_AFTER)
    }

    /// Installs on a thread of its own: compiling takes seconds, and self-tests run the guest.
    async fn install(&self, component: Vec<u8>) -> Result<Arc<Plugin>, PushError> {
        let catalog = self.0.catalog.clone();
        let installed = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| PushError::Install(error.to_string()))?;
            Ok(runtime.block_on(catalog.install(component))?)
        });
        installed.await.map_err(|error| PushError::Install(error.to_string()))?
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

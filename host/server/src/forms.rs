//! Published forms, ready to run.
//!
//! **Problem.** A form's definition may have 700 kB; reading and parsing it for every submission and every task would cost
//! more than the work itself. **Promise.** A form version is parsed once and shared; versions are immutable, so nothing is
//! ever stale. **Cost.** [`MAX_READY`] definitions in memory. **Rejected.** Keeping all of them: a service with thousands
//! of forms uses few at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use formwork_pipeline::{DefinitionError, FormDefinition, Pipeline};
use formwork_store::Store;

/// Form versions kept ready; when there are more, the memory starts anew.
const MAX_READY: usize = 256;

/// How long the number of a form's latest version is believed. Publishing in this process shows at once, publishing by
/// another node within this: below the second that is promised.
const LATEST_FOR: Duration = Duration::from_millis(500);

/// Why a published form is not ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] formwork_store::Error),
    /// The store holds a definition that this version of the program does not take.
    #[error("form {id} version {version} as stored is not valid: {source}")]
    Broken {
        /// The form.
        id: String,
        /// Its version.
        version: u32,
        /// What is wrong with it.
        source: DefinitionError,
    },
}

/// Handle to the forms of a store; cloning is cheap.
#[derive(Clone)]
pub struct Forms(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    ready: Mutex<HashMap<(String, u32), Arc<Pipeline>>>,
    latest: Mutex<HashMap<String, (u32, Instant)>>,
}

impl Forms {
    /// The forms of this store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(Arc::new(Inner {
            store,
            ready: Mutex::default(),
            latest: Mutex::default(),
        }))
    }

    /// A form version, or the latest one; nothing when it does not exist.
    ///
    /// # Errors
    /// See [`FormsError`].
    pub async fn get(&self, id: &str, version: Option<u32>) -> Result<Option<Arc<Pipeline>>, FormsError> {
        let version = version.or_else(|| self.known_latest(id));
        if let Some(version) = version
            && let Some(ready) = lock(&self.0.ready).get(&(id.to_owned(), version))
        {
            return Ok(Some(Arc::clone(ready)));
        }
        let Some(found) = self.0.store.form(id, version).await? else {
            return Ok(None);
        };
        let broken = |source| FormsError::Broken {
            id: id.to_owned(),
            version: found.version,
            source,
        };
        let definition = FormDefinition::parse(found.definition.as_bytes()).map_err(broken)?;
        let pipeline = Arc::new(Pipeline::new(id, found.version, Arc::new(definition)));
        if version.is_none() {
            self.published(id, found.version);
        }
        let mut ready = lock(&self.0.ready);
        if ready.len() >= MAX_READY {
            ready.clear();
        }
        ready.insert((id.to_owned(), found.version), Arc::clone(&pipeline));
        Ok(Some(pipeline))
    }

    /// Tells that this is now the form's latest version.
    pub fn published(&self, id: &str, version: u32) {
        let mut latest = lock(&self.0.latest);
        latest.retain(|_, (_, since)| since.elapsed() < LATEST_FOR);
        // Two requests may tell this in the wrong order; versions only rise.
        let entry = latest.entry(id.to_owned()).or_insert((version, Instant::now()));
        *entry = (entry.0.max(version), Instant::now());
    }

    fn known_latest(&self, id: &str) -> Option<u32> {
        let latest = lock(&self.0.latest);
        latest
            .get(id)
            .filter(|(_, since)| since.elapsed() < LATEST_FOR)
            .map(|(version, _)| *version)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The installed plugins by name, version and alias.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use formwork_engine::{Engine, Grant, InstallError, Plugin};
use semver::Version;
use serde::Serialize;

/// The alias a bare name stands for: the highest version unless an operator moved it.
const DEFAULT_ALIAS: &str = "stable";

/// What an operator allows, by plugin name.
pub type GrantPolicy = BTreeMap<String, BTreeSet<Grant>>;

/// `NAME`, `NAME@VERSION` or `NAME@ALIAS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginReference {
    /// The plugin's name.
    pub name: String,
    /// A version or an alias; `stable` when none was written.
    pub tag: String,
}

impl FromStr for PluginReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, tag) = text.split_once('@').unwrap_or((text, DEFAULT_ALIAS));
        let plain = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+' | '_'))
        };
        if plain(name) && plain(tag) {
            Ok(Self {
                name: name.into(),
                tag: tag.into(),
            })
        } else {
            Err(format!(
                "`{}` is not NAME, NAME@VERSION or NAME@ALIAS",
                text.escape_debug()
            ))
        }
    }
}

/// No installed plugin fits a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown plugin: `{reference}` (installed: {known})")]
pub struct UnknownPlugin {
    /// What was asked for.
    pub reference: String,
    /// What there is.
    pub known: String,
}

/// A file of the plugin folder that was not installed.
#[derive(Debug)]
pub struct RefusedPlugin {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub error: CatalogError,
}

/// Why a plugin was not added, or the folder not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// A file or the folder cannot be read.
    #[error("reading {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine refused it.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// Another file has the same name and version.
    #[error("{name} {version} is installed already with digest {installed}: give the new file a new version")]
    VersionTaken {
        /// The plugin's name.
        name: String,
        /// Its version.
        version: Version,
        /// The digest that holds the version.
        installed: String,
    },
}

/// A row of the list of plugins.
#[derive(Debug, Clone, Serialize)]
pub struct CatalogEntry {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// Its kind.
    pub kind: String,
    /// What it does.
    pub description: String,
    /// The aliases that point to this version.
    pub aliases: Vec<String>,
    /// What it was granted, with the reasons it gives.
    pub grants: BTreeMap<String, String>,
    /// Bytes of its file.
    pub size: usize,
    /// Why it cannot be snapshotted, so that every call prepares anew; absent: it can.
    pub no_snapshots: Option<String>,
}

#[derive(Default)]
struct Installed {
    versions: BTreeMap<String, BTreeMap<Version, Arc<Plugin>>>,
}

/// The installed plugins. A cheap handle onto one list.
#[derive(Clone)]
pub struct Catalog {
    engine: Engine,
    policy: Arc<GrantPolicy>,
    installed: Arc<RwLock<Installed>>,
}

impl Catalog {
    /// Installs every `*.wasm` of a folder, in the order of file names. Files that are refused are reported, and the
    /// others serve.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub async fn open(
        engine: &Engine,
        folder: &Path,
        policy: GrantPolicy,
    ) -> Result<(Self, Vec<RefusedPlugin>), CatalogError> {
        let catalog = Self {
            engine: engine.clone(),
            policy: Arc::new(policy),
            installed: Arc::default(),
        };
        let unreadable = |source| CatalogError::Io {
            path: folder.to_owned(),
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "wasm") {
                files.push(path);
            }
        }
        files.sort();
        let mut refused = Vec::new();
        for file in files {
            let bytes = std::fs::read(&file).map_err(|source| CatalogError::Io {
                path: file.clone(),
                source,
            });
            let installed = match bytes {
                Ok(bytes) => catalog.install(bytes).await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = installed {
                refused.push(RefusedPlugin { file, error });
            }
        }
        Ok((catalog, refused))
    }

    /// Installs one component; installing the same file again changes nothing.
    ///
    /// # Errors
    /// [`CatalogError::Install`], [`CatalogError::VersionTaken`].
    pub async fn install(&self, component: Vec<u8>) -> Result<Arc<Plugin>, CatalogError> {
        let name = formwork_engine::manifest_name(&component).map_err(InstallError::from)?;
        let grants = self.policy.get(&name).cloned().unwrap_or_default();
        let plugin = self.engine.install(component, &grants).await?;
        let mut installed = self.installed.write().unwrap_or_else(PoisonError::into_inner);
        let versions = installed.versions.entry(name.clone()).or_default();
        let version = plugin.manifest().version.clone();
        if let Some(holder) = versions.get(&version) {
            if holder.digest() == plugin.digest() {
                return Ok(Arc::clone(holder));
            }
            return Err(CatalogError::VersionTaken {
                name,
                version,
                installed: holder.digest().to_string(),
            });
        }
        versions.insert(version, Arc::clone(&plugin));
        Ok(plugin)
    }

    /// The version a reference stands for now.
    ///
    /// # Errors
    /// [`UnknownPlugin`] with the names and versions there are.
    pub fn resolve(&self, reference: &str) -> Result<Arc<Plugin>, UnknownPlugin> {
        let installed = self.installed.read().unwrap_or_else(PoisonError::into_inner);
        let found = reference.parse::<PluginReference>().ok().and_then(|wanted| {
            let versions = installed.versions.get(&wanted.name)?;
            if wanted.tag == DEFAULT_ALIAS {
                return stable(versions).map(|(_, plugin)| Arc::clone(plugin));
            }
            versions.get(&Version::parse(&wanted.tag).ok()?).cloned()
        });
        found.ok_or_else(|| UnknownPlugin {
            reference: reference.to_owned(),
            known: installed.to_string(),
        })
    }

    /// What an operator must know of the sandboxes' safety, if anything.
    pub fn warning(&self) -> Option<&'static str> {
        self.engine.warning()
    }

    /// Every installed version.
    pub fn list(&self) -> Vec<CatalogEntry> {
        let installed = self.installed.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries = Vec::new();
        for (name, versions) in &installed.versions {
            let stable = stable(versions).map(|(version, _)| version);
            for (version, plugin) in versions {
                let manifest = plugin.manifest();
                entries.push(CatalogEntry {
                    name: name.clone(),
                    version: version.to_string(),
                    digest: plugin.digest().to_string(),
                    kind: manifest.kind.to_string(),
                    description: manifest.description.clone(),
                    aliases: if stable == Some(version) {
                        vec![DEFAULT_ALIAS.into()]
                    } else {
                        Vec::new()
                    },
                    grants: manifest
                        .grants
                        .iter()
                        .map(|(grant, reason)| (grant.to_string(), reason.clone()))
                        .collect(),
                    size: plugin.size(),
                    no_snapshots: plugin.unsupported_snapshots().map(str::to_owned),
                });
            }
        }
        entries
    }
}

/// The highest release; the highest prerelease when there is nothing else.
fn stable(versions: &BTreeMap<Version, Arc<Plugin>>) -> Option<(&Version, &Arc<Plugin>)> {
    versions
        .iter()
        .rev()
        .find(|(version, _)| version.pre.is_empty())
        .or_else(|| versions.iter().next_back())
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, versions) in &self.versions {
            for version in versions.keys() {
                write!(f, "{}{name}@{version}", if first { "" } else { ", " })?;
                first = false;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

//! Plugins built from this tree and installed in a real engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use formwork_engine::{Engine, EngineOptions, FormInput, Grant, Plugin, Setup, SubmissionInput};
use formwork_inference::{Inference, Options};
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

/// An engine without models, one for the whole test program. What it compiles is kept beside the test program: an
/// interpreter takes seconds.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let inference = Inference::start(Options::default(), Vec::new()).expect("inference without models starts");
        let options = EngineOptions {
            cache_folder: Some(beside_the_program("test-compiled")),
            ..EngineOptions::default()
        };
        Engine::new(options, inference).expect("the engine starts")
    })
}

/// Builds the first-party plugin `name` and answers its component.
pub fn build(name: &str) -> Vec<u8> {
    build_folder(&format!("plugins/{name}"))
}

/// Builds the plugin in a folder of this tree and answers its component.
pub fn build_folder(folder: &str) -> Vec<u8> {
    // Cargo's lock would serialise it anyway, with messages in between.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let built = formwork_builder::build(&tree().join(folder), &beside_the_program("test-plugins"));
    let built = built.unwrap_or_else(|error| panic!("building {folder}: {error}"));
    std::fs::read(&built.file).expect("the built component can be read")
}

/// The tree that this test stands in. Read when the test runs: a target folder shared by several clones may hold a
/// program compiled in another one.
fn tree() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&here).join("..")
}

/// A folder beside the test program: in the target folder, wherever that is.
fn beside_the_program(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("the test program has a path");
    program.with_file_name(name)
}

/// Builds and installs the first-party plugin `name` with every grant, once for the whole test program.
pub async fn install(name: &str) -> Arc<Plugin> {
    install_folder(&format!("plugins/{name}")).await
}

/// Builds and installs the plugin in a folder of this tree, once for the whole test program: compiling takes seconds.
pub async fn install_folder(folder: &str) -> Arc<Plugin> {
    static INSTALLED: AsyncMutex<BTreeMap<String, Arc<Plugin>>> = AsyncMutex::const_new(BTreeMap::new());
    let mut installed = INSTALLED.lock().await;
    if let Some(plugin) = installed.get(folder) {
        return Arc::clone(plugin);
    }
    let grants = BTreeSet::from(Grant::ALL);
    let plugin = engine().install(build_folder(folder), &grants).await;
    let plugin = plugin.unwrap_or_else(|error| panic!("installing {folder}: {error}"));
    installed.insert(folder.to_owned(), Arc::clone(&plugin));
    plugin
}

/// A form with this schema.
pub fn form(schema: &Value) -> FormInput {
    FormInput {
        id: "test".into(),
        version: 1,
        schema: schema.to_string(),
        schemas: Vec::new(),
    }
}

/// A form with this schema, and a step's settings.
pub fn setup(schema: &Value, settings: &Value) -> Setup {
    Setup::new(form(schema), settings.to_string())
}

/// A submission of this data.
pub fn submission(data: &Value) -> SubmissionInput {
    SubmissionInput {
        id: "01J9ZZZZZZZZZZZZZZZZZZZZZZ".into(),
        submitted_at: "2026-03-14T15:09:26.535Z".into(),
        data: data.to_string(),
        results: Vec::new(),
    }
}

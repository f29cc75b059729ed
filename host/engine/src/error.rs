//! What can go wrong: with the engine, with an install, with a call.

use std::path::PathBuf;
use std::sync::Arc;

use formwork_manifest::Grant;
use serde::Serialize;

use crate::{CompileOptions, LimitExceeded};

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// wasmtime refused the configuration or the address space it needs.
    #[error("starting the engine: {0}")]
    Engine(String),
    /// The compile cache cannot be used.
    #[error("compile cache in {folder}: {message}", folder = folder.display())]
    CacheFolder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A thread of the engine could not be started.
    #[error("starting a thread of the engine: {0}")]
    Thread(std::io::Error),
    /// Resetting slots by scan was asked for where it is not safe.
    #[error("slot_reset = \"scan\" is not safe here: {0}; use \"auto\" or \"decommit\"")]
    SlotReset(String),
}

/// Why a component was not installed. Nothing is kept of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The file is too large.
    #[error("the file has {got} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        got: usize,
        /// The largest size accepted, in bytes.
        limit: usize,
    },
    /// Not a component, no manifest, or a wrong one.
    #[error(transparent)]
    Manifest(#[from] formwork_manifest::Error),
    /// The bytes are not valid WebAssembly, or use what this engine does not run.
    #[error("invalid component: {0}")]
    Invalid(String),
    /// More functions than the compiler is given.
    #[error("the component has {got} functions, more than the limit of {limit}")]
    TooManyFunctions {
        /// How many it has.
        got: usize,
        /// The most accepted.
        limit: usize,
    },
    /// Compiling it took more time or memory than it may.
    #[error(
        "compiling the component needs more than {} s or {} MiB: {how} (engine.compile in the configuration)",
        limits.seconds, limits.memory_bytes >> 20
    )]
    CompileLimit {
        /// What it may use.
        limits: CompileOptions,
        /// How its compiler ended.
        how: String,
    },
    /// The engine could not run its start now. Trying again may help.
    #[error("the plugin could not be started: {0}")]
    Busy(String),
    /// The compiler's process could not be run.
    #[error("compiling the component: {0}")]
    Compiler(String),
    /// The manifest asks for a grant that the operator has not given.
    #[error(
        "plugin {plugin} asks for the grant `{grant}` (\"{reason}\"), which is not allowed: add it under \
         [plugins.grants] in the configuration, {plugin} = [\"{grant}\"]"
    )]
    NotGranted {
        /// The plugin's name.
        plugin: String,
        /// The grant.
        grant: Grant,
        /// The reason its manifest gives.
        reason: String,
    },
    /// The component imports an interface that needs a grant its manifest does not ask for.
    #[error(
        "the component imports `{import}`, which needs the grant `{grant}`: ask for it in plugin.toml under [grants]"
    )]
    UndeclaredGrant {
        /// The interface.
        import: String,
        /// The grant it needs.
        grant: Grant,
    },
    /// The component imports what no plugin gets.
    #[error("the component imports what this host gives no plugin: {}", imports.join(", "))]
    ForbiddenImports {
        /// The interfaces, all of them.
        imports: Vec<String>,
    },
    /// The component's exports are not those of its kind's world.
    #[error("the component is no {kind}: {message}")]
    WrongWorld {
        /// The kind its manifest names.
        kind: formwork_manifest::Kind,
        /// What is missing or has another type.
        message: String,
    },
    /// The component needs more than a call may have.
    #[error("the component needs {needs} before it runs: {limit}")]
    Resources {
        /// What it needs.
        needs: String,
        /// What it may have.
        limit: String,
    },
    /// A self-test vector of the manifest failed.
    #[error("self-test `{name}` failed: {message}")]
    SelfTest {
        /// The vector's name.
        name: String,
        /// What came instead.
        message: String,
    },
}

impl InstallError {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "plugin-too-large",
            Self::Manifest(_) => "plugin-manifest",
            Self::Invalid(_) => "plugin-invalid",
            Self::TooManyFunctions { .. } => "plugin-too-many-functions",
            Self::CompileLimit { .. } => "plugin-compile-limit",
            Self::Busy(_) => "plugin-busy",
            Self::Compiler(_) => "plugin-compiler",
            Self::NotGranted { .. } => "plugin-not-granted",
            Self::UndeclaredGrant { .. } => "plugin-undeclared-grant",
            Self::ForbiddenImports { .. } => "plugin-forbidden-import",
            Self::WrongWorld { .. } => "plugin-wrong-world",
            Self::Resources { .. } => "plugin-resources",
            Self::SelfTest { .. } => "plugin-self-test",
        }
    }
}

/// Why there is no snapshot. Calls take the plain path: a fresh instance, `prepare`, work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Snapshots are switched off.
    #[error("snapshots are switched off (engine.snapshots.enabled)")]
    Disabled,
    /// The plugin's state cannot be taken out of it.
    #[error("the plugin cannot be snapshotted: {0}")]
    Unsupported(Arc<str>),
    /// `prepare` did not end well.
    #[error("prepare failed: {0}")]
    Prepare(String),
    /// It is larger than all snapshots together may be.
    #[error("the snapshot has {bytes} bytes, more than engine.snapshots.memory_bytes = {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many are waiting to be made; the next call asks again.
    #[error("too many snapshots are waiting to be made")]
    Busy,
    /// The engine is going down.
    #[error("the engine is stopping")]
    Stopped,
}

/// Something wrong with what a plugin was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// JSON Pointer into the settings, the form's schema or the data, as the error's case says.
    pub pointer: String,
    /// A stable code.
    pub code: String,
    /// What is wrong and how to fix it.
    pub message: String,
}

/// An error that a plugin answered: a case of the contract's variant `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginError {
    /// The case: `invalid-settings`, `invalid-form`, `invalid-input`, `unavailable` or `internal`.
    pub case: &'static str,
    /// The message of the last two.
    pub message: String,
    /// The problems of the first three.
    pub problems: Vec<Problem>,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin answered an error.
    #[error("{}", describe(.0))]
    Plugin(PluginError),
    /// A limit ended the call.
    #[error(transparent)]
    Limit(LimitExceeded),
    /// The guest trapped.
    #[error("the plugin crashed: {0}")]
    Trap(String),
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The caller's deadline passed.
    #[error("deadline exceeded")]
    DeadlineExceeded,
    /// The plugin's answer breaks the contract, for example a span outside its text.
    #[error("the plugin's answer is wrong: {0}")]
    BadAnswer(String),
    /// There is an answer, and it is less sure than the caller accepts; says how much.
    #[error("{0}")]
    LowConfidence(String),
    /// The host could not run the call: no free slot, or a fault of its own. Trying again may help.
    #[error("the host could not run the plugin: {0}")]
    Host(String),
}

impl CallError {
    /// Every code a call can fail with; the first five are a plugin's own.
    pub const CODES: &[&str] = &[
        "invalid-settings",
        "invalid-form",
        "invalid-input",
        "unavailable",
        "internal",
        "limit-cpu",
        "limit-wall",
        "limit-memory",
        "limit-output",
        "limit-host-calls",
        "limit-host-call-bytes",
        "limit-handles",
        "limit-stack",
        "trap",
        "deadline-exceeded",
        "bad-answer",
        "low-confidence",
        "host",
    ];

    /// A stable code for programs; one of [`Self::CODES`], or `cancelled`, which is no failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plugin(error) => error.case,
            Self::Limit(exceeded) => match exceeded.limit {
                crate::Limit::CpuMs => "limit-cpu",
                crate::Limit::WallMs => "limit-wall",
                crate::Limit::MemoryBytes => "limit-memory",
                crate::Limit::OutputBytes => "limit-output",
                crate::Limit::HostCalls => "limit-host-calls",
                crate::Limit::HostCallBytes => "limit-host-call-bytes",
                crate::Limit::Handles => "limit-handles",
                crate::Limit::Stack => "limit-stack",
            },
            Self::Trap(_) => "trap",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::BadAnswer(_) => "bad-answer",
            Self::LowConfidence(_) => "low-confidence",
            Self::Host(_) => "host",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Plugin(error) => error.case == "unavailable",
            Self::DeadlineExceeded | Self::Host(_) => true,
            Self::Limit(exceeded) => exceeded.limit == crate::Limit::WallMs,
            Self::Trap(_) | Self::Cancelled | Self::BadAnswer(_) | Self::LowConfidence(_) => false,
        }
    }
}

fn describe(error: &PluginError) -> String {
    let mut text = error.case.to_owned();
    if !error.message.is_empty() {
        text.push_str(": ");
        text.push_str(&error.message);
    }
    for problem in &error.problems {
        text.push_str(&format!("; at `{}`: {}", problem.pointer, problem.message));
    }
    text
}

//! From a component to machine code: in a process that can be killed, kept on disk.
//!
//! **Problem.** Compiling is the one thing a hostile file can make take for ever or eat all memory; wasmtime does not
//! count that as its fault. **Promise.** A compiler that needs more time or memory than [`CompileOptions`] allows dies
//! alone, and the install is refused with the limit's name; machine code is only ever read from this host's own folder.
//! **Cost.** A process start, some milliseconds, for a plugin version that was never compiled here. **Rejected.**
//! Compiling on a thread: a thread cannot be killed.
//!
//! The library compiles in its own process when no [`CompilerCommand`] is given, as tests of other rooms do: bounded by
//! the file's size and number of functions only.

mod cache;
mod child;

use std::path::PathBuf;

use wasmtime::component::Component;

pub use child::compile_in_this_process;

use crate::{CompileOptions, EngineOptions, Error, InstallError};
use cache::Cache;

/// A program that compiles one component: it is given [`CompileOptions`] as JSON in its last argument and the component on
/// standard input, and answers the machine code on standard output by calling [`compile_in_this_process`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerCommand {
    /// The program.
    pub program: PathBuf,
    /// What stands before the limits.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
}

/// Compiles components for one engine.
pub(crate) struct Compiler {
    engine: wasmtime::Engine,
    command: Option<CompilerCommand>,
    limits: CompileOptions,
    cache: Option<Cache>,
}

impl Compiler {
    pub(crate) fn new(engine: &wasmtime::Engine, options: &EngineOptions) -> Result<Self, Error> {
        let cache = match &options.cache_folder {
            Some(folder) => Some(
                Cache::open(&folder.join("code"), engine).map_err(|error| Error::CacheFolder {
                    folder: folder.clone(),
                    message: error.to_string(),
                })?,
            ),
            None => None,
        };
        Ok(Self {
            engine: engine.clone(),
            command: options.compiler.clone(),
            limits: options.compile.clone(),
            cache,
        })
    }

    /// The compiled component.
    pub(crate) fn compile(&self, component: &[u8]) -> Result<Component, InstallError> {
        if let Some(found) = self
            .cache
            .as_ref()
            .and_then(|cache| cache.load(&self.engine, component))
        {
            return Ok(found);
        }
        let code = match &self.command {
            Some(command) => child::compile(command, &self.limits, component)?,
            None => self.precompile(component)?,
        };
        if let Some(cache) = &self.cache
            && let Some(stored) = cache.store(&self.engine, component, &code)
        {
            return Ok(stored);
        }
        cache::load_code(&self.engine, &code).map_err(|error| InstallError::Invalid(format!("{error:#}")))
    }

    /// A panic of the compiler is a refused plugin, not a dead host.
    fn precompile(&self, component: &[u8]) -> Result<Vec<u8>, InstallError> {
        let compile = std::panic::AssertUnwindSafe(|| self.engine.precompile_component(component));
        match std::panic::catch_unwind(compile) {
            Ok(Ok(code)) => Ok(code),
            Ok(Err(error)) => Err(InstallError::Invalid(format!("{error:#}"))),
            Err(_) => Err(InstallError::Invalid("the compiler failed on it".into())),
        }
    }
}

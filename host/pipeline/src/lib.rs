//! A form's definition, the plugin catalog, and how one step of a pipeline runs.
//!
//! **Problem.** The server, a worker, `formwork run` and the demo all run the steps of a form; four ways to resolve a
//! plugin and hand it its settings would disagree. **Promise.** They run them here, so that a pipeline behaves the same
//! over HTTP, from the queue and over a file. **Cost.** A room the first design did not have, between `engine` (which
//! knows no form) and `scheduler` (which knows no plugin). **Rejected.** Making it part of the scheduler, since
//! `formwork run` needs no scheduler and no store.

mod catalog;
mod definition;
mod error;
mod fallback;
mod pipeline;
mod step_rules;

pub use catalog::{Catalog, CatalogEntry, CatalogError, GrantPolicy, PluginReference, RefusedPlugin, UnknownPlugin};
pub use definition::{FormDefinition, StepDefinition};
pub use error::{DefinitionError, Problem};
pub use fallback::{Alternative, Fallback, Reason, Refused};
pub use pipeline::{Pipeline, PluginIdentity, RunReport, StepReport, StepRun};

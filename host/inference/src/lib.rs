//! Native inference: llama.cpp and ONNX Runtime behind one handle and one limit.
//!
//! **Problem.** Plugins need embeddings, generated text and tensors; the native libraries that give
//! them abort on bad input, take every core and know neither deadlines nor fairness.
//!
//! **Promise.** Every model is a file with a verified sha256. Calls are bounded in size, queue in
//! order, stop at their deadline or cancellation, and answer with typed errors and the [`ModelId`]
//! that did the work. All native work together stays within [`Options::threads`].
//!
//! A model is loaded by the first call that needs it and stays until others need its memory: [`Options::memory_bytes`]
//! bounds them all.
//!
//! **Cost.** One thread and one queue per loaded model, one thread that loads and frees.
//!
//! **Rejected.** A server process per library (a copy and a context switch per call, a second thing to
//! supervise); calling the libraries from the caller's thread (no order, no bound).
//!
//! This crate knows neither WebAssembly nor HTTP.

mod call;
mod cpu_budget;
mod error;
mod file_check;
mod inspect;
pub mod limits;
mod llama;
mod loader;
mod memory;
mod metrics;
mod model;
mod native_log;
mod onnx;
mod options;
mod permits;
mod residency;
mod service;
mod tensor;
mod worker;

pub use call::{CallContext, Priority};
pub use cpu_budget::CpuBudget;
pub use error::Error;
pub use inspect::{Header, ModelFile, inspect};
pub use llama::completion::{Chunk, Completion, FinishReason, GenerationRequest, Summary};
pub use llama::quantise::{Quantisation, quantise};
pub use model::{FileSpec, Load, MemoryStatus, ModelId, ModelSpec, ModelState, ModelStatus, ModelTask};
pub use options::Options;
pub use service::{Embeddings, Inference};
pub use tensor::{Tensor, TensorData};
/// Cancels calls; re-exported so that callers need not match versions.
pub use tokio_util::sync::CancellationToken;

//! Evaluation: tokens in, logits out, with a state per sequence that can be cut, saved and put back.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::threads::Threads;
use super::{Model, Token, reason};
use crate::{limits, native_log};

/// What llama.cpp answers when the abort callback ended a step.
const STOPPED: i32 = 2;

/// How a context is laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Tokens of one sequence.
    pub(crate) context_tokens: u32,
    /// Sequences, each with its own part of the memory.
    pub(crate) sequences: u32,
    /// Tokens of one step.
    pub(crate) batch_tokens: u32,
    /// Threads of one step, the caller's included.
    pub(crate) threads: u32,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    /// `stop` said so; what the sequence holds beyond its start is not to be used.
    Stopped,
}

pub(crate) struct Context<'m> {
    context: NonNull<sys::llama_context>,
    batch: sys::llama_batch,
    capacity: usize,
    shape: Shape,
    model: &'m Model,
    watch: Box<Watch>,
    /// Freed after the context, which uses them until its end.
    _threads: Threads,
}

/// What the abort callback looks at.
struct Watch {
    /// A `&&dyn Fn() -> bool` for the time of one step, else null.
    stop: Cell<*const c_void>,
    nodes: Cell<u32>,
}

impl<'m> Context<'m> {
    pub(crate) fn new(model: &'m Model, shape: Shape) -> Result<Self, String> {
        let threads = i32::try_from(shape.threads).map_err(|error| error.to_string())?;
        let capacity = i32::try_from(shape.batch_tokens).map_err(|error| error.to_string())?;
        let pool = Threads::start(threads)?;
        let watch = Box::new(Watch {
            stop: Cell::new(std::ptr::null()),
            nodes: Cell::new(0),
        });
        // SAFETY: the model lives as long as `'m`; the watch is boxed and dropped after the context.
        let context = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = shape.context_tokens.saturating_mul(shape.sequences);
            params.n_seq_max = shape.sequences;
            params.n_batch = shape.batch_tokens;
            params.n_ubatch = shape.batch_tokens;
            params.n_threads = threads;
            params.n_threads_batch = threads;
            params.no_perf = true;
            params.abort_callback = Some(on_node);
            params.abort_callback_data = std::ptr::from_ref(&*watch).cast_mut().cast();
            sys::llama_init_from_model(model.model.as_ptr(), params)
        };
        let context = NonNull::new(context).ok_or_else(|| reason("llama.cpp cannot make a context"))?;
        // SAFETY: context and pool live; the batch is freed in `drop`.
        let batch = unsafe {
            sys::llama_attach_threadpool(context.as_ptr(), pool.pool.as_ptr(), pool.pool.as_ptr());
            sys::llama_batch_init(capacity, 0, 1)
        };
        Ok(Self {
            context,
            batch,
            capacity: shape.batch_tokens as usize,
            shape,
            model,
            watch,
            _threads: pool,
        })
    }

    /// Evaluates tokens of a sequence from position `start` on. With `wanted`, [`Context::logits`] can
    /// be read afterwards. `stop` is asked many times during the step, on this thread; it must not panic.
    pub(crate) fn evaluate(
        &mut self,
        sequence: usize,
        start: usize,
        tokens: &[Token],
        wanted: bool,
        stop: &dyn Fn() -> bool,
    ) -> Result<Step, String> {
        let sequence = self.known(sequence)?;
        let end = start.saturating_add(tokens.len());
        if tokens.is_empty() || tokens.len() > self.capacity || end > self.shape.context_tokens as usize {
            return Err(format!("{} tokens from {start} on do not fit", tokens.len()));
        }
        self.batch.n_tokens = i32::try_from(tokens.len()).map_err(|error| error.to_string())?;
        for (index, token) in tokens.iter().enumerate() {
            let position = i32::try_from(start + index).map_err(|error| error.to_string())?;
            let read = wanted && index + 1 == tokens.len();
            // SAFETY: `index` is below the capacity that the batch was made with, one sequence each.
            unsafe {
                self.batch.token.add(index).write(token.0);
                self.batch.pos.add(index).write(position);
                self.batch.n_seq_id.add(index).write(1);
                (*self.batch.seq_id.add(index)).write(sequence);
                self.batch.logits.add(index).write(i8::from(read));
            }
        }
        self.watch.nodes.set(0);
        self.watch.stop.set(std::ptr::from_ref(&stop).cast());
        let decode = || {
            // SAFETY: context and batch live; the batch is filled up to `n_tokens`.
            unsafe { sys::llama_decode(self.context.as_ptr(), self.batch) }
        };
        let outcome = native_log::held(decode, |outcome| *outcome != STOPPED);
        self.watch.stop.set(std::ptr::null());
        match outcome {
            0 => Ok(Step::Done),
            STOPPED => Ok(Step::Stopped),
            1 => Err(reason("no room is left in the context")),
            code => Err(reason(&format!("llama.cpp cannot evaluate (code {code})"))),
        }
    }

    /// What the model makes of the last token of the last step, one number per token.
    pub(crate) fn logits(&mut self) -> Result<&[f32], String> {
        // SAFETY: the library answers null or as many numbers as the vocabulary has tokens; they stay
        // until the next step, which needs `&mut self`.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context.as_ptr(), -1);
            if logits.is_null() {
                return Err("the last step gave no logits".to_owned());
            }
            Ok(std::slice::from_raw_parts(logits, self.model.vocabulary()))
        }
    }

    /// Forgets what a sequence holds from position `from` on; false if the model can only forget all.
    pub(crate) fn forget(&mut self, sequence: usize, from: usize) -> bool {
        let (Ok(sequence), Ok(from)) = (self.known(sequence), i32::try_from(from)) else {
            return false;
        };
        // SAFETY: the sequence is one of the context's.
        unsafe { sys::llama_memory_seq_rm(sys::llama_get_memory(self.context.as_ptr()), sequence, from, -1) }
    }

    /// The state of a sequence as bytes, for [`Context::restore`].
    pub(crate) fn save(&mut self, sequence: usize) -> Result<Vec<u8>, String> {
        let sequence = self.known(sequence)?;
        // SAFETY: the buffer has the size that the library asks for.
        unsafe {
            let size = sys::llama_state_seq_get_size(self.context.as_ptr(), sequence);
            let mut state: Vec<u8> = Vec::new();
            state.try_reserve_exact(size).map_err(|error| error.to_string())?;
            let written = sys::llama_state_seq_get_data(self.context.as_ptr(), state.as_mut_ptr(), size, sequence);
            if written != size {
                return Err(reason("the state of a sequence cannot be saved"));
            }
            state.set_len(size);
            Ok(state)
        }
    }

    /// Gives a sequence a state that [`Context::save`] wrote. The bytes must come unchanged from a
    /// context of the same shape, model and library: the library trusts them.
    pub(crate) fn restore(&mut self, sequence: usize, state: &[u8]) -> Result<(), String> {
        let index = sequence;
        let sequence = self.known(sequence)?;
        // SAFETY: the length is the buffer's; the library reads within it and answers how far.
        let read =
            unsafe { sys::llama_state_seq_set_data(self.context.as_ptr(), state.as_ptr(), state.len(), sequence) };
        if read == state.len() {
            return Ok(());
        }
        self.forget(index, 0);
        Err(reason("the kept state of a prefix does not fit"))
    }

    fn known(&self, sequence: usize) -> Result<i32, String> {
        if sequence < self.shape.sequences as usize {
            i32::try_from(sequence).map_err(|error| error.to_string())
        } else {
            Err(format!("there is no sequence {sequence}"))
        }
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once; fields (threads, watch) are dropped after this.
        unsafe {
            sys::llama_batch_free(self.batch);
            sys::llama_free(self.context.as_ptr());
        }
    }
}

/// Called by ggml before each node of the graph, on the thread that called `evaluate`.
unsafe extern "C" fn on_node(data: *mut c_void) -> bool {
    // SAFETY: the data is the context's watch, which outlives the context.
    let watch = unsafe { &*data.cast_const().cast::<Watch>() };
    let nodes = watch.nodes.get().wrapping_add(1);
    watch.nodes.set(nodes);
    if nodes % limits::NODES_PER_LOOK != 0 || watch.stop.get().is_null() {
        return false;
    }
    // SAFETY: not null only during `evaluate`, which keeps the reference alive.
    let stop = unsafe { *watch.stop.get().cast::<&dyn Fn() -> bool>() };
    stop()
}

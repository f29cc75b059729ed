//! A compiled JSON schema and where a text stands in it.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::{Model, Token, reason};

/// A token with its logit, in the library's layout.
pub(crate) type Candidate = sys::llama_token_data;

pub(crate) struct Grammar<'m> {
    sampler: NonNull<sys::llama_sampler>,
    /// The grammar reads the model's vocabulary.
    model: PhantomData<&'m Model>,
}

impl<'m> Grammar<'m> {
    /// `schema` must have passed [`super::super::schema_guard::admit`].
    pub(crate) fn compile(model: &'m Model, schema: &str) -> Result<Self, String> {
        let schema = CString::new(schema).map_err(|error| error.to_string())?;
        let mut text: *mut c_char = std::ptr::null_mut();
        // SAFETY: the schema lives through the call; the answer is freed below.
        let status = unsafe { sys::llama_rs_json_schema_to_grammar(schema.as_ptr(), true, &raw mut text) };
        if status != sys::LLAMA_RS_STATUS_OK || text.is_null() {
            return Err(reason("the schema cannot be made a grammar"));
        }
        // SAFETY: a null-terminated string of the library's, freed once after its last use.
        let sampler = unsafe {
            let sampler = sys::llama_rs_sampler_init_grammar(
                model.vocab.as_ptr(),
                CStr::from_ptr(text).as_ptr(),
                c"root".as_ptr(),
            );
            sys::llama_rs_string_free(text);
            sampler
        };
        Ok(Self {
            sampler: NonNull::new(sampler).ok_or_else(|| reason("the grammar cannot be compiled"))?,
            model: PhantomData,
        })
    }

    /// Sets the logits of tokens that may not come next to minus infinity.
    pub(crate) fn judge(&mut self, candidates: &mut [Candidate]) {
        let mut list = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the list borrows the slice through the call; a grammar changes logits in place and
        // neither grows nor moves the list.
        unsafe { sys::llama_sampler_apply(self.sampler.as_ptr(), &raw mut list) };
    }

    /// Moves on by a token that was not refused and does not end the text.
    pub(crate) fn accept(&mut self, token: Token) -> Result<(), String> {
        // SAFETY: the sampler lives; the wrapper turns exceptions into a status.
        let status = unsafe { sys::llama_rs_sampler_accept(self.sampler.as_ptr(), token.0) };
        if status == sys::LLAMA_RS_STATUS_OK {
            Ok(())
        } else {
            Err(format!("the grammar refused its own token {}", token.0))
        }
    }

    /// The same grammar at the same place.
    pub(crate) fn copy(&self) -> Result<Self, String> {
        // SAFETY: the sampler lives; the copy is freed by its own `drop`.
        let sampler = unsafe { sys::llama_sampler_clone(self.sampler.as_ptr()) };
        Ok(Self {
            sampler: NonNull::new(sampler).ok_or("a grammar cannot be copied")?,
            model: PhantomData,
        })
    }
}

impl Drop for Grammar<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `compile` or `copy`, freed once.
        unsafe { sys::llama_sampler_free(self.sampler.as_ptr()) };
    }
}

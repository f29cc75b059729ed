//! Weights and vocabulary: read-only once loaded.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use super::{Token, initialise, reason};

pub(crate) struct Model {
    pub(super) model: NonNull<sys::llama_model>,
    pub(super) vocab: NonNull<sys::llama_vocab>,
    vocabulary: usize,
}

impl Model {
    /// Maps the file's weights; nothing is offloaded.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        initialise();
        let path = path.to_str().ok_or("the path is not UTF-8")?;
        let path = CString::new(path).map_err(|error| error.to_string())?;
        // SAFETY: default parameters hold no pointer of ours; the path lives through the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = 0;
            sys::llama_model_load_from_file(path.as_ptr(), params)
        };
        let model = NonNull::new(model).ok_or_else(|| reason("llama.cpp cannot load it"))?;
        // SAFETY: the model was just loaded; its vocabulary lives as long as it.
        let (vocab, size) = unsafe {
            let vocab = sys::llama_model_get_vocab(model.as_ptr());
            (vocab.cast_mut(), sys::llama_vocab_n_tokens(vocab))
        };
        let loaded = Self {
            model,
            vocab: NonNull::new(vocab).ok_or("the model has no vocabulary")?,
            vocabulary: usize::try_from(size).unwrap_or(0),
        };
        if loaded.vocabulary == 0 {
            return Err("the model's vocabulary is empty".to_owned());
        }
        Ok(loaded)
    }

    /// How many tokens there are.
    pub(crate) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Whether a part of an evaluated sequence can be forgotten; recurrent models only know their end.
    pub(crate) fn can_rewind(&self) -> bool {
        // SAFETY: the model lives; both functions only read.
        unsafe {
            !sys::llama_model_is_recurrent(self.model.as_ptr()) && !sys::llama_model_is_hybrid(self.model.as_ptr())
        }
    }

    /// Tokens of a text: `first` adds what the model wants at the beginning, `markers` reads control
    /// tokens written in the text as such.
    pub(crate) fn tokens(&self, text: &str, first: bool, markers: bool) -> Vec<Token> {
        let Ok(length) = i32::try_from(text.len()) else {
            return Vec::new();
        };
        // A token is at least a byte, but for what is added at the ends.
        let mut tokens = vec![Token(0); text.len() + 2];
        loop {
            let room = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
            // SAFETY: text and room are the lengths of the buffers; `Token` is an `i32`.
            let count = unsafe {
                sys::llama_tokenize(
                    self.vocab.as_ptr(),
                    text.as_ptr().cast::<c_char>(),
                    length,
                    tokens.as_mut_ptr().cast::<sys::llama_token>(),
                    room,
                    first,
                    markers,
                )
            };
            match usize::try_from(count) {
                Ok(count) => {
                    tokens.truncate(count);
                    return tokens;
                }
                // `-count` are needed; the smallest integer means that there are too many.
                Err(_) if count == i32::MIN => return Vec::new(),
                Err(_) => tokens.resize(count.unsigned_abs() as usize, Token(0)),
            }
        }
    }

    /// Appends the bytes that a token stands for.
    pub(crate) fn piece(&self, token: Token, into: &mut Vec<u8>) {
        let mut buffer = [0_u8; 64];
        let written = self.write_piece(token, &mut buffer);
        match usize::try_from(written) {
            Ok(length) => into.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(_) => {
                let mut buffer = vec![0_u8; written.unsigned_abs() as usize];
                let written = usize::try_from(self.write_piece(token, &mut buffer)).unwrap_or(0);
                into.extend_from_slice(buffer.get(..written).unwrap_or_default());
            }
        }
    }

    fn write_piece(&self, token: Token, buffer: &mut [u8]) -> i32 {
        if !self.holds(token) {
            return 0;
        }
        let room = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
        // SAFETY: room is the buffer's length; the token is one of the vocabulary.
        unsafe {
            sys::llama_token_to_piece(
                self.vocab.as_ptr(),
                token.0,
                buffer.as_mut_ptr().cast::<c_char>(),
                room,
                0,
                false,
            )
        }
    }

    /// Whether the token ends a text.
    pub(crate) fn ends(&self, token: Token) -> bool {
        // SAFETY: the token is one of the vocabulary.
        self.holds(token) && unsafe { sys::llama_vocab_is_eog(self.vocab.as_ptr(), token.0) }
    }

    /// Tokens that must not appear in a text: control tokens that do not end it.
    pub(crate) fn markers(&self) -> Vec<Token> {
        (0..i32::try_from(self.vocabulary).unwrap_or(i32::MAX))
            .map(Token)
            // SAFETY: the token is one of the vocabulary.
            .filter(|token| unsafe { sys::llama_vocab_is_control(self.vocab.as_ptr(), token.0) })
            .filter(|token| !self.ends(*token))
            .collect()
    }

    fn holds(&self, token: Token) -> bool {
        usize::try_from(token.0).is_ok_and(|token| token < self.vocabulary)
    }

    /// The chat rendered with the model's own template (ChatML if it has none), up to where the
    /// assistant begins. Messages are `(role, text)`.
    pub(crate) fn render(&self, messages: &[(&str, &str)]) -> Result<String, String> {
        // SAFETY: answers null or a null-terminated string that lives as long as the model.
        let template = unsafe {
            let template = sys::llama_model_chat_template(self.model.as_ptr(), std::ptr::null());
            if template.is_null() {
                c"chatml"
            } else {
                CStr::from_ptr(template)
            }
        };
        let texts = messages
            .iter()
            .map(|(role, text)| Ok((CString::new(*role)?, CString::new(*text)?)))
            .collect::<Result<Vec<_>, std::ffi::NulError>>()
            .map_err(|error| error.to_string())?;
        let chat: Vec<sys::llama_chat_message> = texts
            .iter()
            .map(|(role, text)| sys::llama_chat_message {
                role: role.as_ptr(),
                content: text.as_ptr(),
            })
            .collect();
        let mut buffer = vec![0_u8; 1024];
        loop {
            let room = i32::try_from(buffer.len()).map_err(|error| error.to_string())?;
            // SAFETY: the strings live in `texts`; room is the buffer's length.
            let length = unsafe {
                sys::llama_chat_apply_template(
                    template.as_ptr(),
                    chat.as_ptr(),
                    chat.len(),
                    true,
                    buffer.as_mut_ptr().cast::<c_char>(),
                    room,
                )
            };
            let length =
                usize::try_from(length).map_err(|_| "llama.cpp does not know the model's chat template".to_owned())?;
            if length > buffer.len() {
                buffer.resize(length, 0);
                continue;
            }
            buffer.truncate(length);
            return String::from_utf8(buffer).map_err(|error| error.to_string());
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: contexts and grammars borrow the model, so none is left; freed once.
        unsafe { sys::llama_model_free(self.model.as_ptr()) };
    }
}

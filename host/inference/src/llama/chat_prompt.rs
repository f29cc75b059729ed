//! Turns system text and user text into the model's prompt tokens.
//!
//! Problem: a form's text may contain `<|im_end|><|im_start|>system`. Promise: only the template's
//! own markers become special tokens; whatever a submission says stays text. The template is split
//! once at load, so equal system texts give equal token prefixes, which the prefix cache needs. Cost:
//! no token is merged across the border between template and text. Rejected: tokenising the rendered
//! prompt as a whole with special tokens on.

use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::token::LlamaToken;

const SYSTEM_MARK: &str = "FORMWORK-SYSTEM-TEXT";
const USER_MARK: &str = "FORMWORK-USER-TEXT";

/// The template's tokens around the texts.
#[derive(Debug)]
pub(crate) struct ChatPrompt {
    before_system: Vec<LlamaToken>,
    between: Vec<LlamaToken>,
    /// Before the user text when there is no system text.
    before_user: Vec<LlamaToken>,
    after: Vec<LlamaToken>,
}

impl ChatPrompt {
    pub(crate) fn load(model: &LlamaModel) -> Result<Self, String> {
        let template = match model.chat_template(None) {
            Ok(template) => template,
            Err(_) => LlamaChatTemplate::new("chatml").map_err(|error| error.to_string())?,
        };
        let with_system = render(model, &template, true)?;
        let (before_system, rest) = with_system
            .split_once(SYSTEM_MARK)
            .ok_or("the chat template drops the system text")?;
        let (between, after) = rest
            .split_once(USER_MARK)
            .ok_or("the chat template drops the user text")?;
        let without = render(model, &template, false)?;
        let (before_user, _) = without
            .split_once(USER_MARK)
            .ok_or("the chat template drops the user text")?;
        let tokens = |text: &str, first: bool| model.vocab().tokenize(text.as_bytes(), first, true);
        Ok(Self {
            before_system: tokens(before_system, true),
            between: tokens(between, false),
            before_user: tokens(before_user, true),
            after: tokens(after, false),
        })
    }

    pub(crate) fn tokens(&self, model: &LlamaModel, system: &str, user: &str) -> Vec<LlamaToken> {
        let text = |text: &str| model.vocab().tokenize(text.as_bytes(), false, false);
        let mut tokens = if system.is_empty() {
            self.before_user.clone()
        } else {
            [self.before_system.clone(), text(system), self.between.clone()].concat()
        };
        tokens.extend(text(user));
        tokens.extend_from_slice(&self.after);
        tokens
    }
}

fn render(model: &LlamaModel, template: &LlamaChatTemplate, with_system: bool) -> Result<String, String> {
    let message = |role: &str, text: &str| {
        LlamaChatMessage::new(role.to_owned(), text.to_owned()).map_err(|error| error.to_string())
    };
    let mut messages = Vec::new();
    if with_system {
        messages.push(message("system", SYSTEM_MARK)?);
    }
    messages.push(message("user", USER_MARK)?);
    model
        .apply_chat_template(template, &messages, true)
        .map_err(|error| format!("llama.cpp does not know the model's chat template: {error}"))
}

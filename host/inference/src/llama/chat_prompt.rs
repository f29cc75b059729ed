//! Turns system text and user text into the model's prompt tokens.
//!
//! Problem: a form's text may contain `<|im_end|><|im_start|>system`. Promise: only the template's
//! own markers become special tokens; whatever a submission says stays text. The template is split
//! once at load, so equal system texts give equal token prefixes, which the prefix cache needs. Cost:
//! no token is merged across the border between template and text. Rejected: tokenising the rendered
//! prompt as a whole with special tokens on.

use super::native::{Model, Token};

const SYSTEM_MARK: &str = "FORMWORK-SYSTEM-TEXT";
const USER_MARK: &str = "FORMWORK-USER-TEXT";

/// The template's tokens around the texts.
#[derive(Debug)]
pub(crate) struct ChatPrompt {
    before_system: Vec<Token>,
    between: Vec<Token>,
    /// Before the user text when there is no system text.
    before_user: Vec<Token>,
    after: Vec<Token>,
}

/// A prompt, and how much of it does not depend on the user.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<Token>,
    /// Tokens up to where the user's text begins.
    pub(crate) prefix: usize,
}

impl ChatPrompt {
    pub(crate) fn load(model: &Model) -> Result<Self, String> {
        let user = ("user", USER_MARK);
        let with_system = model.render(&[("system", SYSTEM_MARK), user])?;
        let (before_system, rest) = with_system
            .split_once(SYSTEM_MARK)
            .ok_or("the chat template drops the system text")?;
        let (between, after) = rest
            .split_once(USER_MARK)
            .ok_or("the chat template drops the user text")?;
        let without = model.render(&[user])?;
        let (before_user, _) = without
            .split_once(USER_MARK)
            .ok_or("the chat template drops the user text")?;
        Ok(Self {
            before_system: model.tokens(before_system, true, true),
            between: model.tokens(between, false, true),
            before_user: model.tokens(before_user, true, true),
            after: model.tokens(after, false, true),
        })
    }

    pub(crate) fn tokens(&self, model: &Model, system: &str, user: &str) -> Prompt {
        let mut tokens = if system.is_empty() {
            self.before_user.clone()
        } else {
            let system = model.tokens(system, false, false);
            [self.before_system.as_slice(), &system, &self.between].concat()
        };
        let prefix = tokens.len();
        tokens.extend(model.tokens(user, false, false));
        tokens.extend_from_slice(&self.after);
        Prompt { tokens, prefix }
    }
}

//! `respond`: a draft of the answer to a submission.
//!
//! **Problem.** Somebody has to write back, and most answers begin the same way. **Promise.** An instruct model drafts the
//! response that the form's instruction describes, from the texts the form names and nothing else; the draft says how sure
//! the model was and whether it came to an end; nothing is ever sent. **Cost.** One generation, seconds long on a CPU: a step
//! for the pool `batched`. **Rejected.** A kind of plugin of its own: what an extractor may answer beside fields is
//! enough, so the contract need not grow; and `fields` stays empty, because a draft stands in no text.

mod draft;
mod fixed;
mod limits;
mod settings;

use formwork_plugin::{Error, Extraction, Extractor, Form, Submission, parse_settings};
use serde_json::{Value, json};

use crate::draft::Draft;
use crate::settings::{How, Settings};

/// A prepared step.
struct Respond(Settings);

impl Extractor for Respond {
    fn prepare(_form: Form, settings: String) -> Result<Self, Error> {
        Settings::parse(&settings).map(Self)
    }

    fn extract(&self, submission: Submission) -> Result<Extraction, Error> {
        let data: Value = parse_settings(&submission.data)
            .map_err(|_| Error::input("", "json", "the submission's data is not JSON"))?;
        let draft = match &self.0.how {
            How::Fixed(text) => Draft::fixed(fixed::fill(text, &data)),
            How::Model(model) => draft::write(model, &self.0, &data, &submission.results)?,
        };
        let response = json!({ "text": draft.text, "finish": draft.finish, "tokens": draft.tokens });
        let mut details = vec![
            ("response".to_owned(), response.to_string()),
            ("confidence".to_owned(), draft::rounded(draft.confidence).to_string()),
        ];
        if draft.cut {
            details.push(("characters_read".to_owned(), json!(limits::MAX_CHARACTERS).to_string()));
        }
        Ok(Extraction {
            fields: Vec::new(),
            missing: Vec::new(),
            details,
        })
    }
}

formwork_plugin::export_extractor!(Respond);

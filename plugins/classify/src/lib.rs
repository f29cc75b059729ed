//! `classify`: which of a form's labels fit a submission's text.
//!
//! **Problem.** A form's labels are described in words, with few examples or none, and the next text is unlike all of them.
//! **Promise.** Texts are compared by meaning; a score is a calibrated probability; a text that fits no label gets none.
//! **Cost.** One embedding per sentence of the text; those of labels and examples are cached by the host. **Rejected.**
//! Training a head per form (needs hundreds of labelled texts); asking a small generator (slow, and its guesses cannot be
//! calibrated).

mod calibration;
mod limits;
mod scoring;
mod settings;
mod windows;

use formwork_plugin::{
    Classification, Classifier, Embedding, Error, Form, Label, Submission, Text, embed, parse_settings, texts_at,
};
use serde_json::{Value, json};

use crate::scoring::{Similarity, probabilities};
use crate::settings::Settings;

/// A prepared step.
struct Classify {
    settings: Settings,
    /// Everything to compare a text with: each label's description, then its examples.
    references: Vec<String>,
}

impl Classifier for Classify {
    fn prepare(_form: Form, settings: String) -> Result<Self, Error> {
        let settings = Settings::parse(&settings)?;
        let mut references = Vec::new();
        for label in &settings.labels {
            references.push(label.description.trim().to_owned());
            references.extend(label.examples.iter().map(|example| example.trim().to_owned()));
        }
        Ok(Self { settings, references })
    }

    fn classify(&self, submission: Submission) -> Result<Classification, Error> {
        let data: Value = parse_settings(&submission.data)
            .map_err(|_| Error::input("", "json", "the submission's data is not JSON"))?;
        let (texts, cut) = within_limit(texts_at(&data, &self.settings.fields));
        let windows = windows::windows(&texts);
        if windows.is_empty() {
            return Ok(self.answer(&vec![0.0; self.settings.labels.len()], &[("reason", json!("no text"))]));
        }
        let references = embed(&self.settings.model, &self.references)?;
        let vectors = embed(&self.settings.model, &windows)?;
        let similarities: Vec<Vec<Similarity>> =
            vectors.iter().map(|vector| self.compare(vector, &references)).collect();
        let scores = probabilities(&similarities, self.settings.multiple);
        let mut details = Vec::new();
        if scores.iter().all(|score| *score < self.settings.threshold) {
            details.push(("reason", json!("no label reaches the threshold")));
        }
        if cut {
            details.push(("characters_read", json!(limits::MAX_CHARACTERS)));
        }
        Ok(self.answer(&scores, &details))
    }
}

impl Classify {
    fn compare(&self, vector: &Embedding, references: &[Embedding]) -> Vec<Similarity> {
        let mut rest = references.iter().map(|reference| vector.similarity(reference));
        let labels = self.settings.labels.iter().map(|label| Similarity {
            description: rest.next().unwrap_or(0.0),
            examples: rest.by_ref().take(label.examples.len()).collect(),
        });
        labels.collect()
    }

    /// Sorts, and keeps what reaches the threshold.
    fn answer(&self, scores: &[f32], details: &[(&str, Value)]) -> Classification {
        let mut scores: Vec<Label> = self
            .settings
            .labels
            .iter()
            .zip(scores)
            .map(|(label, score)| Label {
                name: label.name.trim().to_owned(),
                score: *score,
            })
            .collect();
        scores.sort_by(|a, b| b.score.total_cmp(&a.score));
        let wanted = if self.settings.multiple { scores.len() } else { 1 };
        let labels = scores
            .iter()
            .take(wanted)
            .filter(|label| label.score >= self.settings.threshold)
            .cloned()
            .collect();
        let threshold = ("threshold".to_owned(), shortest(self.settings.threshold));
        let details = details
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_string()));
        Classification {
            labels,
            scores,
            details: [threshold].into_iter().chain(details).collect(),
        }
    }
}

/// `0.6`, where the nearest double would print `0.6000000238418579`.
fn shortest(number: f32) -> String {
    format!("{number:?}")
}

/// The texts' contents, and whether something had to be left out.
fn within_limit(texts: Vec<Text>) -> (Vec<String>, bool) {
    let mut left = limits::MAX_CHARACTERS;
    let mut cut = false;
    let mut contents = Vec::new();
    for text in texts {
        let length = text.content.chars().count();
        cut |= length > left;
        if left > 0 {
            contents.push(text.content.chars().take(left).collect());
        }
        left = left.saturating_sub(length);
    }
    (contents, cut)
}

formwork_plugin::export_classifier!(Classify);

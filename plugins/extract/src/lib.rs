//! `extract`: the values a form describes, found in a submission's texts.
//!
//! **Problem.** People write order numbers, dates and names into a message, in every spelling. **Promise.** A value is answered
//! with the words it stands in, their place and a confidence; it passed its check (calendar, check digits, number length), and
//! a value that is not in the text is no extraction. **Cost.** Rules take about a millisecond; what only the model can find takes
//! one generation. **Rejected.** The model alone: it miscounts digits and invents what is missing.

mod ask;
mod cues;
mod free_text;
mod limits;
mod phrases;
mod rules;
mod select;
mod settings;
mod source;

use std::ops::Range;

use formwork_plugin::{Error, Extraction, Extractor, Field, Form, Submission, parse_settings, texts_at};
use serde_json::{Value, json};

use crate::cues::Cues;
use crate::phrases::Shape;
use crate::rules::{Kind, Read, Rules};
use crate::select::{Chosen, Wanted};
use crate::settings::{Entity, How, Settings};
use crate::source::Source;

/// A prepared step.
struct Extract {
    settings: Settings,
    rules: Rules,
    /// By entity.
    cues: Vec<Cues>,
    /// The instruction to the model; empty when no entity needs it.
    system: String,
}

impl Extractor for Extract {
    fn prepare(_form: Form, settings: String) -> Result<Self, Error> {
        let settings = Settings::parse(&settings)?;
        let rules = Rules::new(&settings)?;
        let cues = settings.entities.iter().map(cues_of).collect();
        let system = ask::system(
            settings
                .entities
                .iter()
                .filter(|entity| needs_model(entity))
                .take(limits::MAX_MODEL_ENTITIES),
        );
        Ok(Self {
            settings,
            rules,
            cues,
            system,
        })
    }

    fn extract(&self, submission: Submission) -> Result<Extraction, Error> {
        let data: Value = parse_settings(&submission.data)
            .map_err(|_| Error::input("", "json", "the submission's data is not JSON"))?;
        let (sources, cut) = self.sources(&data);
        let read: Vec<Read> = sources.iter().map(|source| self.rules.read(&source.text)).collect();
        let chosen = self.by_rules(&sources, &read);
        let by_model = self.by_model(&sources, &read, &chosen)?;
        Ok(self.answer(&sources, chosen, by_model, cut))
    }
}

fn needs_model(entity: &Entity) -> bool {
    matches!(entity.how, How::Free) && Shape::of(entity) != Shape::Code
}

fn cues_of(entity: &Entity) -> Cues {
    let cues = Cues::new(&entity.name, &entity.description);
    if matches!(entity.how, How::Free) && Shape::of(entity) == Shape::Code {
        cues.with(&cues::NUMBER_CUES)
    } else {
        cues
    }
}

impl Extract {
    /// The texts, at most as long as is read, and whether something was left out.
    fn sources(&self, data: &Value) -> (Vec<Source>, bool) {
        let mut left = limits::MAX_CHARACTERS;
        let mut cut = false;
        let mut sources: Vec<Source> = Vec::new();
        for text in texts_at(data, &self.settings.fields) {
            if sources.iter().any(|source| source.pointer == text.pointer) {
                continue;
            }
            let length = text.content.chars().count();
            cut |= length > left;
            if left > 0 {
                sources.push(Source {
                    pointer: text.pointer,
                    text: text.content.chars().take(left).collect(),
                });
            }
            left = left.saturating_sub(length);
        }
        (sources, cut)
    }

    /// What rules found, by entity.
    fn by_rules(&self, sources: &[Source], read: &[Read]) -> Vec<Vec<Chosen>> {
        let claimed: Vec<Vec<Range<usize>>> = sources.iter().map(|source| self.claimed(&source.text)).collect();
        let wanted: Vec<Wanted<'_>> = self
            .settings
            .entities
            .iter()
            .zip(&self.cues)
            .enumerate()
            .map(|(index, (entity, cues))| {
                let code = matches!(entity.how, How::Free) && !needs_model(entity);
                let candidates = sources.iter().zip(read).enumerate().flat_map(|(at, (source, read))| {
                    let found = if code {
                        free_text::codes(entity, cues, &source.text, read, &claimed[at])
                    } else {
                        rules::candidates(entity, &source.text, read)
                    };
                    found.into_iter().map(move |found| (at, found))
                });
                Wanted {
                    cues,
                    group: self.group(index, entity, code),
                    multiple: entity.multiple,
                    needs_cue: code || matches!(entity.kind, Kind::Number | Kind::Integer),
                    candidates: candidates.collect(),
                }
            })
            .collect();
        select::choose(sources, &wanted)
    }

    /// What the form's own patterns and lists match: no other free text is read out of it.
    fn claimed(&self, text: &str) -> Vec<Range<usize>> {
        let own = self
            .settings
            .entities
            .iter()
            .filter(|entity| matches!(entity.how, How::Pattern(_) | How::Options(_)));
        own.flat_map(|entity| rules::candidates(entity, text, &Read::default()))
            .map(|found| found.range)
            .collect()
    }

    /// Entities that compete for the same places: those of one type, and all free codes. Patterns and lists are the form's
    /// own words and compete with nothing.
    fn group(&self, index: usize, entity: &Entity, code: bool) -> usize {
        let alone = self.settings.entities.len() + index;
        if code {
            return Kind::String as usize;
        }
        match entity.how {
            How::Rule => entity.kind as usize,
            _ => alone + 64,
        }
    }

    /// What the model found, by entity.
    fn by_model(
        &self,
        sources: &[Source],
        read: &[Read],
        chosen: &[Vec<Chosen>],
    ) -> Result<Vec<Option<free_text::Answer>>, Error> {
        let entities: Vec<(usize, &Entity)> = self
            .settings
            .entities
            .iter()
            .enumerate()
            .filter(|(_, entity)| needs_model(entity))
            .take(limits::MAX_MODEL_ENTITIES)
            .collect();
        let mut answers: Vec<Option<free_text::Answer>> = Vec::new();
        answers.resize_with(self.settings.entities.len(), || None);
        let Some(model) = self.settings.model.as_ref().filter(|_| !entities.is_empty()) else {
            return Ok(answers);
        };
        for (index, answer) in free_text::ask_model(model, &self.system, &entities, sources, read, chosen)? {
            answers[index] = Some(answer);
        }
        Ok(answers)
    }

    fn answer(
        &self,
        sources: &[Source],
        chosen: Vec<Vec<Chosen>>,
        by_model: Vec<Option<free_text::Answer>>,
        cut: bool,
    ) -> Extraction {
        let mut fields = Vec::new();
        let mut missing = Vec::new();
        for ((entity, chosen), model) in self.settings.entities.iter().zip(chosen).zip(by_model) {
            let before = fields.len();
            for one in chosen
                .into_iter()
                .filter(|one| one.confidence >= self.settings.min_confidence)
            {
                let spans: Vec<_> = one.places.iter().map(|(at, range)| sources[*at].span(range)).collect();
                let Some((at, range)) = one.places.first() else {
                    continue;
                };
                fields.push(Field {
                    name: entity.name.clone(),
                    value: one.found.value.to_string(),
                    content: sources[*at].text[range.clone()].to_owned(),
                    confidence: one.confidence,
                    spans,
                    method: one.found.method.to_owned(),
                    details: Vec::new(),
                });
            }
            if let Some(model) = model.filter(|model| model.confidence >= self.settings.min_confidence) {
                fields.push(model.into_field(&entity.name, sources));
            }
            if fields.len() == before {
                missing.push(entity.name.clone());
            }
        }
        let mut details = Vec::new();
        if cut {
            details.push(("characters_read".to_owned(), json!(limits::MAX_CHARACTERS).to_string()));
        }
        let unasked = self
            .settings
            .entities
            .iter()
            .filter(|entity| needs_model(entity))
            .count();
        if unasked > limits::MAX_MODEL_ENTITIES {
            details.push((
                "entities_asked".to_owned(),
                json!(limits::MAX_MODEL_ENTITIES).to_string(),
            ));
        }
        Extraction {
            fields,
            missing,
            details,
        }
    }
}

formwork_plugin::export_extractor!(Extract);

//! Free texts: numbers by their surroundings, the rest by the model.

use std::ops::Range;

use formwork_plugin::host::generation::Request;
use formwork_plugin::{Error, Field, generate};
use serde_json::{Value, json};

use crate::ask;
use crate::cues::Cues;
use crate::limits;
use crate::phrases::{Phrase, Shape, phrases};
use crate::rules::{Found, Read};
use crate::select::Chosen;
use crate::settings::Entity;
use crate::source::{Source, overlap};

/// The least words that are worth reading as a list of choices.
const CUE_SAID: f32 = 0.35;

/// Words with digits that may be this entity: by the shape of its examples and by the words round them.
pub(crate) fn codes(entity: &Entity, cues: &Cues, text: &str, read: &Read, claimed: &[Range<usize>]) -> Vec<Found> {
    let examples: Vec<String> = entity.examples.iter().map(|example| outline(example)).collect();
    let mut taken = taken_for_codes(read);
    taken.extend_from_slice(claimed);
    let found = phrases(Shape::Code, text, &taken);
    found
        .into_iter()
        .map(|phrase| {
            let content = &text[phrase.range.clone()];
            let alike = examples.contains(&outline(content));
            let said = cues.strength(text, &phrase.range) >= CUE_SAID;
            let confidence = match (alike, said) {
                (true, true) => 0.9,
                (true, false) => 0.75,
                // The entity's examples look different.
                (false, _) if !examples.is_empty() => 0.35,
                (false, true) => 0.75,
                (false, false) => 0.4,
            };
            Found {
                range: phrase.range,
                value: Value::from(content),
                confidence,
                method: "rule:code",
            }
        })
        .collect()
}

/// An order number may look like a telephone number to a rule that has seen no cue for one.
fn taken_for_codes(read: &Read) -> Vec<Range<usize>> {
    let weak = read
        .of(crate::rules::Kind::Phone)
        .iter()
        .filter(|found| found.confidence < 0.8);
    let weak: Vec<Range<usize>> = weak.map(|found| found.range.clone()).collect();
    read.taken().into_iter().filter(|range| !weak.contains(range)).collect()
}

/// `A-1042` and `B-77` are alike: letters, hyphen, digits.
fn outline(text: &str) -> String {
    let mut outline = String::new();
    for c in text.trim().chars() {
        let class = match c {
            c if c.is_ascii_digit() => '9',
            c if c.is_alphabetic() => 'A',
            c => c,
        };
        if !outline.ends_with(class) {
            outline.push(class);
        }
    }
    outline
}

/// What the model chose for an entity.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) confidence: f32,
    content: String,
    places: Vec<(usize, Range<usize>)>,
    probability: f32,
}

impl Answer {
    /// As the contract wants it.
    pub(crate) fn into_field(self, name: &str, sources: &[Source]) -> Field {
        Field {
            name: name.to_owned(),
            value: Value::from(self.content.as_str()).to_string(),
            spans: self.places.iter().map(|(at, range)| sources[*at].span(range)).collect(),
            content: self.content,
            confidence: self.confidence,
            method: "model".to_owned(),
            details: vec![("probability".to_owned(), json!(f64::from(self.probability)).to_string())],
        }
    }
}

/// One generation for all entities; a place is given to the entity whose choice is surest.
pub(crate) fn ask_model(
    model: &str,
    system: &str,
    entities: &[(usize, &Entity)],
    sources: &[Source],
    read: &[Read],
    chosen: &[Vec<Chosen>],
) -> Result<Vec<(usize, Answer)>, Error> {
    let (prompt, lengths) = prompt(sources);
    let offers: Vec<(usize, &Entity, Vec<Offer>)> = entities
        .iter()
        .map(|(index, entity)| {
            (
                *index,
                *entity,
                offers(Shape::of(entity), sources, read, chosen, &lengths),
            )
        })
        .filter(|(_, _, offers)| !offers.is_empty())
        .collect();
    if offers.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<(&Entity, Vec<&str>)> = offers
        .iter()
        .map(|(_, entity, offers)| (*entity, offers.iter().map(|offer| offer.content.as_str()).collect()))
        .collect();
    let request = Request {
        system: system.to_owned(),
        prompt,
        max_tokens: ask::tokens(wanted.len()),
        temperature: 0.0,
        seed: 0,
        stop: Vec::new(),
        json_schema: Some(ask::schema(&wanted)),
    };
    let generated = generate(model, &request)?;
    let mut answers: Vec<(usize, Answer)> = Vec::new();
    for (index, entity, offers) in offers {
        let Some((value, range)) = ask::value_in(&generated.text, &entity.name) else {
            continue;
        };
        // Not among what was offered: not in the text.
        let Some(offer) = offers.into_iter().find(|offer| offer.content == value) else {
            continue;
        };
        let probability = generated.probability(range.start, range.end);
        let confidence = (ask::confidence(probability) + offer.bonus).clamp(0.0, 0.95);
        answers.push((
            index,
            Answer {
                confidence,
                content: offer.content,
                places: offer.places,
                probability,
            },
        ));
    }
    answers.sort_by(|(_, a), (_, b)| b.confidence.total_cmp(&a.confidence));
    let mut kept: Vec<(usize, Answer)> = Vec::new();
    for (index, answer) in answers {
        let used = kept.iter().any(|(_, other)| {
            let mut pairs = other
                .places
                .iter()
                .flat_map(|a| answer.places.iter().map(move |b| (a, b)));
            pairs.any(|(a, b)| a.0 == b.0 && overlap(&a.1, &b.1))
        });
        if !used {
            kept.push((index, answer));
        }
    }
    Ok(kept)
}

/// A phrase to choose, and where it stands.
#[derive(Debug)]
struct Offer {
    content: String,
    places: Vec<(usize, Range<usize>)>,
    bonus: f32,
}

/// The text for the model, and how many bytes of each source it holds.
fn prompt(sources: &[Source]) -> (String, Vec<usize>) {
    let mut left = limits::MAX_MODEL_CHARACTERS;
    let mut parts = Vec::new();
    let mut lengths = Vec::new();
    for source in sources {
        let part: String = source.text.chars().take(left).collect();
        left -= part.chars().count();
        lengths.push(part.len());
        if !part.is_empty() {
            parts.push(part);
        }
    }
    (format!("Text: {}", parts.join("\n")), lengths)
}

fn offers(shape: Shape, sources: &[Source], read: &[Read], chosen: &[Vec<Chosen>], lengths: &[usize]) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut bytes = 0;
    for (at, source) in sources.iter().enumerate() {
        let mut taken = read[at].taken();
        // What became a field by rule is known already.
        let by_rule = chosen
            .iter()
            .flatten()
            .flat_map(|one| &one.places)
            .filter(|(other, _)| *other == at);
        taken.extend(by_rule.map(|(_, range)| range.clone()));
        for Phrase { range, bonus } in phrases(shape, &source.text[..lengths[at]], &taken) {
            let content = &source.text[range.clone()];
            if let Some(known) = offers.iter_mut().find(|offer| offer.content == content) {
                known.places.push((at, range));
                known.bonus = known.bonus.max(bonus);
            } else if offers.len() < limits::MAX_PHRASES && bytes + content.len() < limits::MAX_PHRASE_BYTES {
                bytes += content.len() + 3;
                offers.push(Offer {
                    content: content.to_owned(),
                    places: vec![(at, range)],
                    bonus,
                });
            }
        }
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_ignore_lengths() {
        assert_eq!(outline("A-1042"), outline("BX-77"));
        assert_ne!(outline("A-1042"), outline("1042"));
    }

    #[test]
    fn the_prompt_is_bounded_and_whole_in_characters() {
        let source = |text: String| Source {
            pointer: "/m".into(),
            text,
        };
        let (text, lengths) = prompt(&[source("ü".repeat(2_000)), source("é".repeat(2_000)), source("x".into())]);
        assert_eq!(lengths, [4_000, 2_000, 0]);
        assert_eq!(text.chars().count(), "Text: ".len() + 3_000 + 1);
    }
}

//! Asks the instruct model for the texts that no rule can find.
//!
//! **Problem.** The model is small: it invents, and it never says that something is missing. **Promise.** It chooses among
//! phrases of the text (an `enum` in the JSON Schema of its answer), and the probability it gives to its choice decides
//! whether the choice is believed. **Cost.** One generation of about ten tokens a value. **Rejected.** Letting it say `null`: with
//! `null` allowed it copied the same values and said `null` for none of the missing ones, or for everything once the
//! example in the prompt showed it.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::limits;
use crate::settings::Entity;

/// Shows the model what is wanted; its values are in no submission's phrases unless the text holds them.
const EXAMPLE: &str = r#"

Example:
Text: Good morning, I am Anna Berg from Zurich. The toaster I bought at Acme does not work.
{"customer": "Anna Berg", "employee": null, "city": "Zurich", "product": "toaster", "shop": "Acme", "colour": null}"#;

/// Probability of the model's choice and how often such a choice is right, interpolated between. Measured on 36 sentences
/// with 109 wanted values, 57 of them there: from 0.35 on 27 of 28 choices were right, from 0.1 to 0.35 10 of 12, below 8 of 21.
/// The steps are lower than that, because a form may want what its texts seldom say.
const SCALE: [(f32, f32); 7] = [
    (0.0, 0.03),
    (0.03, 0.25),
    (0.1, 0.45),
    (0.2, 0.6),
    (0.35, 0.75),
    (0.6, 0.88),
    (1.0, 0.95),
];

/// The instruction: the same for every submission of a form, so that the host keeps what the model made of it.
pub(crate) fn system<'a>(entities: impl Iterator<Item = &'a Entity>) -> String {
    let mut text =
        "Copy the wanted values from the text. Write null for a value that the text does not say.\nWanted:".to_owned();
    for entity in entities {
        let meaning = if entity.description.is_empty() {
            format!("the {}", entity.name.replace(['_', '-', '.'], " "))
        } else {
            entity.description.clone()
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n- {}: {meaning}", key(&entity.name));
        let examples: Vec<&str> = entity.examples.iter().take(2).map(String::as_str).collect();
        if !examples.is_empty() {
            let _ = write!(text, " (such as {})", examples.join(", "));
        }
    }
    text + EXAMPLE
}

/// The JSON Schema of the answer: each entity's value is one of its phrases.
pub(crate) fn schema(wanted: &[(&Entity, Vec<&str>)]) -> String {
    let properties: Map<String, Value> = wanted
        .iter()
        .map(|(entity, phrases)| (key(&entity.name), json!({ "enum": phrases })))
        .collect();
    let required: Vec<String> = wanted.iter().map(|(entity, _)| key(&entity.name)).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
        .to_string()
}

/// `root` is the one name that a schema's property must not have.
fn key(name: &str) -> String {
    if name == "root" {
        "root value".to_owned()
    } else {
        name.to_owned()
    }
}

/// Most tokens the answer can need.
pub(crate) fn tokens(entities: usize) -> u32 {
    u32::try_from(entities)
        .unwrap_or(u32::MAX)
        .saturating_mul(limits::VALUE_TOKENS)
        .saturating_add(16)
}

/// The value of an entity in the model's answer and where it stands there, without its quotes; also of an answer that was cut.
pub(crate) fn value_in(answer: &str, name: &str) -> Option<(String, std::ops::Range<usize>)> {
    let quoted = Value::from(key(name)).to_string();
    let mut from = 0;
    while let Some(offset) = answer[from..].find(&quoted) {
        let at = from + offset + quoted.len();
        let rest = answer[at..].trim_start();
        if let Some(value) = rest.strip_prefix(':') {
            let value = value.trim_start();
            let start = answer.len() - value.len();
            let mut stream = serde_json::Deserializer::from_str(value).into_iter::<String>();
            let parsed = stream.next()?.ok()?;
            let end = start + stream.byte_offset();
            // Without the quotes: whether a comma or the end comes next says nothing about the value.
            return Some((parsed, start + 1..end - 1));
        }
        from = at;
    }
    None
}

/// How far to believe a choice that the model gave this probability.
pub(crate) fn confidence(probability: f32) -> f32 {
    let above = SCALE
        .iter()
        .position(|(p, _)| *p >= probability)
        .unwrap_or(SCALE.len() - 1)
        .max(1);
    let ((p0, c0), (p1, c1)) = (SCALE[above - 1], SCALE[above]);
    (c0 + (c1 - c0) * ((probability - p0) / (p1 - p0)).clamp(0.0, 1.0)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_whole_and_cut_answers() {
        let answer = r#"{"city": "São \"P\"", "person":"city", "shop": "Ac"#;
        assert_eq!(value_in(answer, "city").unwrap().0, "São \"P\"");
        let (value, range) = value_in(answer, "person").unwrap();
        assert_eq!((value.as_str(), &answer[range]), ("city", "city"));
        assert_eq!(value_in(answer, "shop"), None);
        assert_eq!(value_in(answer, "colour"), None);
    }

    #[test]
    fn confidence_rises_with_probability() {
        let steps: Vec<f32> = (0..=20).map(|step| confidence(step as f32 / 20.0)).collect();
        assert!(steps.windows(2).all(|pair| pair[0] <= pair[1]), "{steps:?}");
        assert!(confidence(0.1) < 0.5 && confidence(0.5) > 0.7 && confidence(1.0) > 0.9);
    }
}

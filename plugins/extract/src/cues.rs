//! Words near a value that say what it is: "happened on" before an `incident_date`, "born" before a `birth_date`.
//!
//! They choose among several candidates and lift weak ones; they never make a value of something that is none.

use std::ops::Range;

use crate::limits::CUE_REACH;

/// Words that say nothing about which value is meant.
const EMPTY: [&str; 44] = [
    "the",
    "a",
    "an",
    "of",
    "for",
    "and",
    "or",
    "to",
    "in",
    "on",
    "at",
    "by",
    "is",
    "was",
    "are",
    "that",
    "this",
    "which",
    "who",
    "when",
    "where",
    "what",
    "with",
    "from",
    "it",
    "its",
    "value",
    "field",
    "date",
    "time",
    "day",
    "number",
    "name",
    "amount",
    "money",
    "price",
    "email",
    "mail",
    "phone",
    "text",
    "about",
    "mentioned",
    "example",
    "order's",
];

/// What else people write: (word of the entity's name or description, its companions).
const COMPANIONS: [(&str, &[&str]); 26] = [
    (
        "incident",
        &["happened", "happen", "occurred", "accident", "took place", "booked"],
    ),
    ("accident", &["happened", "occurred", "crash", "incident"]),
    ("birth", &["born", "birthday", "dob", "date of birth"]),
    ("birthday", &["born", "birth", "dob"]),
    ("order", &["purchase", "ordered", "parcel", "delivery"]),
    ("purchase", &["bought", "purchased", "ordered", "paid"]),
    ("bought", &["purchased", "ordered"]),
    (
        "delivery",
        &["delivered", "deliver", "arrive", "arrived", "shipped", "parcel"],
    ),
    ("arrival", &["arrive", "arriving", "check in", "check-in", "land"]),
    (
        "departure",
        &["depart", "leave", "leaving", "check out", "check-out", "fly"],
    ),
    ("start", &["from", "since", "begin", "begins", "starting", "beginning"]),
    ("end", &["until", "till", "to", "ends", "ending", "through"]),
    ("due", &["deadline", "no later than", "pay by", "by"]),
    ("refund", &["back", "refunded", "return", "reimburse"]),
    ("fee", &["charged", "charge", "fees"]),
    ("total", &["sum", "altogether", "in all", "overall"]),
    ("paid", &["pay", "payment", "cost", "price"]),
    ("cost", &["costs", "paid", "price"]),
    ("salary", &["earn", "wage", "wages", "income"]),
    (
        "guests",
        &["people", "persons", "party", "table for", "seats", "adults"],
    ),
    ("quantity", &["pieces", "items", "units", "times", "copies"]),
    ("age", &["years old", "year-old", "aged"]),
    ("contact", &["reach", "write", "reply", "answer", "contact"]),
    ("office", &["work", "business"]),
    ("discount", &["off", "reduction", "reduced"]),
    ("appointment", &["meet", "meeting", "see", "scheduled"]),
];

/// Words that fit any number-like value.
pub(crate) const NUMBER_CUES: [&str; 12] = [
    "number",
    "no",
    "nr",
    "num",
    "reference",
    "ref",
    "id",
    "code",
    "ticket",
    "case",
    "invoice",
    "called",
];

/// The cue words of an entity, each with its weight.
#[derive(Debug)]
pub(crate) struct Cues(Vec<(String, f32)>);

impl Cues {
    /// From the entity's name and description.
    pub(crate) fn new(name: &str, description: &str) -> Self {
        let mut cues: Vec<(String, f32)> = Vec::new();
        let mut add = |word: &str, weight: f32| {
            if !cues.iter().any(|(known, _)| known == word) {
                cues.push((word.to_owned(), weight));
            }
        };
        for (text, weight) in [(name, 1.0), (description, 0.6)] {
            for word in words(text) {
                if EMPTY.contains(&word.as_str()) || word.chars().count() < 2 {
                    continue;
                }
                add(&word, weight);
                for (_, companions) in COMPANIONS.iter().filter(|(known, _)| *known == word) {
                    companions.iter().for_each(|companion| add(companion, weight * 0.9));
                }
            }
        }
        Self(cues)
    }

    /// The same, and further words of little weight.
    pub(crate) fn with(mut self, further: &[&str]) -> Self {
        self.0.extend(further.iter().map(|word| ((*word).to_owned(), 0.5)));
        self
    }

    /// How strongly the words round this place speak for the entity, 0 to 1.
    pub(crate) fn strength(&self, text: &str, range: &Range<usize>) -> f32 {
        let start = text.floor_char_boundary(range.start.saturating_sub(CUE_REACH));
        let left = text[start..range.start].to_lowercase();
        // What stands in another sentence is about something else.
        let left = left.rsplit(['!', '?', '\n', ';']).next().unwrap_or_default();
        // The full stop of `no. 88` ends an abbreviation: a sentence does not begin with its value.
        let left = left.trim_end().trim_end_matches('.');
        let left = sentence(left);
        let end = text.ceil_char_boundary((range.end + CUE_REACH / 2).min(text.len()));
        let right = text[range.end..end].to_lowercase();
        let right = right.split(['!', '?', '\n', ';', ',']).next().unwrap_or_default();
        let right = right.split(". ").next().unwrap_or_default();
        let mut strongest: f32 = 0.0;
        for (cue, weight) in &self.0 {
            if let Some(at) = places(left, cue).last() {
                let distance = (left.len() - at - cue.len()) as f32 / CUE_REACH as f32;
                strongest = strongest.max(weight * (1.0 - 0.8 * distance));
            }
            if let Some(at) = places(right, cue).next() {
                // `4 people`: what follows at once is the unit.
                let near = if at <= 2 { 1.0 } else { 0.8 };
                let distance = at as f32 / CUE_REACH as f32;
                strongest = strongest.max(weight * near * (1.0 - 0.8 * distance));
            }
        }
        strongest
    }
}

/// The last sentence of a text. The full stop of `no.` or `Mr.` does not end one.
fn sentence(text: &str) -> &str {
    let ends = text.match_indices(". ").map(|(at, _)| at).filter(|at| {
        let word = text[..*at]
            .rsplit(|c: char| !c.is_alphanumeric())
            .next()
            .unwrap_or_default();
        word.chars().count() > 3 || word.contains(|c: char| c.is_ascii_digit())
    });
    ends.last().map_or(text, |at| &text[at + 2..])
}

/// Where the cue begins a word of the text. `deliver` finds `delivered`: a cue of five letters or more may go on.
fn places<'a>(text: &'a str, cue: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(stem(cue)).map(|(at, _)| at).filter(move |at| {
        let starts = !text[..*at].chars().next_back().is_some_and(char::is_alphanumeric);
        let ends = text[*at + stem(cue).len()..]
            .chars()
            .next()
            .is_none_or(|c| !c.is_alphanumeric());
        starts && (ends || stem(cue).len() >= 5)
    })
}

/// The part of a word that its forms share.
fn stem(cue: &str) -> &str {
    if cue.contains(' ') || cue.len() < 7 {
        return cue;
    }
    ["ation", "ed", "ing", "ery", "al", "e", "y", "s"]
        .iter()
        .find_map(|ending| cue.strip_suffix(ending).filter(|stem| stem.len() >= 5))
        .unwrap_or(cue)
}

/// The words of a name or a description, in lower case; `incidentDate` is two.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut lower = false;
    for c in text.chars() {
        if !(c.is_alphanumeric() || c == '\'') || c.is_uppercase() && lower {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() || c == '\'' {
            lower = c.is_lowercase();
            word.extend(c.to_lowercase());
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strength(name: &str, text: &str, value: &str) -> f32 {
        let start = text.find(value).unwrap();
        Cues::new(name, "").strength(text, &(start..start + value.len()))
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(
            words("incidentDate of_the order's-thing"),
            ["incident", "date", "of", "the", "order's", "thing"]
        );
    }

    #[test]
    fn near_words_speak_for_a_value_and_those_of_other_sentences_do_not() {
        let text = "I was born on 1 May 1990. The accident happened on 2 June 2026, and it was paid on 3 July 2026";
        assert!(strength("birth_date", text, "1 May 1990") > 0.5);
        assert!(strength("incident_date", text, "2 June 2026") > 0.5);
        assert!(strength("incident_date", text, "1 May 1990") < strength("incident_date", text, "2 June 2026"));
        assert!(strength("birth_date", text, "3 July 2026") < 0.1);
        assert!(strength("delivery_date", "it was delivered on 2026-01-01", "2026") > 0.5);
        assert!(strength("guests", "a table for 4 please", "4") > 0.5);
        assert!(strength("order_number", "Order no. 4471-889 was", "4471") > 0.5);
        assert!(strength("guests", "we are 4 people", "4") > 0.5);
    }
}

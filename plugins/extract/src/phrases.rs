//! What a free text may be: phrases of the text that have the right shape.
//!
//! **Problem.** A small model asked for "the product" writes a sentence, or something that is not in the text. **Promise.** It
//! chooses among phrases that stand there, so every answer is verbatim. **Cost.** What no phrase covers cannot be found: more
//! than five words, or parts of words. **Rejected.** Free generation with a check afterwards: of 57 values in 36 sentences the
//! model copied 25, against 44 by choosing.

use std::ops::Range;

use crate::cues::words;
use crate::limits;
use crate::settings::Entity;
use crate::source::overlap;

/// What kind of text an entity is, guessed from its name, its description or its examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Letters and digits: found by its surroundings, without the model.
    Code,
    /// A capitalised name of a person.
    Person,
    /// A capitalised name of a place.
    Place,
    /// A capitalised name of a company and the like.
    Organisation,
    /// Something bought or used, in the words of the text.
    Product,
    /// Anything else: a thing, in the words of the text.
    Thing,
}

const PRODUCTS: [&str; 9] = [
    "product",
    "item",
    "article",
    "device",
    "appliance",
    "goods",
    "object",
    "equipment",
    "machine",
];
const THINGS: [&str; 18] = [
    "service",
    "vehicle",
    "car",
    "food",
    "dish",
    "colour",
    "color",
    "reason",
    "problem",
    "topic",
    "subject",
    "software",
    "app",
    "animal",
    "pet",
    "symptom",
    "allergy",
    "profession",
];
/// What people say of a product they write about.
const PRODUCT_WORDS: &str = " bought ordered purchased broken broke leaks leaking stopped works work working arrived delivered defective \
damaged faulty return returned heat noise lid stock need ";
const CODES: [&str; 19] = [
    "number",
    "no",
    "nr",
    "code",
    "reference",
    "ref",
    "id",
    "serial",
    "sku",
    "imei",
    "plate",
    "tracking",
    "voucher",
    "ticket",
    "vin",
    "isbn",
    "identifier",
    "licence",
    "license",
];
const ORGANISATIONS: [&str; 22] = [
    "company",
    "organisation",
    "organization",
    "employer",
    "business",
    "firm",
    "shop",
    "store",
    "brand",
    "vendor",
    "supplier",
    "airline",
    "manufacturer",
    "school",
    "university",
    "hospital",
    "restaurant",
    "insurer",
    "agency",
    "bank",
    "merchant",
    "hotel",
];
const PLACES: [&str; 16] = [
    "city",
    "town",
    "place",
    "location",
    "country",
    "street",
    "region",
    "state",
    "village",
    "airport",
    "destination",
    "origin",
    "branch",
    "station",
    "county",
    "address",
];
const PERSONS: [&str; 31] = [
    "person",
    "name",
    "employee",
    "customer",
    "colleague",
    "agent",
    "clerk",
    "staff",
    "doctor",
    "author",
    "contact",
    "patient",
    "applicant",
    "manager",
    "adviser",
    "advisor",
    "representative",
    "owner",
    "sender",
    "recipient",
    "surname",
    "child",
    "driver",
    "technician",
    "witness",
    "nurse",
    "teacher",
    "member",
    "guest",
    "tenant",
    "firstname",
];

impl Shape {
    /// Of an entity.
    pub(crate) fn of(entity: &Entity) -> Self {
        if !entity.examples.is_empty() {
            let all = |test: fn(char) -> bool| entity.examples.iter().all(|example| example.contains(test));
            if all(|c| c.is_ascii_digit()) {
                return Self::Code;
            }
        }
        for text in [&entity.name, &entity.description] {
            let words = words(text);
            let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.trim_end_matches("'s")));
            for (known, shape) in [
                (PRODUCTS.as_slice(), Self::Product),
                (&THINGS, Self::Thing),
                (&CODES, Self::Code),
                (&ORGANISATIONS, Self::Organisation),
                (&PLACES, Self::Place),
                (&PERSONS, Self::Person),
            ] {
                // "the name of the company" is a company's, "the employee of the bank" is a person.
                if has(known) {
                    return shape;
                }
            }
        }
        Self::Thing
    }
}

const STOP: &str = " a an the this that these those my your our his her its their i you he she it we they me him us them and or but if so as of in \
on at to from for with by about into after before since until between without within than then there here is are was were be been being am do \
does did done have has had having can could will would shall should may might must not no nor never nothing nobody none somebody anybody who \
whom whose which what when where why how very too also just only even still again already yet ever please thanks thank hello hi dear regards hey \
yes out up down off over under all any both each few more most other some such own same now today yesterday tomorrow monday tuesday wednesday \
thursday friday saturday sunday january february march april june july august september october november december get got make made makes like \
want need told tell said say says asked ask called call went go came come know mr mrs ms dr miss sir madam mx prof i'd i'm i've it's can't don't \
didn't doesn't isn't won't kind best sincerely yours ";
const TITLES: &str = " mr mrs ms miss mx dr prof sir madam herr frau ";
const DETERMINERS: &str = " a an the this that these those my your our his her their its some any two three four five six seven eight nine ten twelve \
another new no each every one ";
const COMPANY_WORDS: &str = " gmbh ag ltd limited inc llc plc corp corporation co company kg sa sarl srl bv nv ab oy as kft bank airlines airways \
group holding partners associates university hospital school & ";

fn listed(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == word)
}

/// A phrase and what its surroundings say for (or against) it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Phrase {
    pub(crate) range: Range<usize>,
    /// Added to the confidence.
    pub(crate) bonus: f32,
}

struct Word {
    range: Range<usize>,
    lower: String,
    capital: bool,
    /// Only blanks between it and the word before.
    joined: bool,
    /// First of a sentence.
    first: bool,
}

/// The phrases of this shape in a text. What rules have found (`taken`) is left out.
pub(crate) fn phrases(shape: Shape, text: &str, taken: &[Range<usize>]) -> Vec<Phrase> {
    let words = split(text);
    let mut found = match shape {
        Shape::Code => codes(text, &words),
        Shape::Product => products(text, &words),
        Shape::Thing => things(text, &words),
        Shape::Person | Shape::Place | Shape::Organisation => names(shape, text, &words),
    };
    found.retain(|phrase| !taken.iter().any(|range| overlap(range, &phrase.range)));
    found.truncate(limits::MAX_PHRASES);
    found
}

fn split(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '-' | '_' | '/' | '&' | '.' | '#' | '+');
    let mut at = 0;
    while let Some(offset) = text[at..].find(|c: char| c.is_alphanumeric() || c == '&' || c == '#') {
        let start = at + offset;
        let length = text[start..].find(|c| !inner(c)).unwrap_or(text.len() - start);
        let word = text[start..start + length].trim_end_matches(|c: char| !c.is_alphanumeric() && c != '&');
        let word = if word.is_empty() { &text[start..start + 1] } else { word };
        let end = start + word.len();
        let gap = words.last().map_or("", |last| &text[last.range.end..start]);
        let blank = !gap.is_empty() && gap.chars().all(|c| c.is_whitespace() && c != '\n');
        let title = words.last().is_some_and(|last| listed(TITLES, &last.lower)) && gap.trim() == ".";
        words.push(Word {
            range: start..end,
            lower: word.to_lowercase().replace('’', "'"),
            capital: word.starts_with(char::is_uppercase),
            joined: blank || title,
            first: words.is_empty() || !title && gap.contains(['.', '!', '?', '\n', ':']),
        });
        at = end.max(start + 1);
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    words
}

/// Words with digits: order numbers, licence plates. A word of digits only needs three.
fn codes(text: &str, words: &[Word]) -> Vec<Phrase> {
    let mut found = Vec::new();
    for word in words {
        let content = &text[word.range.clone()];
        let bare = content.trim_start_matches('#').trim_end_matches("'s");
        let start = word.range.start + (content.len() - content.trim_start_matches('#').len());
        let digits = bare.chars().filter(char::is_ascii_digit).count();
        let ordinal = [
            "st", "nd", "rd", "th", "am", "pm", "h", "kg", "cm", "mm", "km", "x", "g", "ml", "l", "m",
        ]
        .iter()
        .any(|unit| {
            bare.strip_suffix(unit)
                .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        });
        if digits >= 1 && bare.chars().count() >= 3 && !ordinal {
            found.push(Phrase {
                range: start..start + bare.len(),
                bonus: 0.0,
            });
        }
    }
    found
}

/// Runs of capitalised words.
fn names(shape: Shape, text: &str, words: &[Word]) -> Vec<Phrase> {
    let mut found = Vec::new();
    let particle = |word: &Word| listed("de van von der den la le di da del dos du of bin al", &word.lower);
    let mut index = 0;
    while index < words.len() {
        let begins = words[index].capital && !listed(STOP, &words[index].lower);
        if !begins {
            index += 1;
            continue;
        }
        let mut last = index;
        let mut next = index + 1;
        while next < words.len() && words[next].joined && next - index < limits::MAX_PHRASE_WORDS {
            let word = &words[next];
            if word.capital && !listed(STOP, &word.lower) {
                last = next;
            } else if !(word.lower == "&"
                || particle(word) && word.lower != "of"
                || word.lower == "of" && shape == Shape::Organisation)
            {
                break;
            }
            next += 1;
        }
        let range = words[index].range.start..words[last].range.end;
        let inside: Vec<&str> = words[index..=last].iter().map(|word| word.lower.as_str()).collect();
        if let Some(bonus) = surroundings(shape, words, index, &inside, text) {
            found.push(Phrase { range, bonus });
        }
        index = last + 1;
    }
    found
}

/// What the words before and inside a name say about its kind; `None` when they exclude it.
fn surroundings(shape: Shape, words: &[Word], index: usize, inside: &[&str], text: &str) -> Option<f32> {
    let before = |back: usize| index.checked_sub(back).map_or("", |at| words[at].lower.as_str());
    let titled = listed(TITLES, before(1));
    let company = inside.iter().any(|word| listed(COMPANY_WORDS, word));
    let located = listed("in near from to at between", before(1));
    let introduced = matches!(
        (before(3), before(2), before(1)),
        ("my", "name", "is")
            | (_, "i", "am")
            | (_, "this", "is")
            | (_, _, "i'm" | "regards" | "sincerely" | "yours" | "named" | "called")
            | (_, "spoke" | "talked" | "regards", "to" | "with" | "from")
    );
    let last_line = text[words[index].range.start..].trim_end().len() == inside.join(" ").len();
    match shape {
        Shape::Person if company => None,
        Shape::Person if titled => Some(0.5),
        Shape::Person if introduced => Some(0.35),
        Shape::Person if last_line && inside.len() >= 2 && words[index].first => Some(0.2),
        Shape::Person if located => Some(-0.3),
        Shape::Place if titled || company || introduced => None,
        Shape::Place if located => Some(0.15),
        Shape::Place => Some(-0.15),
        Shape::Organisation if titled => None,
        Shape::Organisation if company => Some(0.25),
        Shape::Organisation if located && before(1) == "in" || introduced => Some(-0.25),
        _ => Some(0.0),
    }
}

/// Things; words beside them that are said of goods speak for them.
fn products(text: &str, words: &[Word]) -> Vec<Phrase> {
    let mut found = things(text, words);
    for phrase in &mut found {
        let first = words
            .iter()
            .position(|word| word.range.start >= phrase.range.start)
            .unwrap_or(0);
        let last = words
            .iter()
            .rposition(|word| word.range.end <= phrase.range.end)
            .unwrap_or(first);
        let near = &words[first.saturating_sub(3)..words.len().min(last + 6)];
        if near.iter().any(|word| listed(PRODUCT_WORDS, &word.lower)) {
            phrase.bonus = 0.15;
        }
    }
    found
}

/// What stands behind an article, a possessive or a numeral, up to three words without function words.
fn things(text: &str, words: &[Word]) -> Vec<Phrase> {
    let collect = |only_determined: bool| {
        let mut found = Vec::new();
        for start in 0..words.len() {
            let word = &words[start];
            let before = start
                .checked_sub(1)
                .filter(|_| word.joined)
                .map_or("", |at| words[at].lower.as_str());
            let determined = listed(DETERMINERS, before);
            if only_determined && !determined || listed(STOP, &word.lower) || listed(DETERMINERS, &word.lower) {
                continue;
            }
            for end in start..words.len().min(start + 3) {
                let range = word.range.start..words[end].range.end;
                if end > start && !words[end].joined || listed(STOP, &words[end].lower) {
                    break;
                }
                // A person's or a company's name is no thing, but `Pixel 8` is.
                let named = words[start..=end].iter().any(|word| word.capital && !word.first);
                let numbered = words[start..=end]
                    .iter()
                    .any(|word| word.lower.contains(|c: char| c.is_ascii_digit()));
                let only_digits = !text[range.clone()].contains(char::is_alphabetic);
                let long = text[range.clone()].chars().count() >= 3;
                if long && !only_digits && (!named || numbered || determined && before != "the") {
                    found.push(Phrase { range, bonus: 0.0 });
                }
            }
        }
        found
    };
    let determined = collect(true);
    if determined.is_empty() {
        collect(false)
    } else {
        determined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shape: Shape, text: &str) -> Vec<&str> {
        phrases(shape, text, &[])
            .into_iter()
            .map(|phrase| &text[phrase.range])
            .collect()
    }

    #[test]
    fn names_are_runs_of_capitals_without_titles_and_function_words() {
        assert_eq!(
            of(Shape::Person, "Your colleague Mr. Tobias Wendt was rude in Leipzig."),
            ["Tobias Wendt", "Leipzig"]
        );
        assert_eq!(
            of(Shape::Person, "I met Vincent van Gogh and O’Neil-Smith"),
            ["Vincent van Gogh", "O’Neil-Smith"]
        );
        assert_eq!(
            of(Shape::Organisation, "We are Hansen & Sons, a bakery."),
            ["Hansen & Sons"]
        );
        assert_eq!(of(Shape::Place, "Mr Paris lives in Paris"), ["Paris"]);
        assert!(of(Shape::Person, "Thanks for nothing! I hope you know.").is_empty());
    }

    #[test]
    fn things_stand_behind_articles() {
        let found = of(
            Shape::Thing,
            "the kettle leaks and my washing machine of Mr Wendt broke",
        );
        assert_eq!(found, ["kettle", "kettle leaks", "washing", "washing machine"]);
    }

    #[test]
    fn codes_hold_digits() {
        assert_eq!(
            of(Shape::Code, "Order no. 4471-889, ref #77-A-1290 of the 14th, 5kg at 7"),
            ["4471-889", "77-A-1290"]
        );
    }

    #[test]
    fn what_rules_found_is_left_out() {
        let order = 6..10;
        assert!(phrases(Shape::Code, "order 4471 from a@b.de", std::slice::from_ref(&order)).is_empty());
    }

    #[test]
    fn odd_texts_do_not_break_words() {
        for text in ["", "🙂🙂 é", "#", "&&&", "ÀÉ-", "a\u{0301} #🙂1"] {
            for shape in [
                Shape::Code,
                Shape::Thing,
                Shape::Person,
                Shape::Place,
                Shape::Organisation,
            ] {
                for phrase in phrases(shape, text, &[]) {
                    assert!(!text[phrase.range].is_empty());
                }
            }
        }
    }
}

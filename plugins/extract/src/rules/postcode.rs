//! Postcodes. British, Canadian and Dutch ones have a form of their own; five digits are one only by the form's `country` or
//! a cue word.

use regex::Regex;

use super::Found;
use crate::source::{after, before, stands_alone};

const BRITISH: &str = r"(?i)\b(?:GIR ?0AA|[A-PR-UWYZ](?:[0-9]{1,2}|[A-HK-Y][0-9]{1,2}|[0-9][A-HJKPSTUW]|[A-HK-Y][0-9][ABEHMNPRVWXY]) ?[0-9][ABD-HJLNP-UW-Z]{2})\b";
const CANADIAN: &str = r"(?i)\b[ABCEGHJ-NPRSTVXY][0-9][ABCEGHJ-NPRSTV-Z] ?[0-9][ABCEGHJ-NPRSTV-Z][0-9]\b";
const DUTCH: &str = r"\b[1-9][0-9]{3} ?[A-Z]{2}\b";
const AMERICAN: &str = r"\b[0-9]{5}(?:-[0-9]{4})?\b";

const CUES: [&str; 7] = [
    "postcode",
    "post code",
    "postal code",
    "zip",
    "plz",
    "postleitzahl",
    "code postal",
];
const CUE_REACH: usize = 30;

/// The compiled patterns.
#[derive(Debug)]
pub(super) struct Postcodes {
    /// Pattern, confidence, and whether a cue word is needed.
    patterns: Vec<(Regex, f32, bool)>,
}

impl Postcodes {
    pub(super) fn new(country: Option<&str>) -> Result<Self, regex::Error> {
        let digits = |count: usize| format!(r"\b[0-9]{{{count}}}\b");
        let patterns = match country {
            Some("GB") => vec![(BRITISH.to_owned(), 0.9, false)],
            Some("CA") => vec![(CANADIAN.to_owned(), 0.9, false)],
            Some("NL") => vec![(DUTCH.to_owned(), 0.9, false)],
            Some("US") => vec![(AMERICAN.to_owned(), 0.7, false)],
            Some("AT" | "AU" | "BE" | "CH" | "DK" | "HU" | "LU" | "NO" | "NZ" | "ZA" | "BG" | "CY" | "SI") => {
                vec![(digits(4), 0.6, false)]
            }
            Some(
                "DE" | "FR" | "ES" | "IT" | "FI" | "TR" | "MX" | "HR" | "EE" | "UA" | "MA" | "TH" | "ID" | "MY" | "RS",
            ) => {
                vec![(digits(5), 0.7, false)]
            }
            Some("IN" | "CN" | "RU" | "RO" | "SG" | "VN" | "CO") => vec![(digits(6), 0.7, false)],
            Some("PL") => vec![(r"\b[0-9]{2}-[0-9]{3}\b".to_owned(), 0.85, false)],
            Some("PT") => vec![(r"\b[0-9]{4}-[0-9]{3}\b".to_owned(), 0.85, false)],
            Some("BR") => vec![(r"\b[0-9]{5}-?[0-9]{3}\b".to_owned(), 0.8, false)],
            Some("JP") => vec![(r"\b[0-9]{3}-[0-9]{4}\b".to_owned(), 0.8, false)],
            Some("SE" | "CZ" | "SK" | "GR") => vec![(r"\b[0-9]{3} ?[0-9]{2}\b".to_owned(), 0.7, false)],
            _ => vec![
                (BRITISH.to_owned(), 0.8, false),
                (CANADIAN.to_owned(), 0.8, false),
                (DUTCH.to_owned(), 0.6, false),
                (r"\b[0-9]{4,6}(?:-[0-9]{4})?\b".to_owned(), 0.8, true),
            ],
        };
        let compiled: Result<_, regex::Error> = patterns
            .into_iter()
            .map(|(pattern, confidence, cue)| Ok((Regex::new(&pattern)?, confidence, cue)))
            .collect();
        Ok(Self { patterns: compiled? })
    }

    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for (pattern, confidence, needs_cue) in &self.patterns {
            for matched in pattern.find_iter(text) {
                let range = matched.range();
                let joined = |c: Option<char>| c.is_some_and(|c| matches!(c, '-' | '/' | '#' | '.' | ',' | '+' | '_'));
                let next = after(text, range.end);
                let sentence_end =
                    matches!(next, Some('.' | ',')) && !text[range.end + 1..].starts_with(|c: char| c.is_ascii_digit());
                let start = text.floor_char_boundary(range.start.saturating_sub(CUE_REACH));
                let context = text[start..range.start].to_lowercase();
                let cued = CUES.iter().any(|cue| context.contains(cue));
                let overlapping = found
                    .iter()
                    .any(|other| other.range.start < range.end && range.start < other.range.end);
                if overlapping
                    || *needs_cue && !cued
                    || !stands_alone(text, &range)
                    || joined(before(text, range.start))
                    || joined(next) && !sentence_end
                {
                    continue;
                }
                let confidence = if cued { 0.9 } else { *confidence };
                found.push(Found::new(
                    range,
                    matched.as_str().to_uppercase(),
                    confidence,
                    "rule:postcode",
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, country: Option<&str>) -> Vec<String> {
        Postcodes::new(country)
            .unwrap()
            .find(text)
            .into_iter()
            .map(|found| found.value.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn postcodes_are_found_by_form_country_or_cue() {
        assert_eq!(of("London SW1A 1AA.", None), ["SW1A 1AA"]);
        assert_eq!(of("k1a 0b1 Ottawa", None), ["K1A 0B1"]);
        assert_eq!(of("10115 Berlin", Some("DE")), ["10115"]);
        assert_eq!(of("my zip is 90210-1234", None), ["90210-1234"]);
        assert!(of("10115 parts", None).is_empty());
        assert!(of("A-10115", Some("DE")).is_empty());
        assert!(of("101156", Some("DE")).is_empty());
    }
}

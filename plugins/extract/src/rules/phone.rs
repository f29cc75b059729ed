//! Telephone numbers. With a country code (in the text, or by the form's `country`) the value is E.164; else it is the
//! digits as written, and only their grouping, a leading zero or a cue word speaks for them.

use std::ops::Range;

use regex::Regex;

use super::Found;
use super::calling_codes::{self, Plan};
use crate::source::{after, before};

/// Digits with single separators; brackets round one group.
const PATTERN: &str = r"(?:\+ ?|\()?[0-9]{1,}(?:(?:[ \u{a0}]?[-–./()][ \u{a0}]?\(?|[ \u{a0}]|\) ?\(?)[0-9]+)*(?:\s?(?i:ext\.?|x)\s?[0-9]{1,5})?";

/// E.164 has at most 15 digits; below 6 nobody writes a number with separators.
const DIGITS: std::ops::RangeInclusive<usize> = 6..=15;

/// Words that say that a number is a telephone number.
const CUES: [&str; 26] = [
    "phone",
    "tel",
    "telephone",
    "telefon",
    "telefono",
    "téléphone",
    "call",
    "calling",
    "call me",
    "mobile",
    "mobil",
    "cell",
    "fax",
    "whatsapp",
    "sms",
    "text",
    "handy",
    "dial",
    "ring",
    "my number",
    "contact",
    "reach",
    "hotline",
    "landline",
    "anrufen",
    "ph",
];
/// How far before the number they may stand, in bytes.
const CUE_REACH: usize = 40;

/// The compiled pattern.
#[derive(Debug)]
pub(super) struct Phones {
    pattern: Regex,
    country: Option<Plan>,
}

impl Phones {
    pub(super) fn new(country: Option<&str>) -> Result<Self, regex::Error> {
        Ok(Self {
            pattern: Regex::new(PATTERN)?,
            country: country.and_then(calling_codes::of),
        })
    }

    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for matched in self.pattern.find_iter(text) {
            let mut range = matched.range();
            // `(030 …` opens a bracket of the sentence when it is not closed within.
            let content = &text[range.clone()];
            if content.starts_with('(') && !content.contains(')') {
                range.start += 1;
            }
            if alone(text, &range)
                && let Some(phone) = self.read(text, &range)
            {
                found.push(phone);
            }
        }
        found
    }

    fn read(&self, text: &str, range: &Range<usize>) -> Option<Found> {
        let content = &text[range.clone()];
        let lower = content.to_lowercase();
        let main = lower.find(['e', 'x']).map_or(content, |at| &content[..at]);
        let opens = main.matches('(').count();
        if opens != main.matches(')').count() || opens > 1 {
            return None;
        }
        let digits: String = main.chars().filter(char::is_ascii_digit).collect();
        let plus = main.starts_with('+');
        let double_zero = digits.starts_with("00") && digits.len() > 9;
        if plus || double_zero {
            let bare = main.replace("(0)", "");
            let digits: String = bare.chars().filter(char::is_ascii_digit).collect();
            let digits = if plus { digits.as_str() } else { &digits[2..] };
            let known = calling_codes::international(digits).is_some();
            let plausible = (8..=15).contains(&digits.len()) && !digits.starts_with('0');
            if !plausible || !known && !plus {
                return None;
            }
            return Some(Found::new(
                range.clone(),
                format!("+{digits}"),
                if known { 0.95 } else { 0.75 },
                "rule:phone",
            ));
        }
        if !DIGITS.contains(&digits.len()) {
            return None;
        }
        let cued = cued(text, range.start);
        if let Some(plan) = self.country {
            let trimmed = if plan.trunk.is_empty() {
                Some(digits.as_str())
            } else {
                digits.strip_prefix(plan.trunk)
            };
            let without_trunk = plan.trunk == "1" || cued;
            let national = trimmed.or(without_trunk.then_some(digits.as_str()));
            if let Some(national) = national.filter(|national| (plan.min..=plan.max).contains(&national.len())) {
                let written = has_groups(main) || (!plan.trunk.is_empty() && plan.trunk != "1" && trimmed.is_some());
                if cued || written {
                    let confidence = if cued { 0.9 } else { 0.75 };
                    return Some(Found::new(
                        range.clone(),
                        format!("+{}{national}", plan.code),
                        confidence,
                        "rule:phone",
                    ));
                }
            }
        }
        let confidence = match (cued, looks_national(main, &digits)) {
            (true, true) => 0.85,
            (true, false) if digits.len() >= 7 => 0.7,
            (false, true) => 0.6,
            // A cue word of the form may still lift it.
            (false, false) if has_groups(main) && digits.len() >= 8 => 0.4,
            _ => return None,
        };
        Some(Found::new(range.clone(), digits, confidence, "rule:phone"))
    }
}

fn has_groups(content: &str) -> bool {
    content
        .split(|c: char| !c.is_ascii_digit())
        .filter(|group| !group.is_empty())
        .count()
        >= 2
}

/// Written as numbers are inside a country: a leading zero and groups, the American 3-3-4, or French pairs.
fn looks_national(content: &str, digits: &str) -> bool {
    let groups: Vec<usize> = content
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .filter(|length| *length > 0)
        .collect();
    let american = matches!(groups[..], [3, 3, 4] | [1, 3, 3, 4]);
    let zero = digits.starts_with('0') && !digits.starts_with("00") && groups.len() >= 2 && digits.len() >= 8;
    let one_zero = digits.starts_with('0') && groups.len() == 1 && (10..=12).contains(&digits.len());
    american || zero && digits.len() <= 13 || one_zero
}

fn cued(text: &str, at: usize) -> bool {
    let start = text.floor_char_boundary(at.saturating_sub(CUE_REACH));
    let context = text[start..at].to_lowercase();
    // A line of its own may be the label: `Phone:` and the number below it.
    let context = context.trim_end().rsplit(['?', '!', '\n']).next().unwrap_or_default();
    CUES.iter().any(|cue| {
        context.match_indices(cue).any(|(found, _)| {
            let left = before(context, found);
            let right = after(context, found + cue.len());
            !left.is_some_and(char::is_alphabetic) && !right.is_some_and(char::is_alphabetic)
        })
    })
}

/// Not a part of a word, a code or a longer number.
fn alone(text: &str, range: &Range<usize>) -> bool {
    let left = before(text, range.start);
    let right = after(text, range.end);
    let bad = |c: char| c.is_alphanumeric() || matches!(c, '_' | '#' | '@' | '$' | '€' | '£' | '%' | '=');
    let glued = matches!(left, Some('-' | '.' | '/' | ','))
        && before(text, range.start - 1).is_some_and(|c| c.is_alphanumeric());
    let goes_on =
        matches!(right, Some('-' | '/' | ',')) && text[range.end + 1..].starts_with(|c: char| c.is_alphanumeric());
    !left.is_some_and(bad) && !right.is_some_and(bad) && !glued && !goes_on && left != Some('+')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, country: Option<&str>) -> Vec<(String, f32)> {
        let phones = Phones::new(country).unwrap();
        phones
            .find(text)
            .into_iter()
            .filter(|found| found.confidence >= 0.5)
            .map(|found| (found.value.as_str().unwrap().to_owned(), found.confidence))
            .collect()
    }

    #[test]
    fn international_numbers_become_e164() {
        for (text, expected) in [
            ("+44 20 7946 0958", "+442079460958"),
            ("call +49 (0)30 901820.", "+4930901820"),
            ("0049 30 901820", "+4930901820"),
            ("001-253-366-9781", "+12533669781"),
            ("+1-541-754-3010x123", "+15417543010"),
            ("+1 (541) 754-3010", "+15417543010"),
            ("+41 (0)71 526 99 04", "+41715269904"),
            ("tel:+33123456789", "+33123456789"),
        ] {
            let found = of(text, None);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert_eq!(found[0].0, expected, "{text}");
            assert!(found[0].1 > 0.9);
        }
    }

    #[test]
    fn national_numbers_need_a_country_a_shape_or_a_cue() {
        assert_eq!(of("030 901820", Some("DE"))[0].0, "+4930901820");
        assert_eq!(of("(541) 754-3010", Some("US"))[0].0, "+15417543010");
        assert_eq!(of("01 23 45 67 89", Some("FR"))[0].0, "+33123456789");
        assert_eq!(of("my phone: 612 345 678", Some("ES"))[0].0, "+34612345678");
        assert_eq!(of("079 0442 1744", None)[0].0, "07904421744");
        assert_eq!(of("905-674-3793", None)[0].0, "9056743793");
        assert_eq!(of("call me at 5417543", None)[0].0, "5417543");
        assert_eq!(of("(call 030 901820)", None)[0].0, "030901820");
    }

    #[test]
    fn other_numbers_are_not_telephone_numbers() {
        for text in [
            "order 5417543",
            "A-0301234567",
            "0301234567-X",
            "12345",
            "+12",
            "+0301234567",
            "0000000000",
            "12 34",
            "1234567890123456",
            "#0301234567",
            "$541-754-3010",
            "2 of 3000000",
        ] {
            assert!(of(text, None).is_empty(), "{text}: {:?}", of(text, None));
        }
    }
}

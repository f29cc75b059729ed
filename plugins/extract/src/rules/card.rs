//! Payment card numbers: a brand's prefix and length, then Luhn's check digit; never a part of a longer number.

use std::ops::Range;

use super::Found;
use crate::source::{after, before};

/// Digits of a card number, Maestro's shortest to the standard's longest.
const DIGITS: std::ops::RangeInclusive<usize> = 12..=19;

pub(super) fn find(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for groups in runs(text) {
        let mut first = 0;
        while first < groups.len() {
            // The longest reading wins: a shorter one would leave a digit group over.
            let reading = (first..groups.len()).rev().find_map(|last| {
                let part = &groups[first..=last];
                let value = digits(text, part);
                let whole = first == 0 && last + 1 == groups.len();
                if !(DIGITS.contains(&value.len()) && luhn(&value) && (whole || is_card_grouping(part))) {
                    return None;
                }
                let confidence = confidence(&value)?;
                let range = part[0].start..part[part.len() - 1].end;
                Some((last, Found::new(range, value, confidence, "rule:card")))
            });
            first = match reading {
                Some((last, card)) => {
                    found.push(card);
                    last + 1
                }
                None => first + 1,
            };
        }
    }
    found
}

/// Runs of digit groups with one blank or hyphen between them, touched by nothing that makes them a part of more.
fn runs(text: &str) -> Vec<Vec<Range<usize>>> {
    let mut runs: Vec<Vec<Range<usize>>> = Vec::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find(|c: char| c.is_ascii_digit()) {
        let start = at + offset;
        let end = text[start..]
            .find(|c: char| !c.is_ascii_digit())
            .map_or(text.len(), |length| start + length);
        let joined = runs
            .last()
            .and_then(|run| run.last())
            .is_some_and(|last| matches!(&text[last.end..start], " " | "-" | "\u{a0}"));
        match runs.last_mut() {
            Some(run) if joined => run.push(start..end),
            _ => runs.push(std::iter::once(start..end).collect()),
        }
        at = end;
    }
    runs.retain(|run| {
        let (start, end) = (run[0].start, run[run.len() - 1].end);
        let part = |c: char| c.is_alphanumeric() || matches!(c, '+' | '_' | '@');
        let decimal = |edge: Option<char>, beyond: Option<char>| {
            edge.is_some_and(|c| matches!(c, '.' | ',' | '/' | '-')) && beyond.is_some_and(|c| c.is_ascii_digit())
        };
        let (left, right) = (before(text, start), after(text, end));
        let far_left = left.and_then(|c| before(text, start - c.len_utf8()));
        let far_right = right.and_then(|c| after(text, end + c.len_utf8()));
        !left.is_some_and(part) && !right.is_some_and(part) && !decimal(left, far_left) && !decimal(right, far_right)
    });
    runs
}

fn digits(text: &str, groups: &[Range<usize>]) -> String {
    groups.iter().map(|group| &text[group.clone()]).collect()
}

/// Beside other groups only what is printed on cards: 4-4-4-4, 4-6-5, 4-6-4, 4-4-4-4-3, or one group.
fn is_card_grouping(groups: &[Range<usize>]) -> bool {
    let lengths: Vec<usize> = groups.iter().map(ExactSizeIterator::len).collect();
    matches!(
        lengths[..],
        [12..=19] | [4, 4, 4, 4] | [4, 6, 5] | [4, 6, 4] | [4, 4, 4, 4, 3]
    )
}

fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(index, byte)| match (u32::from(byte - b'0'), index % 2) {
            (digit, 0) => digit,
            (digit, _) if digit > 4 => 2 * digit - 9,
            (digit, _) => 2 * digit,
        })
        .sum();
    sum.is_multiple_of(10) && digits.bytes().any(|byte| byte != digits.as_bytes()[0])
}

/// By the issuer's prefix; `None` for prefixes no card has. One number in ten passes Luhn by chance.
fn confidence(digits: &str) -> Option<f32> {
    let prefix = |length: usize| {
        digits
            .get(..length)
            .and_then(|text| text.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let length = digits.len();
    let brand = match (prefix(1), prefix(2), prefix(3), prefix(4)) {
        (4, ..) => matches!(length, 13 | 16 | 19),
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => length == 16,
        (_, 34 | 37, ..) => length == 15,
        (_, _, _, 6011) | (_, 65, ..) | (_, _, 644..=649, _) => (16..=19).contains(&length),
        (_, 35, ..) => (16..=19).contains(&length),
        (_, _, _, 1800 | 2131) => length == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => (14..=19).contains(&length),
        (_, 62 | 81, ..) => (16..=19).contains(&length),
        (_, 50 | 56..=64 | 66..=69, ..) => return Some(if length >= 16 { 0.85 } else { 0.75 }),
        _ => return None,
    };
    brand.then_some(0.95)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        find(text)
            .into_iter()
            .map(|found| found.value.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn cards_are_found_however_they_are_grouped() {
        for (text, expected) in [
            ("card 4111 1111 1111 1111, valid", "4111111111111111"),
            ("4111-1111-1111-1111", "4111111111111111"),
            ("5500005555555559.", "5500005555555559"),
            ("amex 3782 822463 10005", "378282246310005"),
            ("4111 1111 1111 1111 12 and more", "4111111111111111"),
            ("pay 20 4111 1111 1111 1111", "4111111111111111"),
            ("503890547220", "503890547220"),
        ] {
            assert_eq!(of(text), [expected], "{text}");
        }
    }

    #[test]
    fn wrong_numbers_are_not_cards() {
        for text in [
            "4111 1111 1111 1112",
            "411111111111111",
            "0000 0000 0000 0000",
            "14111111111111111",
            "41111111111111112345",
            "x4111111111111111",
            "4111111111111111.50",
            "1234 5678 9012 3452",
            "4111  1111  1111  1111",
            "+4111111111111111",
        ] {
            assert!(of(text).is_empty(), "{text}: {:?}", of(text));
        }
    }
}

//! Times of day, as `HH:MM` or `HH:MM:SS` on a 24-hour clock.

use regex::Regex;

use super::Found;
use crate::source::{after, before};

pub(super) const PATTERN: &str =
    r"(?i)([0-9]{1,2})(?:([:.h])([0-9]{2})(?::([0-9]{2}))?)?(?:\s?(a\.?m\b\.?|p\.?m\b\.?)|\s?(o'clock|uhr)\b)?";

pub(super) fn find(pattern: &Regex, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for captures in pattern.captures_iter(text) {
        let Some(whole) = captures.get(0) else { continue };
        let range = whole.range();
        let touched = |c: Option<char>| {
            c.is_some_and(|c| c.is_alphanumeric() || matches!(c, ':' | '-' | '/' | '€' | '$' | '£' | '#'))
        };
        let right = after(text, range.end);
        let decimal =
            matches!(right, Some('.' | ',')) && text[range.end + 1..].starts_with(|c: char| c.is_ascii_digit());
        let left = before(text, range.start);
        let after_time_mark =
            left == Some('T') && range.start >= 2 && text.as_bytes()[range.start - 2].is_ascii_digit();
        let number_before =
            matches!(left, Some('.' | ',' | '+')) && before(text, range.start - 1).is_some_and(|c| c.is_ascii_digit());
        if (touched(left) && !after_time_mark)
            || number_before
            || decimal
            || touched(right) && right != Some('-') && right != Some('Z')
        {
            continue;
        }
        let part = |index: usize| captures.get(index).and_then(|group| group.as_str().parse::<u32>().ok());
        let half = captures.get(5).map(|group| group.as_str().to_ascii_lowercase());
        let said = half.is_some() || captures.get(6).is_some();
        let colon = captures.get(2).map(|group| group.as_str());
        let (Some(hour), minute, second) = (part(1), part(3).unwrap_or(0), part(4)) else {
            continue;
        };
        // `12` alone is a number and `12.50` an amount; `12.50 pm` is a time.
        if !said && !matches!(colon, Some(":" | "h" | "H")) {
            continue;
        }
        let hour = match half.as_deref().and_then(|half| half.chars().next()) {
            Some(_) if !(1..=12).contains(&hour) => continue,
            Some('p') if hour < 12 => hour + 12,
            Some('a') if hour == 12 => 0,
            _ => hour,
        };
        if hour > 23 || minute > 59 || second.is_some_and(|second| second > 59) {
            continue;
        }
        let value = match second {
            Some(second) => format!("{hour:02}:{minute:02}:{second:02}"),
            None => format!("{hour:02}:{minute:02}"),
        };
        let confidence = if half.is_some() || colon == Some(":") { 0.9 } else { 0.8 };
        // The full stop behind `p.m.` may end the sentence; it is a part of the word either way.
        found.push(Found::new(range, value, confidence, "rule:time"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let pattern = Regex::new(PATTERN).unwrap();
        find(&pattern, text)
            .into_iter()
            .map(|found| found.value.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("at 15:04", "15:04"),
            ("3 pm", "15:00"),
            ("3:30 p.m.", "15:30"),
            ("12 am", "00:00"),
            ("12pm", "12:00"),
            ("9 o'clock", "09:00"),
            ("23:59:59", "23:59:59"),
            ("um 14 Uhr", "14:00"),
            ("12.50 pm", "12:50"),
            ("2026-03-14T15:09:26Z", "15:09:26"),
            ("15h30", "15:30"),
        ] {
            assert_eq!(of(text), [expected], "{text}");
        }
        assert_eq!(of("10:00-11:30"), ["10:00"]);
    }

    #[test]
    fn other_numbers_are_not_times() {
        for text in [
            "24:00",
            "12",
            "12.50",
            "7:60",
            "13 pm",
            "1:2",
            "1:23:45:67",
            "10:000",
            "€3 pm",
            "room 3 pmx",
        ] {
            assert!(of(text).is_empty(), "{text}: {:?}", of(text));
        }
    }
}

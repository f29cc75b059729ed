//! Plain numbers and percentages, with thousands separators of either style.

use regex::Regex;
use serde_json::{Value, json};

use super::Found;
use crate::source::{after, before};

/// A number with its separators; [`read`] decides what they mean.
pub(super) const DIGITS: &str =
    r"[0-9]{1,3}(?:[.,'’\u{a0}\u{202f} ][0-9]{3})+(?:[.,][0-9]{1,2})?|[0-9]+(?:[.,][0-9]+)?";

/// A number taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Amount {
    pub(super) digits: String,
    pub(super) fraction: String,
    /// Whether the separators can mean only this.
    pub(super) sure: bool,
}

/// Decides which separator is the decimal one. `None` when they contradict each other.
pub(super) fn read(text: &str) -> Option<Amount> {
    let separators: Vec<(usize, char)> = text.char_indices().filter(|(_, c)| !c.is_ascii_digit()).collect();
    let plain = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let trim = |digits: String| {
        let short = digits.trim_start_matches('0');
        if short.is_empty() {
            "0".to_owned()
        } else {
            short.to_owned()
        }
    };
    let Some(&(last_at, last)) = separators.last() else {
        return Some(Amount {
            digits: trim(plain(text)),
            fraction: String::new(),
            sure: true,
        });
    };
    let tail = text[last_at + last.len_utf8()..].to_owned();
    let same = separators.iter().filter(|(_, c)| *c == last).count();
    let point = matches!(last, '.' | ',');
    let grouped = |tail: &str| tail.len() == 3;
    let (decimal, sure) = match (point, same, separators.len()) {
        // `1 000`, `1'000`
        (false, same, all) if same == all => (false, grouped(&tail)),
        (false, ..) => return None,
        // `1,000,000`
        (true, same, all) if same > 1 => {
            if same != all {
                return None;
            }
            (false, true)
        }
        // `1.000,50`
        (true, 1, all) if all > 1 => (true, true),
        // `1.249` may be either; `0.249` and `12345.678` are fractions.
        (true, ..) if grouped(&tail) && last_at <= 3 && !text.starts_with('0') => (false, false),
        _ => (true, true),
    };
    if decimal {
        let groups_agree = separators[..separators.len() - 1]
            .windows(2)
            .all(|pair| pair[0].1 == pair[1].1);
        return groups_agree.then(|| Amount {
            digits: trim(plain(&text[..last_at])),
            fraction: tail,
            sure,
        });
    }
    Some(Amount {
        digits: trim(plain(text)),
        fraction: String::new(),
        sure,
    })
}

/// The compiled pattern.
#[derive(Debug)]
pub(super) struct Numbers {
    number: Regex,
}

impl Numbers {
    pub(super) fn new() -> Result<Self, regex::Error> {
        Ok(Self {
            number: Regex::new(&format!(r"([-−+])?({DIGITS})"))?,
        })
    }

    /// Numbers that stand alone.
    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        self.scan(text).into_iter().map(|(found, _)| found).collect()
    }

    /// Those without a fraction.
    pub(super) fn integers(&self, text: &str) -> Vec<Found> {
        let whole = |found: &Found| found.value.is_i64() || found.value.is_u64();
        self.scan(text)
            .into_iter()
            .map(|(found, _)| found)
            .filter(whole)
            .collect()
    }

    /// `12.5 %`, `12 percent`: the value is 12.5.
    pub(super) fn percentages(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for (mut number, end) in self.scan(text) {
            let rest = &text[end..];
            let blank = rest.len() - rest.trim_start_matches([' ', '\u{a0}']).len();
            let lower: String = rest[blank..].chars().take(9).collect::<String>().to_lowercase();
            let unit = ["percent", "per cent", "prozent", "%"]
                .into_iter()
                .find(|unit| lower.starts_with(unit));
            let Some(unit) = unit.filter(|_| blank <= 2) else {
                continue;
            };
            let end = end + blank + unit.len();
            if unit == "%" || !after(text, end).is_some_and(char::is_alphabetic) {
                number.range.end = end;
                number.confidence = 0.95;
                number.method = "rule:percentage";
                found.push(number);
            }
        }
        found
    }

    fn scan(&self, text: &str) -> Vec<(Found, usize)> {
        let mut found = Vec::new();
        for captures in self.number.captures_iter(text) {
            let Some(digits) = captures.get(2) else { continue };
            let left = before(text, digits.start());
            let sign = captures.get(1).filter(|sign| {
                !before(text, sign.start()).is_some_and(|c| c.is_alphanumeric() || matches!(c, ')' | '.' | ','))
            });
            // A hyphen that is no sign joins the number to a word: `A-1042`, `2-3`.
            let joined = captures.get(1).is_some() && sign.is_none();
            let start = sign.map_or(digits.start(), |sign| sign.start());
            let word = |c: Option<char>| {
                c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '/' | '#' | ':' | '@' | '-'))
            };
            let edge = if sign.is_some() { before(text, start) } else { left };
            let right = after(text, digits.end());
            let more = matches!(right, Some('.' | ',' | '\''))
                && text[digits.end() + 1..].starts_with(|c: char| c.is_ascii_digit());
            // `we are 4: two adults` is a number, `12:30` is not.
            let colon = right == Some(':') && !text[digits.end() + 1..].starts_with(|c: char| c.is_ascii_digit());
            let dotted = matches!(edge, Some('.' | ',')) && before(text, start - 1).is_some_and(|c| c.is_ascii_digit());
            if joined || word(edge) || word(right) && !colon || more || dotted {
                continue;
            }
            let Some(amount) = read(digits.as_str()) else { continue };
            let minus = sign.is_some_and(|sign| sign.as_str() != "+");
            let Some(value) = value(&amount, minus) else { continue };
            let confidence = if amount.sure { 0.8 } else { 0.6 };
            found.push((
                Found::new(start..digits.end(), value, confidence, "rule:number"),
                digits.end(),
            ));
        }
        found
    }
}

/// A JSON number; `None` when it has more digits than one holds.
fn value(amount: &Amount, minus: bool) -> Option<Value> {
    let sign = if minus { "-" } else { "" };
    if amount.fraction.is_empty() {
        return format!("{sign}{}", amount.digits)
            .parse::<i64>()
            .ok()
            .map(|number| json!(number));
    }
    let text = format!("{sign}{}.{}", amount.digits, amount.fraction);
    (text.len() <= 16)
        .then(|| text.parse::<f64>().ok())
        .flatten()
        .map(|number| json!(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Value> {
        Numbers::new()
            .unwrap()
            .find(text)
            .into_iter()
            .map(|found| found.value)
            .collect()
    }

    #[test]
    fn separators_of_either_style_are_understood() {
        for (text, digits, fraction) in [
            ("1,249.50", "1249", "50"),
            ("1.249,50", "1249", "50"),
            ("1,000,000", "1000000", ""),
            ("1 000", "1000", ""),
            ("12,5", "12", "5"),
            ("0.249", "0", "249"),
            ("12345.678", "12345", "678"),
            ("1.249", "1249", ""),
            ("007", "7", ""),
            ("1'000.5", "1000", "5"),
        ] {
            let amount = read(text).unwrap();
            assert_eq!(
                (amount.digits.as_str(), amount.fraction.as_str()),
                (digits, fraction),
                "{text}"
            );
        }
        assert_eq!(read("1,000.000,5"), None);
    }

    #[test]
    fn numbers_stand_alone() {
        assert_eq!(
            of("we are 4, you are 1,250 and -3.5 or +2."),
            [json!(4), json!(1250), json!(-3.5), json!(2)]
        );
        for text in [
            "A-1042",
            "4x4",
            "v1.2.3",
            "1/2",
            "#5",
            "12:30",
            "99999999999999999999",
            "2-3",
        ] {
            assert!(of(text).is_empty(), "{text}: {:?}", of(text));
        }
    }

    #[test]
    fn percentages_take_their_sign_along() {
        let numbers = Numbers::new().unwrap();
        for (text, value, content) in [
            ("about 12.5 % of", json!(12.5), "12.5 %"),
            ("3 percent", json!(3), "3 percent"),
            ("50%.", json!(50), "50%"),
        ] {
            let found = numbers.percentages(text);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!((&found[0].value, &text[found[0].range.clone()]), (&value, content));
        }
        assert!(numbers.percentages("5 percentages").is_empty());
    }
}

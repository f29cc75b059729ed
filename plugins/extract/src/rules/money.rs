//! Amounts of money: a number and a currency beside it.

use regex::Regex;
use serde_json::json;

use super::Found;
use super::currencies;
use super::number::{Amount, read};
use crate::source::{after, before};

/// The compiled pattern: a sign before, a number, a sign behind.
#[derive(Debug)]
pub(super) struct Amounts {
    pattern: Regex,
}

impl Amounts {
    pub(super) fn new() -> Result<Self, regex::Error> {
        let signs = currencies::alternatives();
        let number = super::number::DIGITS;
        let pattern =
            format!(r"(?i)([-−])?({signs})?([ \u{{a0}}])?([-−])?({number})(?:,?(?:-|–|—)+)?(?:[ \u{{a0}}]?({signs}))?");
        Ok(Self {
            pattern: Regex::new(&pattern)?,
        })
    }

    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        let mut found = Vec::new();
        for captures in self.pattern.captures_iter(text) {
            let (Some(whole), Some(number)) = (captures.get(0), captures.get(5)) else {
                continue;
            };
            let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
            // A code is a word of its own: `SEUR 5` and `5 EURO-Norm` are something else.
            let front = captures.get(2).filter(|sign| !letter(before(text, sign.start())));
            let back = captures.get(6).filter(|sign| !letter(after(text, sign.end())));
            let (sign, front_used) = match (front, back) {
                (Some(sign), _) => (sign.as_str(), true),
                (None, Some(sign)) => (sign.as_str(), false),
                (None, None) => continue,
            };
            let Some((currency, shared)) = currencies::read(sign) else {
                continue;
            };
            let Some(digits) = currencies::minor_digits(currency) else {
                continue;
            };
            let Some(Amount {
                digits: amount,
                fraction,
                sure,
            }) = read(number.as_str())
            else {
                continue;
            };
            if fraction.len() > digits.max(2) {
                continue;
            }
            let minus = front_used
                .then(|| captures.get(1))
                .flatten()
                .or_else(|| captures.get(4));
            let start = match (front_used, minus) {
                (true, Some(minus)) => minus.start().min(front.map_or(minus.start(), |sign| sign.start())),
                (true, None) => front.map_or(number.start(), |sign| sign.start()),
                (false, Some(minus)) => minus.start(),
                (false, None) => number.start(),
            };
            let end = if front_used { number.end() } else { whole.end() };
            let left = before(text, start);
            let right = after(text, end);
            let more = matches!(right, Some('.' | ',')) && text[end + 1..].starts_with(|c: char| c.is_ascii_digit());
            let part = matches!(left, Some('.' | ',' | '-' | '/'))
                && before(text, start - 1).is_some_and(char::is_alphanumeric);
            if letter(left) || letter(right) || more || part || right == Some('%') {
                continue;
            }
            let minus = minus.is_some_and(|sign| !letter(before(text, sign.start())));
            let fraction = format!("{fraction:0<digits$}");
            let point = if fraction.is_empty() { "" } else { "." };
            let amount = format!("{}{amount}{point}{fraction}", if minus { "-" } else { "" });
            let mut confidence: f32 = if shared { 0.85 } else { 0.95 };
            if !sure {
                confidence -= 0.2;
            }
            found.push(Found::new(
                start..end,
                json!({ "amount": amount, "currency": currency }),
                confidence,
                "rule:money",
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, String, String)> {
        let amounts = Amounts::new().unwrap();
        let found = amounts.find(text).into_iter().map(|found| {
            let part = |key: &str| found.value[key].as_str().unwrap().to_owned();
            (part("amount"), part("currency"), text[found.range.clone()].to_owned())
        });
        found.collect()
    }

    #[test]
    fn both_styles_signs_codes_and_words_are_read() {
        for (text, amount, currency, content) in [
            ("€1,249.50 on", "1249.50", "EUR", "€1,249.50"),
            ("1.249,50 € on", "1249.50", "EUR", "1.249,50 €"),
            ("costs £12.00.", "12.00", "GBP", "£12.00"),
            ("49,90EUR", "49.90", "EUR", "49,90EUR"),
            ("USD 1'000", "1000.00", "USD", "USD 1'000"),
            ("1 234,56 euros", "1234.56", "EUR", "1 234,56 euros"),
            ("12 dollars", "12.00", "USD", "12 dollars"),
            ("$5", "5.00", "USD", "$5"),
            ("A$ 5.5", "5.50", "AUD", "A$ 5.5"),
            ("-€5.00", "-5.00", "EUR", "-€5.00"),
            ("¥12,000", "12000", "JPY", "¥12,000"),
            ("200.00 EUR were", "200.00", "EUR", "200.00 EUR"),
            ("CHF 20.-", "20.00", "CHF", "CHF 20"),
            ("1,000,000 GBP", "1000000.00", "GBP", "1,000,000 GBP"),
            ("(€ 12)", "12.00", "EUR", "€ 12"),
        ] {
            assert_eq!(
                of(text),
                [(amount.to_owned(), currency.to_owned(), content.to_owned())],
                "{text}"
            );
        }
        assert_eq!(of("€5 or 6 €, then $7").len(), 3);
    }

    #[test]
    fn what_only_looks_like_money_is_not_read() {
        for text in [
            "5 apples",
            "EUR",
            "12",
            "€",
            "SEUR 5x",
            "5 eurostars",
            "€1.2345",
            "$5k",
            "€5%",
            "1,2,3 €x",
            "A-20931 EURO",
        ] {
            assert!(of(text).is_empty(), "{text}: {:?}", of(text));
        }
    }

    #[test]
    fn a_single_group_of_three_costs_confidence() {
        let amounts = Amounts::new().unwrap();
        assert!(amounts.find("1.249 EUR")[0].confidence < amounts.find("1.249,00 EUR")[0].confidence);
        assert_eq!(of("1.249 EUR")[0].0, "1249.00");
    }
}

//! Currencies: their signs, words and codes, and the digits of their smaller unit.

use serde_json::{Value, json};

/// (ISO 4217 code, digits of the smaller unit)
const CODES: [(&str, usize); 44] = [
    ("AED", 2),
    ("ARS", 2),
    ("AUD", 2),
    ("BGN", 2),
    ("BRL", 2),
    ("CAD", 2),
    ("CHF", 2),
    ("CLP", 0),
    ("CNY", 2),
    ("COP", 2),
    ("CZK", 2),
    ("DKK", 2),
    ("EGP", 2),
    ("EUR", 2),
    ("GBP", 2),
    ("HKD", 2),
    ("HUF", 2),
    ("IDR", 2),
    ("ILS", 2),
    ("INR", 2),
    ("ISK", 0),
    ("JPY", 0),
    ("KES", 2),
    ("KRW", 0),
    ("KWD", 3),
    ("MAD", 2),
    ("MXN", 2),
    ("MYR", 2),
    ("NGN", 2),
    ("NOK", 2),
    ("NZD", 2),
    ("PHP", 2),
    ("PLN", 2),
    ("RON", 2),
    ("RUB", 2),
    ("SAR", 2),
    ("SEK", 2),
    ("SGD", 2),
    ("THB", 2),
    ("TRY", 2),
    ("TWD", 2),
    ("UAH", 2),
    ("USD", 2),
    ("ZAR", 2),
];

/// Signs and words, longest first where one begins another; the flag says that several currencies share it.
const SIGNS: [(&str, &str, bool); 34] = [
    ("us$", "USD", false),
    ("a$", "AUD", false),
    ("au$", "AUD", false),
    ("c$", "CAD", false),
    ("ca$", "CAD", false),
    ("nz$", "NZD", false),
    ("hk$", "HKD", false),
    ("s$", "SGD", false),
    ("r$", "BRL", false),
    ("$", "USD", true),
    ("€", "EUR", false),
    ("£", "GBP", false),
    ("¥", "JPY", true),
    ("₹", "INR", false),
    ("₩", "KRW", false),
    ("₽", "RUB", false),
    ("₺", "TRY", false),
    ("₴", "UAH", false),
    ("₪", "ILS", false),
    ("₱", "PHP", false),
    ("zł", "PLN", false),
    ("fr.", "CHF", false),
    ("rs.", "INR", true),
    ("kr", "SEK", true),
    ("kč", "CZK", false),
    ("euro", "EUR", false),
    ("euros", "EUR", false),
    ("dollar", "USD", true),
    ("dollars", "USD", true),
    ("pounds", "GBP", false),
    ("quid", "GBP", false),
    ("yen", "JPY", false),
    ("francs", "CHF", true),
    ("rupees", "INR", true),
];

/// Digits of the smaller unit; `None` for an unknown code.
pub(crate) fn minor_digits(code: &str) -> Option<usize> {
    CODES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, digits)| *digits)
}

/// The code a sign, word or code stands for, and whether it could be another.
pub(super) fn read(sign: &str) -> Option<(&'static str, bool)> {
    let lower = sign.trim().to_lowercase();
    let by_sign = SIGNS
        .iter()
        .find(|(known, ..)| *known == lower)
        .map(|(_, code, shared)| (*code, *shared));
    by_sign.or_else(|| {
        CODES
            .iter()
            .find(|(code, _)| code.eq_ignore_ascii_case(&lower))
            .map(|(code, _)| (*code, false))
    })
}

/// The signs and codes as parts of a regular expression, longest first.
pub(super) fn alternatives() -> String {
    let mut all: Vec<String> = SIGNS.iter().map(|(sign, ..)| regex::escape(sign)).collect();
    all.extend(CODES.iter().map(|(code, _)| code.to_lowercase()));
    all.sort_by_key(|sign| std::cmp::Reverse(sign.len()));
    all.join("|")
}

/// Gives an amount whose sign several currencies share the one the form names.
pub(super) fn settle(value: &mut Value, code: &str) {
    let shared = value
        .get("currency")
        .and_then(Value::as_str)
        .is_some_and(|current| SIGNS.iter().any(|(_, known, shared)| *shared && *known == current));
    let dollars = code.ends_with('D') && value["currency"] == "USD";
    let others = shared && value["currency"] != "USD";
    if dollars || others {
        value["currency"] = json!(code);
    }
}

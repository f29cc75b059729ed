//! International bank account numbers: the country's length, then the check digits (ISO 13616, ISO 7064 mod 97-10).

use super::Found;
use crate::source::before;

/// (country, length) of the SWIFT registry.
const LENGTHS: [(&str, usize); 89] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
    ("YE", 30),
];

pub(super) fn find(text: &str) -> Vec<Found> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at + 4 <= bytes.len() {
        let head = &bytes[at..at + 4];
        let starts = head[..2].iter().all(u8::is_ascii_alphabetic) && head[2..].iter().all(u8::is_ascii_digit);
        if starts
            && !before(text, at).is_some_and(char::is_alphanumeric)
            && let Some((end, value)) = read(text, at)
        {
            found.push(Found::new(at..end, value, 0.95, "rule:iban"));
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

/// The number that starts here, when country, length and check digits are right.
fn read(text: &str, start: usize) -> Option<(usize, String)> {
    let country = text.get(start..start + 2)?.to_ascii_uppercase();
    let length = LENGTHS.iter().find(|(code, _)| *code == country)?.1;
    let mut value = String::with_capacity(length);
    let mut separated = false;
    for (offset, c) in text[start..].char_indices() {
        if c.is_ascii_alphanumeric() {
            value.push(c.to_ascii_uppercase());
            separated = false;
            if value.len() == length {
                let end = start + offset + 1;
                let alone = !text[end..].chars().next().is_some_and(char::is_alphanumeric);
                return (alone && checks(&value)).then_some((end, value));
            }
        } else if matches!(c, ' ' | '-' | '.' | '\u{a0}' | '\u{202f}') && !separated {
            separated = true;
        } else {
            return None;
        }
    }
    None
}

/// The first four characters behind the rest, letters as 10 to 35: the remainder by 97 is 1.
fn checks(value: &str) -> bool {
    let rotated = value[4..].chars().chain(value[..4].chars());
    let mut remainder = 0;
    for digit in rotated.filter_map(|c| c.to_digit(36)) {
        remainder = (remainder * if digit > 9 { 100 } else { 10 } + digit) % 97;
    }
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, String)> {
        find(text)
            .into_iter()
            .map(|found| (found.value.as_str().unwrap().to_owned(), text[found.range].to_owned()))
            .collect()
    }

    #[test]
    fn right_numbers_are_found_however_they_are_grouped() {
        for content in [
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "de89 3704 0044 0532 0130 00",
            "DE89-3704-0044-0532-0130-00",
        ] {
            let text = format!("my account {content} that I use (or not)");
            assert_eq!(of(&text), [("DE89370400440532013000".to_owned(), content.to_owned())]);
        }
        for iban in [
            "GB29NWBK60161331926819",
            "FR1420041010050500013M02606",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
        ] {
            assert_eq!(of(iban).len(), 1, "{iban}");
        }
    }

    #[test]
    fn wrong_check_digits_lengths_and_countries_are_not_found() {
        for text in [
            "DE88370400440532013000",
            "DE8937040044053201300",
            "DE893704004405320130000",
            "XX89370400440532013000",
            "XDE89370400440532013000",
            "DE89  3704 0044 0532 0130 00",
            "GB29",
            "",
        ] {
            assert!(of(text).is_empty(), "{text}");
        }
    }
}

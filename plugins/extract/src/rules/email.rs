//! E-mail addresses: the dot-atom form of RFC 5322 with a domain that has a dot. Quoted local parts and address literals
//! are legal and never meant.

use regex::Regex;

use super::Found;
use crate::source::{after, before};

/// Greedy on purpose: a wrong address must be seen as a whole, not from its first right character on.
pub(super) const PATTERN: &str = r"[\p{L}0-9.!#$%&'*+/=?^_`{|}~-]+@[\p{L}0-9.-]+";

/// RFC 5321.
const MAX_LOCAL: usize = 64;
const MAX_ADDRESS: usize = 254;
const MAX_LABEL: usize = 63;

pub(super) fn find(pattern: &Regex, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for matched in pattern.find_iter(text) {
        let quotes: &[char] = &[
            '\'', '`', '*', '_', '{', '|', '/', '=', '#', '!', '&', '?', '~', '^', '%',
        ];
        let start = matched.start() + (matched.as_str().len() - matched.as_str().trim_start_matches(quotes).len());
        let address = text[start..matched.end()].trim_end_matches(['.', '-']);
        let end = start + address.len();
        let touched = before(text, start).is_some_and(|c| c == '@') || after(text, end).is_some_and(|c| c == '@');
        let Some((local, domain)) = address.split_once('@') else {
            continue;
        };
        if !touched && is_address(local, domain) {
            let value = format!("{local}@{}", domain.to_lowercase());
            found.push(Found::new(start..end, value, 0.95, "rule:email"));
        }
    }
    found
}

fn is_address(local: &str, domain: &str) -> bool {
    let local_fine = !local.is_empty()
        && local.len() <= MAX_LOCAL
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    let labels: Vec<&str> = domain.split('.').collect();
    let label_fine = |label: &&str| {
        !label.is_empty() && label.len() <= MAX_LABEL && !label.starts_with('-') && !label.ends_with('-')
    };
    let top = labels.last().copied().unwrap_or_default();
    let top_fine = top.chars().count() >= 2 && top.chars().all(char::is_alphabetic) || top.starts_with("xn--");
    local_fine
        && labels.len() >= 2
        && labels.iter().all(label_fine)
        && top_fine
        && local.len() + 1 + domain.len() <= MAX_ADDRESS
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
    fn addresses_are_found_and_their_domains_lowered() {
        for (text, expected) in [
            ("mail me: a.b+c@Example.ORG.", "a.b+c@example.org"),
            ("<x@y.co>", "x@y.co"),
            ("'jane@example.com'", "jane@example.com"),
            (
                "mailto:jane_doe@mail.example.co.uk, thanks",
                "jane_doe@mail.example.co.uk",
            ),
            ("jörg@exämple.de", "jörg@exämple.de"),
            ("o'neil@example.ie", "o'neil@example.ie"),
            ("(a@b.example)", "a@b.example"),
        ] {
            assert_eq!(of(text), [expected], "{text}");
        }
        assert_eq!(of("a@b.de;c@d.de and e@f.de"), ["a@b.de", "c@d.de", "e@f.de"]);
    }

    #[test]
    fn what_is_no_address_is_not_found() {
        for text in [
            "a@b",
            "a..b@c.de",
            ".a@b.de",
            "a.@b.de",
            "@b.de",
            "a@-b.de",
            "a@b..de",
            "a@b.c",
            "a@b.1",
            "user@@b.de",
            "a@b.de@c.de",
            "meet me @ example.com",
            "5 @ 3.50",
        ] {
            assert!(of(text).is_empty(), "{text}: {:?}", of(text));
        }
        assert!(of(&format!("{}@b.de", "a".repeat(65))).is_empty());
    }
}

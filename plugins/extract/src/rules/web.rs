//! Web addresses and IP addresses. A bare `example.com` is not taken for an address: sentences without a blank after the
//! full stop look the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use regex::Regex;

use super::Found;
use crate::source::{after, before};

pub(super) const URL: &str = r#"(?i)\b(?:https?://|ftp://|www\.)[^\s<>"“”«»]+"#;

pub(super) fn urls(pattern: &Regex, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for matched in pattern.find_iter(text) {
        let mut content = matched.as_str();
        loop {
            let shorter = content.trim_end_matches(['.', ',', ';', ':', '!', '?', '\'', '*', '’', '…']);
            // A closing bracket belongs to the address only when it was opened in it.
            let closed = [('(', ')'), ('[', ']'), ('{', '}')].iter().find_map(|(open, close)| {
                let unbalanced = shorter.matches(*close).count() > shorter.matches(*open).count();
                (unbalanced && shorter.ends_with(*close)).then(|| shorter.trim_end_matches(*close))
            });
            let next = closed.unwrap_or(shorter);
            if next.len() == content.len() {
                break;
            }
            content = next;
        }
        let (scheme, rest) = content
            .split_once("://")
            .map_or(("", content), |(scheme, rest)| (scheme, rest));
        let host_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(host_end);
        let bare = host.rsplit('@').next().unwrap_or(host);
        let name = bare.split(':').next().unwrap_or(bare);
        if !is_host(name) {
            continue;
        }
        let scheme = if scheme.is_empty() {
            "https".to_owned()
        } else {
            scheme.to_ascii_lowercase()
        };
        let value = format!("{scheme}://{}{path}", host.to_lowercase());
        found.push(Found::new(
            matched.start()..matched.start() + content.len(),
            value,
            0.95,
            "rule:url",
        ));
    }
    found
}

fn is_host(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let fine = |label: &&str| {
        let inner = label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let enough = labels.len() >= if labels[0].eq_ignore_ascii_case("www") { 3 } else { 2 };
    (enough || name.eq_ignore_ascii_case("localhost")) && labels.iter().all(fine)
}

pub(super) fn addresses(text: &str) -> Vec<Found> {
    let part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find(part) {
        let start = at + offset;
        let end = text[start..]
            .find(|c| !part(c))
            .map_or(text.len(), |length| start + length);
        at = end;
        let touched = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        if touched(before(text, start)) || touched(after(text, end)) {
            continue;
        }
        // Punctuation of the sentence; `::1` starts and `fe80::` ends with colons of its own.
        let content = text[start..end].trim_end_matches('.');
        for content in [content, content.trim_end_matches(':')] {
            let value = if content.matches('.').count() == 3 && !content.contains(':') {
                content
                    .parse::<Ipv4Addr>()
                    .ok()
                    .map(|address| (address.to_string(), 0.9))
            } else if content.matches(':').count() >= 2 && content.len() > 2 {
                content
                    .parse::<Ipv6Addr>()
                    .ok()
                    .map(|address| (address.to_string(), 0.95))
            } else {
                None
            };
            if let Some((value, confidence)) = value {
                found.push(Found::new(start..start + content.len(), value, confidence, "rule:ip"));
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Vec<String> {
        let pattern = Regex::new(URL).unwrap();
        urls(&pattern, text)
            .into_iter()
            .map(|found| found.value.as_str().unwrap().to_owned())
            .collect()
    }

    fn ip(text: &str) -> Vec<String> {
        addresses(text)
            .into_iter()
            .map(|found| found.value.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn urls_end_where_the_sentence_goes_on() {
        for (text, expected) in [
            (
                "see https://Example.com/A_(b)?q=1#x.",
                "https://example.com/A_(b)?q=1#x",
            ),
            ("(http://example.com/a)", "http://example.com/a"),
            ("www.example.org, thanks", "https://www.example.org"),
            ("HTTPS://EXAMPLE.COM:8080/x!", "https://example.com:8080/x"),
            ("“https://exämple.de”", "https://exämple.de"),
        ] {
            assert_eq!(url(text), [expected], "{text}");
        }
        for text in [
            "https://",
            "http://-x.de",
            "www.",
            "www.a",
            "example.com",
            "http://a..b",
            "xhttp://example.com",
        ] {
            assert!(url(text).is_empty(), "{text}: {:?}", url(text));
        }
    }

    #[test]
    fn ip_addresses_are_parsed() {
        assert_eq!(ip("from 192.168.0.1."), ["192.168.0.1"]);
        assert_eq!(ip("[2001:DB8::1]:"), ["2001:db8::1"]);
        assert_eq!(ip("::1 and fe80::"), ["::1", "fe80::"]);
        for text in [
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "12:30:45",
            "v1.2.3.4",
            "::",
            "01.02.03.04",
            "a:b",
        ] {
            assert!(ip(text).is_empty(), "{text}: {:?}", ip(text));
        }
    }
}

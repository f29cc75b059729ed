//! Texts that the form itself describes: a regular expression, or a list of values.

use regex::Regex;

use super::Found;
use crate::source::stands_alone;

/// What the pattern matches; its first group is the value when it has one. A match inside a longer word or number is a
/// part of something else and not an extraction.
pub(super) fn by_pattern(pattern: &Regex, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for captures in pattern.captures_iter(text) {
        let Some(matched) = captures.get(1).or_else(|| captures.get(0)) else {
            continue;
        };
        if !matched.as_str().trim().is_empty() && stands_alone(text, &matched.range()) {
            found.push(Found::new(matched.range(), matched.as_str(), 0.9, "rule:pattern"));
        }
    }
    found
}

/// The values of the list that stand in the text as words of their own, whatever their case and blanks; where two overlap,
/// the longer one.
pub(super) fn by_options(options: &[String], text: &str) -> Vec<Found> {
    let (folded, places) = fold(text);
    let mut longest_first: Vec<(&String, String)> = options
        .iter()
        .map(|option| (option, fold(option.trim()).0))
        .filter(|(_, folded)| !folded.is_empty())
        .collect();
    longest_first.sort_by_key(|(_, folded)| std::cmp::Reverse(folded.len()));
    let mut found: Vec<Found> = Vec::new();
    for (option, wanted) in longest_first {
        for (at, _) in folded.match_indices(&wanted) {
            let range = places[at].0..places[at + wanted.len() - 1].1;
            let taken = found
                .iter()
                .any(|other| other.range.start < range.end && range.start < other.range.end);
            if !taken && stands_alone(text, &range) {
                found.push(Found::new(range, option.trim(), 0.9, "rule:enum"));
            }
        }
    }
    found.sort_by_key(|found| found.range.start);
    found
}

/// Lower case with single blanks; for each byte of it, the range of the character it came from.
pub(crate) fn fold(text: &str) -> (String, Vec<(usize, usize)>) {
    let mut folded = String::with_capacity(text.len());
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        let lower: String = match c {
            c if c.is_whitespace() => {
                if folded.ends_with(' ') {
                    if let Some(last) = places.last_mut() {
                        last.1 = end;
                    }
                    continue;
                }
                " ".to_owned()
            }
            '’' => "'".to_owned(),
            c => c.to_lowercase().collect(),
        };
        places.extend(std::iter::repeat_n((at, end), lower.len()));
        folded.push_str(&lower);
    }
    (folded, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_whole_words_and_their_first_group() {
        let pattern = Regex::new("[A-Z]{1,2}-[0-9]{4,8}").unwrap();
        let text = "A-20931, BX-1234 but not XA-20931 nor A-123456789";
        let found: Vec<&str> = by_pattern(&pattern, text)
            .into_iter()
            .map(|found| &text[found.range])
            .collect();
        assert_eq!(found, ["A-20931", "BX-1234", "XA-20931"]);
        let pattern = Regex::new("order ([0-9]+)").unwrap();
        let found = by_pattern(&pattern, "my order 4711 is late");
        assert_eq!((found[0].value.as_str(), found[0].range.clone()), (Some("4711"), 9..13));
    }

    #[test]
    fn options_match_words_whatever_their_case_and_blanks() {
        let options = ["credit card".to_owned(), "card".to_owned(), "São Paulo".to_owned()];
        let text = "My CREDIT\n card, not cardboard, from SÃO PAULO; card";
        let found: Vec<(String, &str)> = by_options(&options, text)
            .into_iter()
            .map(|found| (found.value.as_str().unwrap().to_owned(), &text[found.range]))
            .collect();
        assert_eq!(
            found,
            [
                ("credit card".to_owned(), "CREDIT\n card"),
                ("São Paulo".to_owned(), "SÃO PAULO"),
                ("card".to_owned(), "card"),
            ]
        );
    }
}

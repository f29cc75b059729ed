//! A text of the submission, and the arithmetic of places in it.
//!
//! Inside the plugin places are byte ranges, as Rust's strings want them; they become code points once, on the way out.

use std::ops::Range;

use formwork_plugin::Span;

/// A string of the submission.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// JSON Pointer to it.
    pub(crate) pointer: String,
    /// The string.
    pub(crate) text: String,
}

impl Source {
    /// The place as the contract wants it: in Unicode code points.
    pub(crate) fn span(&self, range: &Range<usize>) -> Span {
        let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        Span {
            pointer: self.pointer.clone(),
            offset: count(&self.text[..range.start]),
            length: count(&self.text[range.clone()]),
        }
    }
}

/// The character before a place.
pub(crate) fn before(text: &str, at: usize) -> Option<char> {
    text[..at].chars().next_back()
}

/// The character at a place.
pub(crate) fn after(text: &str, at: usize) -> Option<char> {
    text[at..].chars().next()
}

/// Whether no letter or digit touches the range: it is not a part of a longer word or number.
pub(crate) fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let starts = word(after(text, range.start)) && word(before(text, range.start));
    let ends = word(before(text, range.end)) && word(after(text, range.end));
    !starts && !ends
}

/// Whether two ranges share a byte.
pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_count_code_points() {
        let source = Source {
            pointer: "/m".into(),
            text: "Señor 🙂 São Paulo".into(),
        };
        let start = source.text.find("São").unwrap();
        let span = source.span(&(start..source.text.len()));
        assert_eq!((span.offset, span.length), (8, 9));
    }

    #[test]
    fn parts_of_words_do_not_stand_alone() {
        let text = "abc12 12 (12)";
        assert!(!stands_alone(text, &(3..5)));
        assert!(stands_alone(text, &(6..8)));
        assert!(stands_alone(text, &(10..12)));
    }
}

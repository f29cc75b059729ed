//! Whether what a plugin says it found stands where it says.
//!
//! An answer may hold hundreds of thousands of spans into a megabyte of text. Counting code points from the beginning for
//! each of them would take hours; so each text is measured once, and the bytes compared are counted.

use std::collections::HashMap;

use formwork_bindings::v1::types as wit;
use serde_json::Value;

use crate::CallError;
use crate::convert::bad;
use crate::limits::MAX_SPAN_BYTES;

/// Code points between two places of a text that are remembered.
const STRIDE: usize = 64;

/// The texts of a submission that spans point to.
pub(crate) struct Spans<'a> {
    data: &'a Value,
    texts: HashMap<String, Text<'a>>,
    /// Bytes that may still be compared.
    left: usize,
}

impl<'a> Spans<'a> {
    pub(crate) fn new(data: &'a Value) -> Self {
        Self {
            data,
            texts: HashMap::new(),
            left: MAX_SPAN_BYTES,
        }
    }

    /// Checks that the field's content stands in this span.
    pub(crate) fn check(&mut self, span: &wit::Span, field: &wit::Field) -> Result<(), CallError> {
        self.left = self
            .left
            .checked_sub(field.content.len() + span.pointer.len())
            .ok_or_else(|| bad(format!("its spans hold more than {MAX_SPAN_BYTES} bytes together")))?;
        if !self.texts.contains_key(&span.pointer) {
            let text = self
                .data
                .pointer(&span.pointer)
                .and_then(Value::as_str)
                .ok_or_else(|| {
                    bad(format!(
                        "a span of field `{}` points to `{}`, where no string stands",
                        field.name, span.pointer
                    ))
                })?;
            self.texts.insert(span.pointer.clone(), Text::new(text));
        }
        let stands = self
            .texts
            .get(&span.pointer)
            .is_some_and(|text| text.has(span, &field.content));
        if stands {
            return Ok(());
        }
        Err(bad(format!(
            "field `{}`: its content does not stand at offset {} of `{}`",
            field.name, span.offset, span.pointer
        )))
    }
}

/// A text with the byte offset of every [`STRIDE`]th code point.
struct Text<'a> {
    text: &'a str,
    places: Vec<usize>,
}

impl<'a> Text<'a> {
    fn new(text: &'a str) -> Self {
        let places = text.char_indices().step_by(STRIDE).map(|(at, _)| at).collect();
        Self { text, places }
    }

    /// Whether the span is exactly `content`.
    fn has(&self, span: &wit::Span, content: &str) -> bool {
        let length = span.length as usize;
        // A code point has one to four bytes: most lies are seen without counting.
        if length == 0 || content.len() < length || content.len() / 4 > length {
            return false;
        }
        self.from(span.offset as usize)
            .is_some_and(|rest| rest.starts_with(content) && content.chars().count() == length)
    }

    /// The text from a code point on.
    fn from(&self, offset: usize) -> Option<&'a str> {
        let near = self.text.get(*self.places.get(offset / STRIDE)?..)?;
        let (at, _) = near.char_indices().nth(offset % STRIDE)?;
        near.get(at..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: u32, length: u32) -> wit::Span {
        wit::Span {
            pointer: String::new(),
            offset,
            length,
        }
    }

    #[test]
    fn a_span_is_what_counting_code_points_says() {
        for text in ["", "good", "é✓𝄞a".repeat(100).as_str(), "x".repeat(200).as_str()] {
            let measured = Text::new(text);
            for offset in 0..text.chars().count() + 2 {
                for length in [0, 1, 2, 63, 64, 65, 500] {
                    let counted: String = text.chars().skip(offset).take(length).collect();
                    let (offset, length) = (u32::try_from(offset).unwrap(), u32::try_from(length).unwrap());
                    let whole = length > 0 && counted.chars().count() == length as usize;
                    assert_eq!(
                        measured.has(&span(offset, length), &counted),
                        whole,
                        "{text} {offset} {length}"
                    );
                    assert!(!measured.has(&span(offset, length), &format!("{counted}?")));
                }
            }
        }
    }
}

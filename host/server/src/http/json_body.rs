//! Reading JSON bodies from strangers.
//!
//! **Problem.** A body may be endless, not JSON, ten thousand levels deep, or say two things under one key. **Promise.**
//! Each gets its own answer with the place; nothing is parsed recursively before its depth is known; what is accepted is
//! passed on byte for byte. **Cost.** Two passes over the text (depth, then syntax and keys): a few milliseconds for the
//! largest body. **Rejected.** Parsing into a tree and writing it again: numbers would change their spelling, and the last
//! of two equal keys would silently win.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::problem::{Code, Place, Problem};

/// Times the limit up to which a body that is too large is read and thrown away, so that a client that does not listen
/// while it sends still gets the answer; beyond it the connection is closed.
const DISCARD_FACTOR: u64 = 8;

/// Bounds of a body.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes.
    pub bytes: usize,
    /// Most levels of arrays and objects.
    pub depth: usize,
}

/// Reads a body that is JSON, and answers its text as sent.
///
/// # Errors
/// `unsupported-media-type`, `body-too-large`, `malformed-json`, `json-too-deep`, `duplicate-key`.
pub async fn read(headers: &HeaderMap, body: Body, limits: Limits) -> Result<String, Problem> {
    check_media_type(headers, "application/json", |essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })?;
    let bytes = collect(headers, body, limits.bytes).await?;
    document(bytes, limits.depth)
}

/// A document of a body of many, with its line from 1: its text as sent, or what is wrong with it alone.
pub type Line = (usize, Result<String, Problem>);

/// Reads a body that has one JSON document a line; empty lines are passed over.
///
/// # Errors
/// `unsupported-media-type`, `body-too-large`: the whole body. What is wrong with one line is that line's.
pub async fn read_lines(headers: &HeaderMap, body: Body, whole: usize, each: Limits) -> Result<Vec<Line>, Problem> {
    check_media_type(headers, "application/x-ndjson", |essence| {
        ["application/x-ndjson", "application/jsonl", "application/json-lines"].contains(&essence)
    })?;
    let bytes = collect(headers, body, whole).await?;
    let lines = (1..).zip(bytes.split(|&byte| byte == b'\n'));
    let documents = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    Ok(documents
        .map(|(number, line)| {
            let document = match line.len() > each.bytes {
                true => Err(too_large(each.bytes)),
                false => document(line.to_vec(), each.depth),
            };
            (number, document)
        })
        .collect())
}

fn document(bytes: Vec<u8>, depth: usize) -> Result<String, Problem> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        malformed(format!("invalid UTF-8 at byte {at}")).with("byte", at)
    })?;
    check(&text, depth)?;
    Ok(text)
}

/// Checks that a text is one JSON document within this depth whose objects have no key twice.
///
/// # Errors
/// `malformed-json`, `json-too-deep`, `duplicate-key`.
pub fn check(text: &str, max_depth: usize) -> Result<(), Problem> {
    if let Some(byte) = too_deep(text.as_bytes(), max_depth) {
        let detail = format!("nested deeper than {max_depth} levels at byte {byte}");
        return Err(Problem::new(Code::JsonTooDeep, detail)
            .with("limit", max_depth)
            .with("byte", byte));
    }
    let mut duplicate = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let unique = Unique {
        pointer: &mut String::new(),
        duplicate: &mut duplicate,
    };
    match unique.deserialize(&mut deserializer).and_then(|()| deserializer.end()) {
        Ok(()) => Ok(()),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            if let Some(pointer) = duplicate {
                let message =
                    format!("the key `{pointer}` is there twice, the second time at line {line} column {column}");
                let place = Place {
                    pointer,
                    code: "duplicate-key".into(),
                    message: message.clone(),
                };
                return Err(Problem::new(Code::DuplicateKey, message).places(vec![place]));
            }
            Err(malformed(error.to_string()).with("line", line).with("column", column))
        }
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(Code::MalformedJson, detail)
}

fn check_media_type(headers: &HeaderMap, wanted: &str, fits: impl Fn(&str) -> bool) -> Result<(), Problem> {
    let refuse = |detail: String| Err(Problem::new(Code::UnsupportedMediaType, detail));
    let text = |name| {
        headers
            .get(name)
            .map(|value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()))
    };
    let Some(media_type) = text(header::CONTENT_TYPE) else {
        return refuse(format!("no content-type header, send `content-type: {wanted}`"));
    };
    let essence = media_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if !fits(&essence) {
        return refuse(format!("content-type is `{}`, send `{wanted}`", essence.escape_debug()));
    }
    match text(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => refuse(format!(
            "content-encoding `{}` is not supported, send the body as it is",
            encoding.escape_debug()
        )),
        _ => Ok(()),
    }
}

/// Reads a body that is JSON of a known shape.
///
/// # Errors
/// As [`read`], and [`Code::InvalidRequest`] with the place of what does not fit.
pub(super) async fn typed<T: serde::de::DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    limits: Limits,
) -> Result<T, Problem> {
    let text = read(headers, body, limits).await?;
    let mut source = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut source).map_err(|error| {
        let place = match error.path().to_string() {
            root if root == "." => "body".to_owned(),
            path => format!("body, at `{path}`"),
        };
        Problem::new(Code::InvalidRequest, format!("{place}: {}", error.inner()))
    })
}

/// Reads a body of at most `limit` bytes, whatever it is.
pub(super) async fn collect(headers: &HeaderMap, body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let limit_wide = limit as u64;
    let discard = limit_wide.saturating_mul(DISCARD_FACTOR);
    if announced.is_some_and(|length| length > discard) {
        return Err(too_large(limit));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(announced.unwrap_or(0).min(limit_wide)).unwrap_or(0));
    let mut received = 0_u64;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::new(Code::InvalidRequest, format!("reading the body: {error}")))?;
        received += chunk.len() as u64;
        if received > discard {
            return Err(too_large(limit));
        }
        if received <= limit_wide {
            bytes.extend_from_slice(&chunk);
        }
    }
    if received > limit_wide {
        Err(too_large(limit))
    } else {
        Ok(bytes)
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Code::BodyTooLarge, format!("the body has more than {limit} bytes")).with("limit", limit)
}

/// The byte at which brackets nest deeper than `limit`, if they do. Brackets inside strings do not count; whether the
/// text is JSON at all is not looked at.
fn too_deep(text: &[u8], limit: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for (position, byte) in text.iter().enumerate() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return Some(position);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Walks a value and stops at the first key that an object has twice.
struct Unique<'a> {
    /// Where the walk is.
    pointer: &'a mut String,
    /// Where the second key is, once found.
    duplicate: &'a mut Option<String>,
}

impl Unique<'_> {
    /// The same walk one level down, at `token`.
    fn inside<T>(&mut self, token: &str, walk: impl FnOnce(Unique<'_>) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
        let result = walk(Unique {
            pointer: self.pointer,
            duplicate: self.duplicate,
        });
        self.pointer.truncate(length);
        result
    }
}

impl<'de> DeserializeSeed<'de> for Unique<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        while self
            .inside(&index.to_string(), |item| items.next_element_seed(item))?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut seen: HashSet<Cow<'de, str>> = HashSet::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let walked = self.inside(&key, |value| {
                if seen.contains(&key) {
                    *value.duplicate = Some(value.pointer.clone());
                    return Err(A::Error::custom("duplicate key"));
                }
                entries.next_value_seed(value)
            });
            walked?;
            seen.insert(key);
        }
        Ok(())
    }
}

/// A key, borrowed from the text where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: usize = 64;

    fn code(text: &str) -> Option<Code> {
        check(text, DEPTH).err().map(|problem| problem.code())
    }

    #[test]
    fn documents_pass_whatever_their_shape() {
        for text in [
            "null",
            "-1.5e3",
            "\"[[[\"",
            "[]",
            "{\"a\":{\"a\":[{\"a\":1},{\"a\":2}]}}",
            " {\"\\u0061\":1} ",
        ] {
            assert_eq!(code(text), None, "{text}");
        }
    }

    #[test]
    fn faults_are_told_apart() {
        for text in [
            "",
            "{",
            "{\"a\":1,}",
            "[1] 2",
            "{'a':1}",
            "\"\\ud800\"",
            "1e999",
            "\u{feff}{}",
            "nul",
        ] {
            assert_eq!(code(text), Some(Code::MalformedJson), "{text:?}");
        }
        assert_eq!(code("{\"a\":1,\"\\u0061\":2}"), Some(Code::DuplicateKey));
        assert_eq!(code("[{\"x\":{\"k\":1,\"k\":1}}]"), Some(Code::DuplicateKey));
    }

    #[test]
    fn depth_is_checked_before_anything_is_parsed() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert_eq!(code(&nested(DEPTH)), None);
        assert_eq!(code(&nested(DEPTH + 1)), Some(Code::JsonTooDeep));
        assert_eq!(code(&nested(1_000_000)), Some(Code::JsonTooDeep));
        assert_eq!(code(&"{\"a\":".repeat(1_000_000)), Some(Code::JsonTooDeep));
        assert_eq!(code(&format!("\"\\\"{}\"", "[".repeat(1_000))), None);
    }
}

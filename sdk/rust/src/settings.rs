//! Settings into a typed value, with the place of every mistake.

use serde::de::DeserializeOwned;

use crate::bindings::types::Error;
use crate::pointer::pointer_token;

/// Parses a step's settings. Absent settings (`null`) count as `{}`.
///
/// # Errors
/// `invalid-settings` with a pointer to the value that does not fit.
pub fn parse_settings<T: DeserializeOwned>(settings: &str) -> Result<T, Error> {
    let text = if settings.trim() == "null" { "{}" } else { settings };
    // serde would also read a struct from a list of its members.
    if !text.trim_start().starts_with('{') {
        return Err(Error::settings("", "type", "must be an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let mut pointer = String::new();
        for segment in error.path() {
            use serde_path_to_error::Segment;
            match segment {
                Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
                Segment::Map { key } => {
                    pointer.push('/');
                    pointer.push_str(&pointer_token(key));
                }
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        Error::settings(pointer, "settings", strip_position(&error.inner().to_string()))
    })
}

/// serde_json ends its messages with a line and column of a text the author never saw.
fn strip_position(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

//! The texts of a submission that a step looks at.

use serde_json::Value;

use crate::pointer::pointer_token;

/// A string of the submission's data and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// JSON Pointer to the string.
    pub pointer: String,
    /// The string.
    pub content: String,
}

/// The strings at `pointers`; a pointer to an object or an array gives every string below it, in document order.
/// Missing members and other types give nothing. No pointers means the whole document.
pub fn texts_at(data: &Value, pointers: &[String]) -> Vec<Text> {
    let mut texts = Vec::new();
    if pointers.is_empty() {
        collect(data, String::new(), &mut texts);
    }
    for pointer in pointers {
        if let Some(value) = data.pointer(pointer) {
            collect(value, pointer.clone(), &mut texts);
        }
    }
    texts
}

fn collect(value: &Value, pointer: String, texts: &mut Vec<Text>) {
    match value {
        Value::String(content) if !content.trim().is_empty() => {
            texts.push(Text {
                pointer,
                content: content.clone(),
            });
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{pointer}/{index}"), texts);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                collect(member, format!("{pointer}/{}", pointer_token(key)), texts);
            }
        }
        _ => {}
    }
}

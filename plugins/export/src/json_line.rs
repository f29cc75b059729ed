//! JSON Lines: one object a submission, nothing in it changed but white space between values.

use formwork_plugin::Error;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::columns::Column;
use crate::record::{Record, not_json};

pub(crate) struct JsonLines {
    /// The chosen members; without, the whole submission.
    columns: Option<Vec<Column>>,
}

impl JsonLines {
    pub(crate) fn new(columns: Option<Vec<Column>>) -> Self {
        Self { columns }
    }

    /// Appends a record's line.
    pub(crate) fn write(&self, record: &Record, out: &mut String) -> Result<(), Error> {
        match &self.columns {
            Some(columns) => {
                let mut object = Map::new();
                for column in columns {
                    object.insert(column.name.clone(), column.value(record)?);
                }
                out.push_str(&Value::Object(object).to_string());
            }
            None => write_whole(record, out)?,
        }
        out.push('\n');
        Ok(())
    }
}

fn write_whole(record: &Record, out: &mut String) -> Result<(), Error> {
    out.push_str("{\"id\":");
    out.push_str(&quoted(record.id()));
    out.push_str(",\"submitted_at\":");
    out.push_str(&quoted(record.submitted_at()));
    out.push_str(",\"data\":");
    let _: IgnoredAny = serde_json::from_str(record.data_text()).map_err(|error| not_json(&error))?;
    push_compact(record.data_text(), out);
    out.push_str(",\"results\":{");
    for (index, result) in record.result_texts().iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&quoted(&result.step));
        out.push(':');
        push_compact(&result.output, out);
    }
    out.push_str("}}");
    Ok(())
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// Copies a JSON text without the white space between its tokens.
fn push_compact(json: &str, out: &mut String) {
    let mut in_text = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_text {
            out.push(c);
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.push(c);
            in_text = c == '"';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_and_everything_else_stays() {
        let mut out = String::new();
        push_compact("{ \"a b\\\" \\\\\" :\n [ 1.10,\t\"x\\n y\" ] }", &mut out);
        assert_eq!(out, "{\"a b\\\" \\\\\":[1.10,\"x\\n y\"]}");
    }
}

//! The step's settings, checked.

use std::collections::HashSet;

use formwork_plugin::{Error, parse_settings};
use serde::Deserialize;

use crate::columns::{Column, Source};
use crate::csv_line::Style;

/// Most columns of a form: spreadsheets end at some ten thousand.
pub(crate) const MAX_COLUMNS: usize = 1_000;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Jsonl,
    Csv,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Meta {
    Id,
    SubmittedAt,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawColumn {
    name: String,
    pointer: Option<String>,
    result: Option<String>,
    meta: Option<Meta>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    #[serde(default)]
    format: Format,
    columns: Option<Vec<RawColumn>>,
    delimiter: Option<String>,
    header: Option<bool>,
    formula_guard: Option<bool>,
}

/// What the form asks for.
#[derive(Debug)]
pub(crate) enum Settings {
    Csv { columns: Option<Vec<Column>>, style: Style },
    JsonLines { columns: Option<Vec<Column>> },
}

impl Settings {
    /// Parses and checks.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        let raw: RawSettings = parse_settings(settings)?;
        let columns = raw.columns.map(columns).transpose()?;
        if raw.format == Format::Csv {
            let style = Style {
                delimiter: delimiter(raw.delimiter.as_deref().unwrap_or(","))?,
                header: raw.header.unwrap_or(true),
                formula_guard: raw.formula_guard.unwrap_or(true),
            };
            return Ok(Self::Csv { columns, style });
        }
        let foreign = [
            ("delimiter", raw.delimiter.is_some()),
            ("header", raw.header.is_some()),
            ("formula_guard", raw.formula_guard.is_some()),
        ];
        match foreign.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::settings(
                format!("/{name}"),
                "format",
                format!("`{name}` is only for csv: leave it out or set \"format\": \"csv\""),
            )),
            None => Ok(Self::JsonLines { columns }),
        }
    }
}

fn columns(raw: Vec<RawColumn>) -> Result<Vec<Column>, Error> {
    if raw.is_empty() || raw.len() > MAX_COLUMNS {
        let message = format!(
            "must hold 1 to {MAX_COLUMNS} columns, got {}; leave it out for the default",
            raw.len()
        );
        return Err(Error::settings("/columns", "range", message));
    }
    let mut names = HashSet::new();
    let mut columns = Vec::with_capacity(raw.len());
    for (index, column) in raw.into_iter().enumerate() {
        let at = format!("/columns/{index}");
        if column.name.is_empty() {
            return Err(Error::settings(format!("{at}/name"), "empty", "must not be empty"));
        }
        if !names.insert(column.name.clone()) {
            let message = format!("`{}` names two columns: rename one", column.name);
            return Err(Error::settings(format!("{at}/name"), "duplicate", message));
        }
        if let Some(message) = column.pointer.as_deref().and_then(wrong_pointer) {
            return Err(Error::settings(format!("{at}/pointer"), "pointer", message));
        }
        let source = match (column.meta, column.result, column.pointer) {
            (Some(Meta::Id), None, None) => Source::Id,
            (Some(Meta::SubmittedAt), None, None) => Source::SubmittedAt,
            (None, Some(step), pointer) => Source::Result {
                step,
                pointer: pointer.unwrap_or_default(),
            },
            (None, None, Some(pointer)) => Source::Data { pointer },
            _ => {
                let message =
                    "needs one source: `pointer` into the data, `result` with an optional `pointer`, or `meta`";
                return Err(Error::settings(at, "source", message));
            }
        };
        columns.push(Column {
            name: column.name,
            source,
        });
    }
    Ok(columns)
}

/// What is wrong with a JSON Pointer (RFC 6901), if anything.
fn wrong_pointer(pointer: &str) -> Option<String> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Some(format!(
            "`{pointer}` is no JSON Pointer: it must start with `/`, for example `/{pointer}`"
        ));
    }
    let bytes = pointer.as_bytes();
    let escaped = |index: usize| matches!(bytes.get(index + 1), Some(b'0' | b'1'));
    let lone = bytes
        .iter()
        .enumerate()
        .any(|(index, byte)| *byte == b'~' && !escaped(index));
    lone.then(|| format!("`{pointer}` is no JSON Pointer: write `~` as `~0` and a `/` in a name as `~1`"))
}

fn delimiter(text: &str) -> Result<char, Error> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '"' | '\r' | '\n' | '\0') => {
            Ok(c)
        }
        _ => Err(Error::settings(
            "/delimiter",
            "delimiter",
            "must be one ASCII character that is no letter, digit, quote or line break, for example \";\" or \"\\t\"",
        )),
    }
}

//! Laying one layer of configuration over another.
//!
//! Tables are merged key by key, everything else (lists too) is replaced. What the lower layers do not have is unknown,
//! except in [`OPEN`] tables, whose keys are names that operators choose.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::{ConfigError, FILE_VARIABLE, defaults};

/// Tables whose keys are chosen by operators.
const OPEN: [&str; 1] = ["plugins.grants"];

/// What every variable starts with.
const PREFIX: &str = "FORMWORK_";

/// Between two levels of a key in a variable's name.
const SEPARATOR: &str = "__";

/// Sets `log.filter` under the name that people try first.
const LOG_VARIABLE: &str = "FORMWORK_LOG";

/// Variables that are not configuration keys: where files lie, what the command line and the tests use.
const RESERVED: [&str; 8] = [
    FILE_VARIABLE,
    defaults::CACHE_VARIABLE,
    LOG_VARIABLE,
    "FORMWORK_SERVER",
    "FORMWORK_TOKEN",
    "FORMWORK_URL",
    "FORMWORK_TEST_DATA",
    "FORMWORK_GUEST_RUSTC",
];

/// Edits that make one key another at most, for it to be suggested.
const MAX_TYPING_ERRORS: usize = 4;

pub(super) fn merge_file(effective: &mut Table, path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    merge_text(effective, &text, path)
}

pub(super) fn merge_text(effective: &mut Table, text: &str, path: &Path) -> Result<(), ConfigError> {
    let layer: Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim().to_owned(),
    })?;
    let known = keys(effective);
    merge(effective, layer, "", &path.display().to_string(), &known)
}

fn merge(into: &mut Table, layer: Table, at: &str, from: &str, known: &[String]) -> Result<(), ConfigError> {
    let open = OPEN.contains(&at);
    for (name, value) in layer {
        let key = join(at, &name);
        match (into.get_mut(&name), value) {
            (None, value) if open => drop(into.insert(name, value)),
            (None, _) => {
                return Err(ConfigError::UnknownKey {
                    from: from.into(),
                    nearest: nearest(&key, known),
                    key,
                });
            }
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above, &key, from, known)?,
            (Some(below), above) => {
                if !same_type(below, &above) {
                    let message = format!("must be {}, got {}", named(below), named(&above));
                    return Err(ConfigError::Value {
                        from: from.into(),
                        key,
                        message,
                    });
                }
                *below = above;
            }
        }
    }
    Ok(())
}

/// Lays `FORMWORK_…` variables over the rest; answers what looks like a mistake and may not be one.
pub(super) fn merge_environment(
    effective: &mut Table,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<String>, ConfigError> {
    let known = keys(effective);
    let mut warnings = Vec::new();
    for (variable, text) in environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        if RESERVED.contains(&variable.as_str()) && variable != LOG_VARIABLE {
            continue;
        }
        let key = match variable.as_str() {
            LOG_VARIABLE => "log.filter".to_owned(),
            _ => rest.to_lowercase().replace(SEPARATOR, "."),
        };
        let (at, name) = key.rsplit_once('.').unwrap_or(("", &key));
        let table = if at.is_empty() {
            Some(&mut *effective)
        } else {
            table_at(effective, at)
        };
        let open = OPEN.contains(&at);
        let Some(table) = table.filter(|table| open || table.contains_key(name)) else {
            // Orchestrators put variables such as FORMWORK_SERVICE_HOST into every container beside a service of that
            // name: only what has the form of a nested key is certainly meant for us.
            if !rest.contains(SEPARATOR) {
                warnings.push(format!(
                    "the variable {variable} names no configuration key and is ignored"
                ));
                continue;
            }
            return Err(ConfigError::UnknownKey {
                from: variable.clone(),
                nearest: nearest(&key, &known),
                key,
            });
        };
        let list = Value::Array(Vec::new());
        let value = parse(text, table.get(name).unwrap_or(&list)).map_err(|message| ConfigError::Value {
            from: variable.clone(),
            key: key.clone(),
            message,
        })?;
        table.insert(name.to_owned(), value);
    }
    Ok(warnings)
}

/// A variable's text as the type that its key has.
fn parse(text: &str, like: &Value) -> Result<Value, String> {
    let wrong = || format!("must be {}, got {text:?}", named(like));
    match like {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().map(Value::Integer).map_err(|_| wrong()),
        Value::Float(_) => text.trim().parse().map(Value::Float).map_err(|_| wrong()),
        Value::Boolean(_) => text.trim().parse().map(Value::Boolean).map_err(|_| wrong()),
        // `FORMWORK_ROLES=api,high`: names need no brackets.
        Value::Array(names) if names.iter().any(Value::is_str) && !text.trim_start().starts_with('[') => {
            let names = text.split(',').map(|name| Value::String(name.trim().to_owned()));
            Ok(Value::Array(names.collect()))
        }
        _ => {
            let wrapped: Table = toml::from_str(&format!("value = {text}")).map_err(|_| wrong())?;
            let value = wrapped
                .into_iter()
                .next()
                .map(|(_, value)| value)
                .filter(|value| same_type(value, like));
            value.ok_or_else(wrong)
        }
    }
}

fn table_at<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Table> {
    path.split('.')
        .try_fold(table, |table, name| table.get_mut(name)?.as_table_mut())
}

fn same_type(left: &Value, right: &Value) -> bool {
    let is_whole_number_of = matches!((left, right), (Value::Float(_), Value::Integer(_)));
    is_whole_number_of || std::mem::discriminant(left) == std::mem::discriminant(right)
}

fn named(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// All keys of a table, dotted; tables too.
fn keys(table: &Table) -> Vec<String> {
    fn collect(table: &Table, at: &str, found: &mut Vec<String>) {
        for (name, value) in table {
            let key = join(at, name);
            if let Value::Table(inner) = value {
                collect(inner, &key, found);
            }
            found.push(key);
        }
    }
    let mut found = Vec::new();
    collect(table, "", &mut found);
    found
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() {
        name.to_owned()
    } else {
        format!("{at}.{name}")
    }
}

/// The known key that is spelt most like this one: compared whole, or by its last part when that exists elsewhere.
fn nearest(key: &str, known: &[String]) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let elsewhere = known.iter().find(|other| last(other) == last(key));
    let spelt = known.iter().map(|other| (distance(key, other), other)).min();
    let close = spelt
        .filter(|(edits, _)| *edits <= MAX_TYPING_ERRORS.min(key.len() / 2))
        .map(|(_, other)| other);
    close.or(elsewhere).cloned()
}

/// Levenshtein distance, by characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

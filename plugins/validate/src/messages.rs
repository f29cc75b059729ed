//! What a person reads: short, without the value they typed, and with what would be right.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::{Value, json};

/// Allowed values named in a message.
const MAX_NAMED: usize = 10;

/// A message about what `title` names.
pub(crate) fn titled(title: &str, message: &str) -> String {
    // "What is your name?" reads as a name only in quotes.
    if title.ends_with(|c: char| c.is_alphanumeric() || c == ')') {
        format!("{title} {message}")
    } else {
        format!("\"{title}\" {message}")
    }
}

/// The message of a keyword that speaks of one value.
pub(crate) fn of(kind: &Kind, instance: &Value, holder: Option<&Value>) -> String {
    match kind {
        Kind::Type { kind } => wrong_type(kind, instance),
        Kind::Enum { options } => one_of(options.as_array().map_or(&[], Vec::as_slice)),
        Kind::Constant { expected_value } => format!("must be {}", plain(expected_value)),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => multiple(*multiple_of),
        Kind::MinLength { limit } => match length(instance) {
            0 => "must not be empty".to_owned(),
            has => format!("must have at least {}, it has {has}", count(*limit, "character")),
        },
        Kind::MaxLength { limit } => {
            format!(
                "must have at most {}, it has {}",
                count(*limit, "character"),
                length(instance)
            )
        }
        Kind::MinItems { limit: 1 } => "must have at least one entry".to_owned(),
        Kind::MinItems { limit } => format!("must have at least {}, it has {}", entries(*limit), length(instance)),
        Kind::MaxItems { limit } => format!("must have at most {}, it has {}", entries(*limit), length(instance)),
        Kind::AdditionalItems { limit } => {
            format!(
                "must have at most {}, it has {}",
                entries(*limit as u64),
                length(instance)
            )
        }
        Kind::UnevaluatedItems { .. } => "has entries that are not expected here; remove them".to_owned(),
        Kind::MinProperties { limit } => format!("must have at least {}", count(*limit, "member")),
        Kind::MaxProperties { limit } => format!("must have at most {}", count(*limit, "member")),
        Kind::UniqueItems => repeated(instance),
        Kind::Pattern { pattern } => does_not_match(pattern, holder),
        Kind::Format { format } => format_message(format),
        Kind::Contains => contains(holder),
        Kind::Not { schema } => must_not(schema),
        Kind::ContentEncoding { content_encoding } => {
            format!("must be encoded as {content_encoding}")
        }
        Kind::ContentMediaType { content_media_type } => {
            format!("must be a valid {content_media_type} document")
        }
        Kind::FromUtf8 { .. } => "must decode to UTF-8 text".to_owned(),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "could not be checked: the form's pattern takes too long on this text; shorten the text".to_owned()
        }
        other => format!("breaks the rule `{}`", other.keyword()),
    }
}

/// The names of a type error's types.
pub(crate) fn type_names(kind: &TypeKind) -> Vec<&'static str> {
    match kind {
        TypeKind::Single(one) => vec![one.as_str()],
        TypeKind::Multiple(set) => set.iter().map(jsonschema::JsonType::as_str).collect(),
    }
}

/// Types as words: "a text or a number".
pub(crate) fn type_list(names: &[&str]) -> String {
    let mut words: Vec<String> = Vec::new();
    for name in names {
        let word = type_word(name).to_owned();
        if !words.contains(&word) {
            words.push(word);
        }
    }
    join(&words, "or")
}

/// "a, b and c".
pub(crate) fn list(items: impl IntoIterator<Item = String>) -> String {
    join(&items.into_iter().collect::<Vec<_>>(), "and")
}

/// A number without a needless `.0`.
pub(crate) fn number(value: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked in the same expression"
    )]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

fn join(items: &[String], word: &str) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

fn type_word(name: &str) -> &'static str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "an object",
        _ => "null",
    }
}

fn wrong_type(kind: &TypeKind, instance: &Value) -> String {
    let names = type_names(kind);
    let wanted = type_list(&names);
    let numeric = names.iter().any(|name| matches!(*name, "number" | "integer"));
    match instance {
        Value::String(text) if numeric && text.trim().parse::<f64>().is_ok() => {
            format!("must be {wanted}, written without quotes")
        }
        Value::Number(_) if names == ["integer"] => format!("must be {wanted}"),
        Value::Number(_) => format!("must be {wanted}, not a number"),
        Value::String(_) => format!("must be {wanted}, not a text"),
        Value::Bool(value) => format!("must be {wanted}, not {value}"),
        Value::Null => {
            format!("must be {wanted}, not null; leave it out if there is nothing to say")
        }
        Value::Array(_) => format!("must be {wanted}, not a list"),
        Value::Object(_) => format!("must be {wanted}, not an object"),
    }
}

/// "must be one of: a, b".
pub(crate) fn one_of(options: &[Value]) -> String {
    let mut named: Vec<String> = options.iter().take(MAX_NAMED).map(plain).collect();
    if options.len() > MAX_NAMED {
        return format!("must be one of {} values: {}, …", options.len(), named.join(", "));
    }
    if let [only] = named.as_mut_slice() {
        return format!("must be {only}");
    }
    format!("must be one of: {}", named.join(", "))
}

/// A value as a person writes it: texts without their quotes where that is clear.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && text.trim() == text && !text.contains(',') => text.clone(),
        other => other.to_string(),
    }
}

fn multiple(of: f64) -> String {
    let decimals = [(1.0, 0), (0.1, 1), (0.01, 2), (0.001, 3)]
        .into_iter()
        .find(|(value, _)| *value == of);
    match decimals {
        Some((_, 0)) => "must be a whole number".to_owned(),
        Some((_, 1)) => "must have at most 1 decimal".to_owned(),
        Some((_, n)) => format!("must have at most {n} decimals"),
        None => format!("must be a multiple of {}", number(of)),
    }
}

fn length(instance: &Value) -> usize {
    match instance {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    }
}

fn count(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

fn entries(n: u64) -> String {
    if n == 1 {
        "1 entry".to_owned()
    } else {
        format!("{n} entries")
    }
}

fn repeated(instance: &Value) -> String {
    let mut seen = std::collections::HashMap::new();
    let items = instance.as_array().map_or(&[] as &[Value], Vec::as_slice);
    for (index, item) in items.iter().enumerate() {
        if let Some(first) = seen.insert(item.to_string(), index) {
            return format!(
                "must not hold the same entry twice: entries {} and {} are equal",
                first + 1,
                index + 1
            );
        }
    }
    "must not hold the same entry twice".to_owned()
}

fn does_not_match(pattern: &str, holder: Option<&Value>) -> String {
    let example = holder.and_then(|schema| schema.get("examples")?.get(0)?.as_str());
    match example {
        Some(example) => format!("has the wrong form; a right one is, for example, {example}"),
        None => format!("must match the pattern {pattern}"),
    }
}

fn contains(holder: Option<&Value>) -> String {
    let bound = |name| holder.and_then(|schema| schema.get(name)).and_then(Value::as_u64);
    match (bound("minContains"), bound("maxContains")) {
        (None, None) => "must contain at least one entry of the kind the form asks for".to_owned(),
        (least, None) => format!(
            "must contain at least {} of the kind the form asks for",
            entries(least.unwrap_or(1))
        ),
        (least, Some(most)) => {
            format!(
                "must contain {} to {} of the kind the form asks for",
                least.unwrap_or(1),
                entries(most)
            )
        }
    }
}

fn must_not(schema: &Value) -> String {
    let one = schema.get("const").map(plain);
    let many = schema.get("enum").and_then(Value::as_array);
    match (one, many, schema.get("required").and_then(Value::as_array)) {
        (Some(value), _, _) => format!("must not be {value}"),
        (_, Some(values), _) => {
            let named: Vec<String> = values.iter().take(MAX_NAMED).map(plain).collect();
            format!("must not be any of: {}", named.join(", "))
        }
        (_, _, Some(names)) => {
            format!(
                "must not have {}",
                list(names.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")))
            )
        }
        _ => "is of a kind that the form excludes".to_owned(),
    }
}

fn format_message(format: &str) -> String {
    let (what, example) = match format {
        "email" | "idn-email" => ("a valid e-mail address", "name@example.org"),
        "date" => ("a date that exists, as year-month-day", "2026-03-14"),
        "time" => ("a time with its zone", "13:45:00Z"),
        "date-time" => ("a date and time with its zone", "2026-03-14T13:45:00Z"),
        "duration" => ("a duration", "P3DT4H"),
        "uri" | "iri" => ("a full web address", "https://example.org/page"),
        "uri-reference" | "iri-reference" => ("a web address or a part of one", "/page"),
        "uri-template" => ("a URI template", "https://example.org/{id}"),
        "hostname" | "idn-hostname" => ("a host name", "www.example.org"),
        "ipv4" => ("an IPv4 address", "192.0.2.1"),
        "ipv6" => ("an IPv6 address", "2001:db8::1"),
        "uuid" => ("a UUID", "123e4567-e89b-12d3-a456-426614174000"),
        "regex" => ("a valid regular expression", "^[a-z]+$"),
        "json-pointer" => ("a JSON Pointer", "/address/zip"),
        "relative-json-pointer" => ("a relative JSON Pointer", "1/zip"),
        other => return format!("must have the format `{other}`"),
    };
    format!("must be {what}, for example {example}")
}

//! The step's settings, checked.

use std::collections::BTreeMap;

use formwork_plugin::{Error, Problem, is_pointer, parse_settings, pointer_token};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::limits;
use crate::rules::{Kind, calling_codes, currencies};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntity {
    #[serde(rename = "type")]
    kind: Kind,
    description: Option<String>,
    pattern: Option<String>,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(rename = "enum")]
    options: Option<Vec<String>>,
    #[serde(default)]
    multiple: bool,
    currency: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    #[serde(default)]
    fields: Vec<String>,
    entities: Map<String, Value>,
    /// `null`: rules alone.
    #[serde(default = "default_model")]
    model: Option<String>,
    #[serde(default = "default_confidence")]
    min_confidence: f32,
    date_order: Option<DateOrder>,
    country: Option<String>,
}

/// What the first number of `03/04/2026` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DateOrder {
    Dmy,
    Mdy,
}

fn default_model() -> Option<String> {
    Some("generator".to_owned())
}

fn default_confidence() -> f32 {
    0.5
}

/// How a value is found.
#[derive(Debug)]
pub(crate) enum How {
    /// By the rule of its type.
    Rule,
    /// By the form's regular expression.
    Pattern(Regex),
    /// By the form's list of values.
    Options(Vec<String>),
    /// By the shape of the text around it, or by the model.
    Free,
}

/// A wanted field.
#[derive(Debug)]
pub(crate) struct Entity {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) how: How,
    pub(crate) description: String,
    pub(crate) examples: Vec<String>,
    pub(crate) multiple: bool,
    /// What `$` means here, or what other symbols that several countries share mean.
    pub(crate) currency: Option<String>,
}

/// What the form asks for.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) fields: Vec<String>,
    pub(crate) entities: Vec<Entity>,
    /// The generator to ask; without one the rules answer alone.
    pub(crate) model: Option<String>,
    pub(crate) min_confidence: f32,
    pub(crate) date_order: Option<DateOrder>,
    /// Two letters, upper case; numbers without a country code are read as of this country.
    pub(crate) country: Option<String>,
}

impl Settings {
    /// Parses and checks; answers all problems at once.
    pub(crate) fn parse(settings: &str) -> Result<Self, Error> {
        let raw: RawSettings = parse_settings(settings)?;
        let mut problems = Problems(Vec::new());
        problems.fields(&raw.fields);
        if raw.entities.is_empty() {
            problems.add("/entities".into(), "empty", "must describe at least one entity");
        }
        if raw.entities.len() > limits::MAX_ENTITIES {
            problems.add(
                "/entities".into(),
                "too-many",
                &format!("at most {} entities", limits::MAX_ENTITIES),
            );
        }
        if !(0.0..=1.0).contains(&raw.min_confidence) {
            problems.add("/min_confidence".into(), "range", "must be 0 to 1: it is a probability");
        }
        if raw.model.as_ref().is_some_and(|model| model.trim().is_empty()) {
            problems.add(
                "/model".into(),
                "empty",
                "must name a generator that the host has, for example `generator`, or be null for rules alone",
            );
        }
        let country = raw.country.map(|country| country.to_ascii_uppercase());
        if country
            .as_ref()
            .is_some_and(|country| calling_codes::of(country).is_none())
        {
            let hint = "is not a country whose telephone numbers are known; give two letters such as `DE` or `US`";
            problems.add("/country".into(), "country", hint);
        }
        let mut entities = Vec::new();
        for (name, value) in raw.entities {
            let at = format!("/entities/{}", pointer_token(&name));
            match parse_settings::<RawEntity>(&value.to_string()) {
                Ok(raw) => entities.extend(problems.entity(&at, name, raw)),
                Err(Error::InvalidSettings(inner)) => {
                    for problem in inner {
                        problems.0.push(Problem {
                            pointer: format!("{at}{}", problem.pointer),
                            ..problem
                        });
                    }
                }
                Err(other) => return Err(other),
            }
        }
        if !problems.0.is_empty() {
            return Err(Error::InvalidSettings(problems.0));
        }
        Ok(Self {
            fields: raw.fields,
            entities,
            model: raw.model,
            min_confidence: raw.min_confidence,
            date_order: raw.date_order,
            country,
        })
    }
}

struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, pointer: String, code: &str, message: &str) {
        self.0.push(Problem::new(pointer, code, message));
    }

    fn fields(&mut self, fields: &[String]) {
        if fields.len() > limits::MAX_FIELDS {
            self.add(
                "/fields".into(),
                "too-many",
                &format!("at most {} pointers", limits::MAX_FIELDS),
            );
        }
        let mut seen = BTreeMap::new();
        for (index, pointer) in fields.iter().enumerate() {
            if !is_pointer(pointer) {
                let hint = "must be a JSON Pointer into the submission's data, for example `/message`";
                self.add(format!("/fields/{index}"), "pointer", hint);
            } else if let Some(first) = seen.insert(pointer, index) {
                self.add(
                    format!("/fields/{index}"),
                    "duplicate",
                    &format!("is the same as /fields/{first}"),
                );
            }
        }
    }

    fn entity(&mut self, at: &str, name: String, raw: RawEntity) -> Option<Entity> {
        let plain = name.chars().all(|c| c.is_alphanumeric() || "_-. ".contains(c));
        if name.trim().is_empty() || !plain || name.chars().count() > limits::MAX_NAME {
            let limit = limits::MAX_NAME;
            self.add(
                at.into(),
                "name",
                &format!("a name is 1 to {limit} letters, digits, `_`, `-`, `.` or blanks"),
            );
        }
        if let Some(description) = &raw.description {
            self.text(format!("{at}/description"), description);
        }
        if raw.examples.len() > limits::MAX_EXAMPLES {
            self.add(
                format!("{at}/examples"),
                "too-many",
                &format!("at most {} examples", limits::MAX_EXAMPLES),
            );
        }
        for (index, example) in raw.examples.iter().enumerate() {
            self.text(format!("{at}/examples/{index}"), example);
        }
        let string = raw.kind == Kind::String;
        for (key, given) in [("pattern", raw.pattern.is_some()), ("enum", raw.options.is_some())] {
            if given && !string {
                self.add(
                    format!("{at}/{key}"),
                    "unused",
                    &format!("`{key}` is only for the type `string`"),
                );
                return None;
            }
        }
        if raw.currency.is_some() && raw.kind != Kind::Money {
            self.add(
                format!("{at}/currency"),
                "unused",
                "`currency` is only for the type `money`",
            );
        }
        let currency = raw.currency.map(|code| code.to_ascii_uppercase());
        if currency
            .as_ref()
            .is_some_and(|code| currencies::minor_digits(code).is_none())
        {
            self.add(
                format!("{at}/currency"),
                "currency",
                "must be a known ISO 4217 code, for example `AUD`",
            );
        }
        let how = match (raw.pattern, raw.options) {
            (Some(_), Some(_)) => {
                self.add(format!("{at}/enum"), "conflict", "give `pattern` or `enum`, not both");
                return None;
            }
            (Some(pattern), None) => How::Pattern(self.pattern(format!("{at}/pattern"), &pattern, &raw.examples)?),
            (None, Some(options)) => How::Options(self.options(&format!("{at}/enum"), options)),
            (None, None) if string => How::Free,
            (None, None) => How::Rule,
        };
        let description = raw.description.unwrap_or_default();
        let entity = Entity {
            name,
            kind: raw.kind,
            how,
            description: description.trim().to_owned(),
            examples: raw.examples,
            multiple: raw.multiple,
            currency,
        };
        Some(entity)
    }

    fn pattern(&mut self, at: String, pattern: &str, examples: &[String]) -> Option<Regex> {
        if pattern.trim().is_empty() || pattern.len() > limits::MAX_PATTERN {
            self.add(
                at,
                "pattern",
                &format!("a pattern has 1 to {} bytes", limits::MAX_PATTERN),
            );
            return None;
        }
        match RegexBuilder::new(pattern)
            .size_limit(limits::MAX_PATTERN_COMPILED)
            .build()
        {
            Ok(regex) if regex.is_match("") => {
                self.add(at, "pattern", "matches the empty text, so it would be found everywhere");
                None
            }
            Ok(regex) => {
                if let Some(example) = examples.iter().find(|example| !regex.is_match(example)) {
                    let message = format!("does not match the example `{example}`");
                    self.add(at, "pattern", &message);
                }
                Some(regex)
            }
            Err(error) => {
                let message = error.to_string();
                let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.add(
                    at,
                    "pattern",
                    &format!("is not a regular expression (no look-around, no back-references): {last}"),
                );
                None
            }
        }
    }

    fn options(&mut self, at: &str, options: Vec<String>) -> Vec<String> {
        if options.is_empty() || options.len() > limits::MAX_ENUM {
            self.add(at.into(), "count", &format!("give 1 to {} values", limits::MAX_ENUM));
        }
        let mut seen = BTreeMap::new();
        for (index, option) in options.iter().enumerate() {
            self.text(format!("{at}/{index}"), option);
            if let Some(first) = seen.insert(option.trim().to_lowercase(), index) {
                self.add(
                    format!("{at}/{index}"),
                    "duplicate",
                    &format!("is the same as {at}/{first}"),
                );
            }
        }
        options
    }

    fn text(&mut self, at: String, text: &str) {
        if text.trim().is_empty() {
            self.add(at, "empty", "must not be empty");
        } else if text.chars().count() > limits::MAX_TEXT {
            self.add(at, "too-long", &format!("at most {} characters", limits::MAX_TEXT));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(settings: &str) -> Vec<String> {
        match Settings::parse(settings) {
            Err(Error::InvalidSettings(problems)) => problems.into_iter().map(|problem| problem.pointer).collect(),
            other => panic!("{settings}: {other:?}"),
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        for (settings, expected) in [
            (r#"{"entities":{}}"#, "/entities"),
            (r#"{"entities":{"a":{"type":"colour"}}}"#, "/entities/a/type"),
            (r#"{"entities":{"a":{}}}"#, "/entities/a"),
            (r#"{"entities":{"a":{"type":"email","size":1}}}"#, "/entities/a/size"),
            (r#"{"entities":{"a/b":{"type":"email"}}}"#, "/entities/a~1b"),
            (
                r#"{"entities":{"a":{"type":"string","pattern":"("}}}"#,
                "/entities/a/pattern",
            ),
            (
                r#"{"entities":{"a":{"type":"string","pattern":"a*"}}}"#,
                "/entities/a/pattern",
            ),
            (
                r#"{"entities":{"a":{"type":"string","pattern":"\\w{900}"}}}"#,
                "/entities/a/pattern",
            ),
            (
                r#"{"entities":{"a":{"type":"string","pattern":"[0-9]+","examples":["x"]}}}"#,
                "/entities/a/pattern",
            ),
            (
                r#"{"entities":{"a":{"type":"date","pattern":"x"}}}"#,
                "/entities/a/pattern",
            ),
            (r#"{"entities":{"a":{"type":"string","enum":[]}}}"#, "/entities/a/enum"),
            (
                r#"{"entities":{"a":{"type":"string","enum":["x","X"]}}}"#,
                "/entities/a/enum/1",
            ),
            (
                r#"{"entities":{"a":{"type":"money","currency":"XXQ"}}}"#,
                "/entities/a/currency",
            ),
            (r#"{"entities":{"a":{"type":"date"}},"country":"Germany"}"#, "/country"),
            (
                r#"{"entities":{"a":{"type":"date"}},"min_confidence":2}"#,
                "/min_confidence",
            ),
            (
                r#"{"entities":{"a":{"type":"date"}},"date_order":"ymd"}"#,
                "/date_order",
            ),
            (
                r#"{"entities":{"a":{"type":"date"}},"fields":["message"]}"#,
                "/fields/0",
            ),
            (r#"{"entities":{"a":{"type":"date"}},"colour":1}"#, "/colour"),
        ] {
            assert_eq!(pointers(settings), [expected], "{settings}");
        }
    }

    #[test]
    fn entities_keep_their_order() {
        let settings = Settings::parse(r#"{"entities":{"z":{"type":"date"},"a":{"type":"string"}}}"#).unwrap();
        assert_eq!(
            settings
                .entities
                .iter()
                .map(|entity| entity.name.as_str())
                .collect::<Vec<_>>(),
            ["z", "a"]
        );
    }
}

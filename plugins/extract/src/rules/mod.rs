//! The rules: what can be found by its form and checked by its content.
//!
//! A rule answers only what passed its check (a valid calendar day, a right check digit, a number length that exists in that
//! country). Confidence scale: 0.95 checked by a checksum or unmistakable; 0.9 unmistakable form; 0.6 to 0.85 several
//! readings are possible and the likeliest was taken; below 0.5 only a cue word nearby can lift it above the threshold.

pub(crate) mod calling_codes;
mod card;
pub(crate) mod currencies;
mod date;
mod email;
mod iban;
mod money;
mod number;
mod phone;
pub(crate) mod phrase;
mod postcode;
mod time;
mod web;

use std::ops::Range;

use formwork_plugin::Error;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::settings::{DateOrder, Entity, How, Settings};
use crate::source::overlap;

/// The type of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Any text: by `pattern`, by `enum`, by its surroundings or by the model.
    String,
    Number,
    Integer,
    Percentage,
    Date,
    Time,
    Email,
    Phone,
    Money,
    Iban,
    Card,
    Url,
    Ip,
    Postcode,
}

/// A value in a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Where, in bytes.
    pub(crate) range: Range<usize>,
    /// The normalised value.
    pub(crate) value: Value,
    /// See the module's scale.
    pub(crate) confidence: f32,
    /// What found it.
    pub(crate) method: &'static str,
}

impl Found {
    fn new(range: Range<usize>, value: impl Into<Value>, confidence: f32, method: &'static str) -> Self {
        Self {
            range,
            value: value.into(),
            confidence,
            method,
        }
    }
}

/// What was found in one text, by type.
#[derive(Debug, Default)]
pub(crate) struct Read {
    found: Vec<(Kind, Vec<Found>)>,
}

impl Read {
    /// What of this type was found.
    pub(crate) fn of(&self, kind: Kind) -> &[Found] {
        self.found
            .iter()
            .find(|(other, _)| *other == kind)
            .map_or(&[], |(_, found)| found)
    }

    /// Places that belong to something unmistakable: a free text or a plain number there is a part of it.
    pub(crate) fn taken(&self) -> Vec<Range<usize>> {
        let sure = [
            Kind::Email,
            Kind::Url,
            Kind::Iban,
            Kind::Card,
            Kind::Date,
            Kind::Money,
            Kind::Ip,
            Kind::Phone,
        ];
        sure.iter()
            .flat_map(|kind| self.of(*kind))
            .filter(|found| found.confidence >= 0.5)
            .map(|found| found.range.clone())
            .collect()
    }
}

/// The compiled rules.
#[derive(Debug)]
pub(crate) struct Rules {
    date: date::Dates,
    email: Regex,
    money: money::Amounts,
    number: number::Numbers,
    phone: phone::Phones,
    postcode: postcode::Postcodes,
    time: Regex,
    url: Regex,
}

impl Rules {
    /// Compiles them.
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let country = settings.country.as_deref();
        Self::compile(settings.date_order, country)
            .map_err(|error| Error::Internal(format!("a rule's own pattern does not compile: {error}")))
    }

    fn compile(order: Option<DateOrder>, country: Option<&str>) -> Result<Self, regex::Error> {
        Ok(Self {
            date: date::Dates::new(order)?,
            email: Regex::new(email::PATTERN)?,
            money: money::Amounts::new()?,
            number: number::Numbers::new()?,
            phone: phone::Phones::new(country)?,
            postcode: postcode::Postcodes::new(country)?,
            time: Regex::new(time::PATTERN)?,
            url: Regex::new(web::URL)?,
        })
    }

    /// Finds everything in one text, the unmistakable first: what they cover is not read again as something weaker.
    pub(crate) fn read(&self, text: &str) -> Read {
        let mut read = Read::default();
        let mut taken: Vec<Range<usize>> = Vec::new();
        let mut keep = |kind: Kind, found: Vec<Found>, claims: bool| {
            let free: Vec<Found> = found
                .into_iter()
                .filter(|found| !taken.iter().any(|range| overlap(range, &found.range)))
                .collect();
            if claims {
                taken.extend(free.iter().map(|found| found.range.clone()));
            }
            read.found.push((kind, free));
        };
        keep(Kind::Url, web::urls(&self.url, text), true);
        keep(Kind::Email, email::find(&self.email, text), true);
        keep(Kind::Iban, iban::find(text), true);
        keep(Kind::Card, card::find(text), true);
        keep(Kind::Ip, web::addresses(text), true);
        keep(Kind::Date, self.date.find(text), true);
        keep(Kind::Time, time::find(&self.time, text), true);
        keep(Kind::Money, self.money.find(text), true);
        keep(Kind::Percentage, self.number.percentages(text), true);
        keep(Kind::Phone, self.phone.find(text), false);
        keep(Kind::Postcode, self.postcode.find(text), false);
        keep(Kind::Number, self.number.find(text), false);
        keep(Kind::Integer, self.number.integers(text), false);
        // A sure telephone number is not a plain number.
        let phones: Vec<Range<usize>> = read
            .of(Kind::Phone)
            .iter()
            .filter(|found| found.confidence >= 0.6)
            .map(|found| found.range.clone())
            .collect();
        for (kind, found) in &mut read.found {
            if matches!(kind, Kind::Number | Kind::Integer | Kind::Postcode) {
                found.retain(|found| !phones.iter().any(|phone| overlap(phone, &found.range)));
            }
        }
        read
    }
}

/// What in this text may be the entity's value by rule alone.
pub(crate) fn candidates(entity: &Entity, text: &str, read: &Read) -> Vec<Found> {
    match &entity.how {
        How::Pattern(pattern) => phrase::by_pattern(pattern, text),
        How::Options(options) => phrase::by_options(options, text),
        How::Free => Vec::new(),
        How::Rule if entity.kind == Kind::Money => {
            let mut found = read.of(Kind::Money).to_vec();
            if let Some(code) = &entity.currency {
                found
                    .iter_mut()
                    .for_each(|found| currencies::settle(&mut found.value, code));
            }
            found
        }
        How::Rule => read.of(entity.kind).to_vec(),
    }
}

#[cfg(test)]
pub(crate) fn read_for_test(text: &str, order: Option<DateOrder>, country: Option<&str>) -> Read {
    Rules::compile(order, country).unwrap().read(text)
}

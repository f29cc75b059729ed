//! Calendar days. Days without a year and words such as "yesterday" are not extracted: the plugin would have to guess.

use regex::{Captures, Regex};

use super::Found;
use crate::settings::DateOrder;
use crate::source::{after, before, stands_alone};

const MIN_YEAR: i32 = 1800;
const MAX_YEAR: i32 = 2199;
/// Two-digit years from here on belong to the last century.
const PIVOT: i32 = 70;

/// Year first, with the same separator twice; a time of day may follow.
const ISO: &str = r"([0-9]{4})([-/.])([0-9]{1,2})([-/.])([0-9]{1,2})";
/// Three numbers, year last.
const NUMERIC: &str = r"([0-9]{1,2})(\. ?|[-/])([0-9]{1,2})(\. ?|[-/])([0-9]{4}|[0-9]{2})";
/// `14 March 2026`, `14th of March, 2026`, `14. März 2026`, `14-Mar-2026`.
const DAY_MONTH: &str = r"(?i)([0-9]{1,2})(?:st|nd|rd|th|er|º|\.)?[ -]{0,2}(?:of |de |d')?(\p{L}{3,10})\.?,?[ -]{0,2}(?:of |de |del )?([0-9]{4}|['’][0-9]{2})";
/// `March 14th, 2026`, `Mar. 14 2026`.
const MONTH_DAY: &str = r"(?i)(\p{L}{3,10})\.? {0,2}([0-9]{1,2})(?:st|nd|rd|th)?,? {1,2}([0-9]{4})";

/// Names of the months in English, German, French, Spanish and Italian; abbreviations are their beginnings.
const MONTHS: [&[&str]; 12] = [
    &["january", "januar", "jänner", "janvier", "enero", "gennaio"],
    &[
        "february", "februar", "feber", "février", "fevrier", "febrero", "febbraio",
    ],
    &["march", "märz", "maerz", "mars", "marzo"],
    &["april", "avril", "abril", "aprile"],
    &["may", "mai", "mayo", "maggio"],
    &["june", "juni", "juin", "junio", "giugno"],
    &["july", "juli", "juillet", "julio", "luglio"],
    &["august", "août", "aout", "agosto"],
    &["september", "septembre", "septiembre", "settembre"],
    &["october", "oktober", "octobre", "octubre", "ottobre"],
    &["november", "novembre", "noviembre"],
    &["december", "dezember", "décembre", "decembre", "diciembre", "dicembre"],
];

/// Reads a day out of a match.
type Reader<'a> = dyn Fn(&Captures<'_>) -> Option<Day> + 'a;

/// The compiled patterns.
#[derive(Debug)]
pub(super) struct Dates {
    iso: Regex,
    numeric: Regex,
    day_month: Regex,
    month_day: Regex,
    order: Option<DateOrder>,
}

impl Dates {
    pub(super) fn new(order: Option<DateOrder>) -> Result<Self, regex::Error> {
        Ok(Self {
            iso: Regex::new(ISO)?,
            numeric: Regex::new(NUMERIC)?,
            day_month: Regex::new(DAY_MONTH)?,
            month_day: Regex::new(MONTH_DAY)?,
            order,
        })
    }

    pub(super) fn find(&self, text: &str) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        let readers: [(&Regex, &Reader<'_>); 4] = [
            (&self.iso, &iso),
            (&self.day_month, &|c| Day::named(&c[1], &c[2], &c[3])),
            (&self.month_day, &|c| Day::named(&c[2], &c[1], &c[3])),
            (&self.numeric, &|c| self.numeric(c)),
        ];
        for (pattern, read) in readers {
            // Overlapping attempts: `12/3/14/03/2026` must not hide a date behind a wrong start.
            let mut at = 0;
            while let Some(captures) = pattern.captures_at(text, at) {
                let Some(whole) = captures.get(0) else { break };
                at = whole.start() + text[whole.start()..].chars().next().map_or(1, char::len_utf8);
                let range = whole.range();
                let taken = found
                    .iter()
                    .any(|other| other.range.start < range.end && range.start < other.range.end);
                if taken || !free(text, &range) {
                    continue;
                }
                if let Some(day) = read(&captures) {
                    at = range.end;
                    found.push(Found::new(range, day.text, day.confidence, "rule:date"));
                }
            }
        }
        found.sort_by_key(|found| found.range.start);
        found
    }

    fn numeric(&self, captures: &Captures<'_>) -> Option<Day> {
        let (first, second) = (number(&captures[1])?, number(&captures[3])?);
        if captures[2] != captures[4] {
            return None;
        }
        let dotted = captures[2].starts_with('.');
        let (mut year, mut confidence) = (number(&captures[5])?, 0.9);
        if captures[5].len() == 2 {
            year += if year < PIVOT { 2000 } else { 1900 };
            confidence = 0.75;
            // `1-2-26` is as likely a score or a part number.
            if !dotted && (captures[1].len() < 2 || captures[3].len() < 2) && &captures[2] == "-" {
                return None;
            }
        }
        let day_first = Day::checked(year, second, first);
        let month_first = Day::checked(year, first, second);
        let (text, ambiguous) = match (day_first, month_first) {
            (Some(day), None) => (day, false),
            (None, Some(day)) if !dotted => (day, false),
            (Some(day), Some(other)) if dotted || day == other => (day, false),
            (Some(day), Some(other)) => (if self.order == Some(DateOrder::Mdy) { other } else { day }, true),
            _ => return None,
        };
        if ambiguous {
            // Nobody said which order holds here: half of the readers would take the other day.
            confidence -= if self.order.is_some() { 0.05 } else { 0.3 };
        }
        Some(Day { text, confidence })
    }
}

/// No letter, digit or further part of a number touches it; `2026-03-14T10:00` is a date with a time.
fn free(text: &str, range: &std::ops::Range<usize>) -> bool {
    let near = |edge: Option<char>, beyond: Option<char>| {
        edge.is_some_and(|c| matches!(c, '-' | '/' | '.' | ',' | '+')) && beyond.is_some_and(|c| c.is_ascii_digit())
    };
    let left = before(text, range.start);
    let right = after(text, range.end);
    let far_left = left.and_then(|c| before(text, range.start - c.len_utf8()));
    let far_right = right.and_then(|c| after(text, range.end + c.len_utf8()));
    let time = right == Some('T') && far_right.is_some_and(|c| c.is_ascii_digit());
    (stands_alone(text, range) || time && !left.is_some_and(char::is_alphanumeric))
        && !near(left, far_left)
        && !near(right, far_right)
        && left != Some('+')
}

fn iso(captures: &Captures<'_>) -> Option<Day> {
    if captures[2] != captures[4] {
        return None;
    }
    let text = Day::checked(number(&captures[1])?, number(&captures[3])?, number(&captures[5])?)?;
    Some(Day {
        text,
        confidence: if &captures[2] == "-" { 0.95 } else { 0.9 },
    })
}

struct Day {
    text: String,
    confidence: f32,
}

impl Day {
    fn named(day: &str, month: &str, year: &str) -> Option<Self> {
        let (short, confidence) = (year.starts_with(['\'', '’']), 0.95);
        let year = number(year.trim_start_matches(['\'', '’']))?;
        let year = if short {
            year + if year < PIVOT { 2000 } else { 1900 }
        } else {
            year
        };
        let text = Self::checked(year, month_of(month)?, number(day)?)?;
        Some(Self {
            text,
            confidence: if short { 0.8 } else { confidence },
        })
    }

    fn checked(year: i32, month: i32, day: i32) -> Option<String> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        let fits = (MIN_YEAR..=MAX_YEAR).contains(&year) && (1..=days).contains(&day);
        fits.then(|| format!("{year:04}-{month:02}-{day:02}"))
    }
}

fn number(text: &str) -> Option<i32> {
    text.parse().ok()
}

/// 1 to 12 by a name or its first letters, at least three; `sept` and the like are beginnings too.
fn month_of(name: &str) -> Option<i32> {
    let name = name.to_lowercase();
    let index = MONTHS.iter().position(|names| {
        let short = name.chars().count() <= 4;
        names
            .iter()
            .any(|full| *full == name || short && full.starts_with(&name))
    })?;
    i32::try_from(index).ok().map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, order: Option<DateOrder>) -> Vec<(String, f32)> {
        let dates = Dates::new(order).unwrap();
        dates
            .find(text)
            .into_iter()
            .map(|found| (found.value.as_str().unwrap().to_owned(), found.confidence))
            .collect()
    }

    fn day(text: &str) -> String {
        let found = of(text, None);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        found[0].0.clone()
    }

    #[test]
    fn the_usual_spellings_are_read() {
        for text in [
            "2026-03-14",
            "2026/3/14",
            "2026-03-14T10:00:00Z",
            "14 March 2026",
            "14th of March, 2026",
            "March 14th, 2026",
            "Mar. 14 2026",
            "14.03.2026",
            "14. 3. 2026",
            "14/03/2026",
            "03/14/2026",
            "14-Mar-2026",
            "14. März 2026",
            "14 mars 2026",
            "14 de marzo de 2026",
            "on 14 MARCH 2026.",
            "(14 March 2026)",
            "14 March '26",
            "14.03.26",
            "14march2026",
        ] {
            assert_eq!(day(text), "2026-03-14", "{text}");
        }
        assert_eq!(day("29 February 2028"), "2028-02-29");
        assert_eq!(day("7/30/64"), "2064-07-30");
        assert_eq!(day("1st Sept 1999"), "1999-09-01");
        assert_eq!(day("9 January 2026 I waited"), "2026-01-09");
    }

    #[test]
    fn the_form_says_which_order_holds_and_silence_costs_confidence() {
        assert_eq!(of("03/04/2026", Some(DateOrder::Dmy))[0].0, "2026-04-03");
        assert_eq!(of("03/04/2026", Some(DateOrder::Mdy))[0].0, "2026-03-04");
        assert!(of("03/04/2026", Some(DateOrder::Dmy))[0].1 > 0.8);
        assert!(of("03/04/2026", None)[0].1 < 0.7);
        assert!(of("14/03/2026", None)[0].1 > 0.85);
        assert!(of("04/04/2026", None)[0].1 > 0.85);
    }

    #[test]
    fn days_that_do_not_exist_and_parts_of_more_are_not_dates() {
        for text in [
            "2026-02-30",
            "29 February 2026",
            "31/04/2026",
            "2026-13-01",
            "0/1/2026",
            "14 Marchx 2026",
            "14 May",
            "May 2026",
            "yesterday",
            "1.2.3.4",
            "192.168.10.2026",
            "2026-03-14-15",
            "12/03-2026",
            "1-2-26",
            "114/03/2026",
            "14/03/20266",
            "555.12.2026.1",
            "14 apples 2026",
        ] {
            assert!(of(text, None).is_empty(), "{text}: {:?}", of(text, None));
        }
    }

    #[test]
    fn several_dates_come_in_their_order() {
        let days: Vec<String> = of("from 1 May 2026 to 2026-05-09, not 2026-05-32", None)
            .into_iter()
            .map(|found| found.0)
            .collect();
        assert_eq!(days, ["2026-05-01", "2026-05-09"]);
    }
}

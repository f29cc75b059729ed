//! The wall clock, and how its times are written in answers.

use std::time::{SystemTime, UNIX_EPOCH};

use formwork_tasks::Millis;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MS_PER_DAY: i64 = 86_400_000;

const NANOS_PER_MS: i128 = 1_000_000;

/// The current time.
#[must_use]
pub fn now() -> Millis {
    millis(SystemTime::now())
}

/// A time of the system's clock.
#[must_use]
pub fn millis(time: SystemTime) -> Millis {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A time as RFC 3339 in UTC with milliseconds, `2026-03-14T09:26:53.589Z`.
#[must_use]
pub fn rfc3339(time: Millis) -> String {
    let (days, ms) = (time.0.div_euclid(MS_PER_DAY), time.0.rem_euclid(MS_PER_DAY));
    let (year, month, day) = civil(days);
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// A time as RFC 3339 spells it, in any offset, to the millisecond; nothing for what is none.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Millis> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let ms = time.unix_timestamp_nanos().div_euclid(NANOS_PER_MS);
    i64::try_from(ms).ok().map(Millis)
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_773_480_413_589, "2026-03-14T09:26:53.589Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(rfc3339(Millis(ms)), text);
            assert_eq!(parse_rfc3339(text), Some(Millis(ms)));
        }
        let same = [
            "2026-03-14T09:26:53Z",
            "2026-03-14T09:26:53.000999Z",
            "2026-03-14T10:26:53+01:00",
        ];
        for text in same {
            assert_eq!(parse_rfc3339(text), Some(Millis(1_773_480_413_000)), "{text}");
        }
        for text in [
            "",
            "2026-13-01T00:00:00.000Z",
            "2026-02-30T00:00:00.000Z",
            "2026-03-14",
            "2026-03-14T09:26:53",
            "é026-03-14T09:26:53.589Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}

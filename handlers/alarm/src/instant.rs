//! A point in time, read from RFC 3339 with any offset and compared to the nanosecond.
//!
//! Written in one form: UTC, with as many digits after the second as it needs. The zero time of many languages,
//! `0001-01-01T00:00:00Z`, stands for "not set" and is refused.

use serde::{Deserialize, Serialize};
use std::fmt;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Digits after the second: one more would be cut off, and two different times would be the same.
const FRACTION_DIGITS_MAX: usize = 9;

/// After the zero time and before the year 10000, so that RFC 3339 can always write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Instant(OffsetDateTime);

/// Why a text is not a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnInstant {
    Form,
    TooFine,
    Zero,
    TooLate,
}

impl Instant {
    pub fn parse(text: &str) -> Result<Self, NotAnInstant> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotAnInstant::Form)?;
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        if fraction.bytes().take_while(u8::is_ascii_digit).count() > FRACTION_DIGITS_MAX {
            return Err(NotAnInstant::TooFine);
        }
        // Outside of what can be written when the offset moves it over the end of the first or last year.
        let utc = match parsed.checked_to_offset(UtcOffset::UTC) {
            Some(utc) if utc.year() > 9999 => return Err(NotAnInstant::TooLate),
            Some(utc) => utc,
            None if parsed.year() > 0 => return Err(NotAnInstant::TooLate),
            None => return Err(NotAnInstant::Zero),
        };
        let zero = time::Date::from_ordinal_date(1, 1).map(|date| date.midnight().assume_utc());
        if zero.is_ok_and(|zero| utc <= zero) { Err(NotAnInstant::Zero) } else { Ok(Self(utc)) }
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl From<Instant> for String {
    fn from(instant: Instant) -> Self {
        instant.to_string()
    }
}

impl TryFrom<String> for Instant {
    type Error = NotAnInstant;
    fn try_from(text: String) -> Result<Self, NotAnInstant> {
        Self::parse(&text)
    }
}

impl fmt::Display for NotAnInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is not a time in RFC 3339, such as 2026-01-02T03:04:05.000000006Z",
            Self::TooFine => "is finer than a nanosecond: give at most 9 digits after the second",
            Self::Zero => "is the zero time or before it: give the time of the change",
            Self::TooLate => "is after the year 9999",
        })
    }
}

impl std::error::Error for NotAnInstant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(Instant::parse(text).unwrap().to_string(), expected, "{text}");
    }

    #[track_caller]
    fn refused(text: &str, expected: NotAnInstant) {
        assert_eq!(Instant::parse(text), Err(expected), "{text}");
    }

    #[test]
    fn every_offset_becomes_utc_with_the_digits_it_needs() {
        check("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z");
        check("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05Z");
        check("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05Z");
        check("2026-01-02t03:04:05z", "2026-01-02T03:04:05Z");
        check("2026-01-02T03:04:05.120000000Z", "2026-01-02T03:04:05.12Z");
        check("2026-01-02T03:04:05.000000001Z", "2026-01-02T03:04:05.000000001Z");
        check("2026-01-02T03:04:05.000000000+05:30", "2026-01-01T21:34:05Z");
        check("2025-12-31T23:30:00.5-01:00", "2026-01-01T00:30:00.5Z");
        check("0001-01-01T00:00:00.000000001Z", "0001-01-01T00:00:00.000000001Z");
        check("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z");
    }

    #[test]
    fn one_nanosecond_tells_two_times_apart_and_an_offset_does_not() {
        let at = |text| Instant::parse(text).unwrap();
        assert!(at("2026-01-02T03:04:05.000000001Z") > at("2026-01-02T03:04:05Z"));
        assert!(at("2026-01-02T03:04:05.999999999Z") < at("2026-01-02T03:04:06Z"));
        // As text the first is greater.
        assert!(at("2026-01-02T03:04:05+02:00") < at("2026-01-02T02:04:05.1Z"));
        assert_eq!(at("2026-01-02T03:04:05+02:00"), at("2026-01-02T01:04:05.000Z"));
    }

    #[test]
    fn the_zero_time_is_refused_whatever_its_offset() {
        for zero in ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000000Z", "0001-01-01T01:00:00+01:00"] {
            refused(zero, NotAnInstant::Zero);
        }
        refused("0000-12-31T23:59:59Z", NotAnInstant::Zero);
        refused("0000-01-01T00:00:00+23:59", NotAnInstant::Zero);
    }

    #[test]
    fn what_is_not_rfc_3339_is_refused() {
        let bad = [
            "",
            "now",
            "1767323045",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04Z",
            "2026-02-30T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04:05+25:00",
            "2026-01-02T03:04:05Z[UTC]",
            " 2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05Z\n",
            "+012026-01-02T03:04:05Z",
        ];
        for text in bad {
            refused(text, NotAnInstant::Form);
        }
        refused("2026-01-02T03:04:05.0000000001Z", NotAnInstant::TooFine);
        refused("9999-12-31T23:59:59-00:01", NotAnInstant::TooLate);
    }
}

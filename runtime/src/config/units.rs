//! Durations, sizes and rates as people write them: `1h30m`, `500ms`, `64MiB`, `1000/s`.

use crate::handler::RateLimit;
use std::time::Duration;

/// A text that is not a duration, a size or a rate: what is wrong and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadUnit {
    pub(super) message: String,
    pub(super) hint: String,
}

fn bad(message: impl Into<String>, hint: impl Into<String>) -> BadUnit {
    BadUnit { message: message.into(), hint: hint.into() }
}

/// Largest first: that is the order in which they may be combined.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 24 * 3600 * 1000), ("h", 3600 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Parses whole numbers with the units d, h, m, s and ms, larger units first, each at most once.
pub(super) fn duration(text: &str) -> Result<Duration, BadUnit> {
    const EXAMPLE: &str = "write whole numbers with the units d, h, m, s, ms, such as `500ms`, `2s` or `1h30m`";
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut units_left = &DURATION_UNITS[..];
    if rest.is_empty() {
        return Err(bad("a duration must not be empty", EXAMPLE));
    }
    while !rest.is_empty() {
        let (number, unit, after) =
            number_and_unit(rest).ok_or_else(|| bad(format!("`{text}` is not a duration"), EXAMPLE))?;
        if unit.is_empty() && rest == text && after.is_empty() {
            return Err(bad(format!("`{text}` has no unit"), format!("write `{text}s` or `{text}ms`")));
        }
        rest = after;
        if unit.is_empty() {
            return Err(bad(format!("`{text}` is not a duration"), EXAMPLE));
        }
        let Some(at) = units_left.iter().position(|(name, _)| *name == unit) else {
            let message = match DURATION_UNITS.iter().any(|(name, _)| *name == unit) {
                true => format!("the unit `{unit}` of `{text}` is out of order or there twice"),
                false => format!("`{unit}` of `{text}` is not a unit of time"),
            };
            return Err(bad(message, EXAMPLE));
        };
        total_ms = number
            .checked_mul(units_left[at].1)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or_else(|| bad(format!("`{text}` is too long to count"), EXAMPLE))?;
        units_left = &units_left[at + 1..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// Parses a whole number of B, KiB, MiB or GiB into bytes.
pub(super) fn size(text: &str) -> Result<u64, BadUnit> {
    const EXAMPLE: &str = "write a whole number with B, KiB, MiB or GiB, such as `64MiB`";
    let (number, unit, rest) = number_and_unit(text).ok_or_else(|| bad(format!("`{text}` is not a size"), EXAMPLE))?;
    if !rest.is_empty() {
        return Err(bad(format!("`{text}` is not a size"), EXAMPLE));
    }
    let Some((_, bytes)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.to_ascii_lowercase().as_str() {
            "k" | "kb" | "kib" => "KiB",
            "m" | "mb" | "mib" => "MiB",
            "g" | "gb" | "gib" => "GiB",
            "b" | "bytes" => "B",
            _ if unit.is_empty() => return Err(bad(format!("`{text}` has no unit"), EXAMPLE)),
            _ => return Err(bad(format!("`{unit}` of `{text}` is not a unit of size"), EXAMPLE)),
        };
        let hint = format!("write `{number}{meant}`; sizes count in steps of 1024");
        return Err(bad(format!("`{unit}` of `{text}` is not a unit of size"), hint));
    };
    number.checked_mul(*bytes).ok_or_else(|| bad(format!("`{text}` is too large to count"), EXAMPLE))
}

/// Most runs a second that a rate may name: more than a host could begin, so a larger one is a slip of the pen.
const RATE_RUNS_MAX: u64 = 1_000_000;
pub(super) const EXPECTED_RATE: &str = "a rate from \"1/h\" to \"1_000_000/s\"";
const RATE_UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

/// Parses a whole number of runs a second, minute or hour; `_` may stand between digits.
pub(super) fn rate(text: &str) -> Result<RateLimit, BadUnit> {
    const EXAMPLE: &str = "write a whole number a second, minute or hour, such as `1000/s`, `90/m` or `10/h`";
    let Some((number, unit)) = text.split_once('/') else {
        return Err(match text.bytes().all(|b| b.is_ascii_digit() || b == b'_') && !text.is_empty() {
            true => bad(format!("`{text}` does not say in which time"), format!("write `{text}/s`")),
            false => bad(format!("`{text}` is not a rate"), EXAMPLE),
        });
    };
    let digits = number.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !digits {
        return Err(bad(format!("`{number}` of `{text}` is not a whole number"), EXAMPLE));
    }
    let Some((_, seconds)) = RATE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let meant = match unit.to_ascii_lowercase().as_str() {
            "s" | "sec" | "second" => "s",
            "m" | "min" | "minute" => "m",
            "h" | "hour" => "h",
            _ => return Err(bad(format!("`{unit}` of `{text}` is not s, m or h"), EXAMPLE)),
        };
        return Err(bad(format!("`{unit}` of `{text}` is not s, m or h"), format!("write `{number}/{meant}`")));
    };
    match number.replace('_', "").parse::<u64>() {
        Ok(0) => Err(bad(format!("`{text}` would never run anything"), "to stop a handler, pause or remove it")),
        Ok(runs) if runs <= RATE_RUNS_MAX * seconds => {
            let runs = u32::try_from(runs).expect("1_000_000/s is 3.6 billion an hour, which fits");
            Ok(RateLimit { runs, per: Duration::from_secs(*seconds) })
        }
        _ => Err(bad(format!("`{text}` is more than 1_000_000/s"), "leave `rate` out for no limit")),
    }
}

/// A rate as the settings would write it.
pub(super) fn show_rate(limit: RateLimit) -> String {
    let unit = RATE_UNITS.iter().find(|(_, seconds)| Duration::from_secs(*seconds) == limit.per);
    match unit {
        Some((unit, _)) => format!("{}/{unit}", limit.runs),
        None => format!("{} in {}", limit.runs, show_duration(limit.per)),
    }
}

/// Splits the first number and its unit off.
fn number_and_unit(text: &str) -> Option<(u64, &str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, rest) = rest.split_at(letters);
    // Too many digits for a u64 is as wrong as no digits; a sign, a fraction or a space is neither.
    Some((number.parse().ok()?, unit, rest))
}

/// A duration as the settings would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut left_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, ms) in DURATION_UNITS {
        if left_ms >= ms {
            text += &format!("{}{unit}", left_ms / ms);
            left_ms %= ms;
        }
    }
    if text.is_empty() { "0ms".into() } else { text }
}

/// A size as the settings would write it, in the largest unit that leaves no rest.
pub(super) fn show_size(bytes: u64) -> String {
    let (unit, one) =
        SIZE_UNITS.into_iter().find(|(_, one)| bytes >= *one && bytes.is_multiple_of(*one)).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_combine_units_from_large_to_small() {
        for (text, ms) in [("2s", 2000), ("500ms", 500), ("1h30m", 5_400_000), ("7d", 604_800_000), ("1m1ms", 60_001)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[track_caller]
    fn check_bad(result: Result<impl std::fmt::Debug, BadUnit>, message: &str, hint: &str) {
        let error = result.unwrap_err();
        assert!(error.message.contains(message), "{error:?}");
        assert!(error.hint.contains(hint), "{error:?}");
    }

    #[test]
    fn bad_units_say_what_to_write() {
        check_bad(duration("2"), "no unit", "`2s` or `2ms`");
        check_bad(duration("2 s"), "not a duration", "1h30m");
        check_bad(duration("1.5s"), "not a duration", "1h30m");
        check_bad(duration("-1s"), "not a duration", "1h30m");
        check_bad(duration("30m1h"), "out of order", "1h30m");
        check_bad(duration("1s1s"), "there twice", "1h30m");
        check_bad(duration("3 weeks"), "not a duration", "1h30m");
        check_bad(duration("3w"), "not a unit of time", "1h30m");
        check_bad(duration("99999999999999d"), "too long", "1h30m");
        check_bad(size("64MB"), "`MB` of `64MB` is not a unit", "write `64MiB`");
        check_bad(size("64"), "no unit", "64MiB");
        check_bad(size("64 MiB"), "not a size", "64MiB");
        check_bad(size("99999999999GiB"), "too large", "64MiB");
        check_bad(size("3x"), "not a unit of size", "64MiB");
        check_bad(rate("1000"), "does not say in which time", "write `1000/s`");
        check_bad(rate("5/min"), "`min` of `5/min` is not s, m or h", "write `5/m`");
        check_bad(rate("5/d"), "`d` of `5/d` is not s, m or h", "`90/m`");
        check_bad(rate("1__0/s"), "`1__0` of `1__0/s` is not a whole number", "1000/s");
        check_bad(rate("/s"), "`` of `/s` is not a whole number", "1000/s");
        check_bad(rate("-1/s"), "not a whole number", "1000/s");
        check_bad(rate("0/s"), "never run anything", "pause");
        check_bad(rate("1_000_001/s"), "more than 1_000_000/s", "leave `rate` out");
        check_bad(rate("99999999999999999999999/h"), "more than 1_000_000/s", "leave `rate` out");
        check_bad(rate("fast"), "not a rate", "1000/s");
    }

    #[test]
    fn rates_count_runs_a_second_minute_or_hour() {
        for (text, runs, seconds) in [
            ("1000/s", 1000, 1),
            ("1_000/m", 1000, 60),
            ("1/h", 1, 3600),
            ("1_000_000/s", 1_000_000, 1),
            ("3600000000/h", 3_600_000_000, 3600),
        ] {
            assert_eq!(rate(text), Ok(RateLimit { runs, per: Duration::from_secs(seconds) }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read_again(ms in 1u64..1 << 50, bytes in 0u64..1 << 50) {
            prop_assert_eq!(duration(&show_duration(Duration::from_millis(ms))), Ok(Duration::from_millis(ms)));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            let limit = RateLimit { runs: u32::try_from(ms % 1_000_000).unwrap() + 1, per: Duration::from_secs(60) };
            prop_assert_eq!(rate(&show_rate(limit)), Ok(limit));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,12}") {
            let _ = (duration(&text), size(&text), rate(&text));
        }
    }
}

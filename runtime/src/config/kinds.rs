//! The kinds of values that settings have: each knows its bounds, says what it expects and reads itself.

mod address;
mod start;

pub(super) use address::{Address, PORT_DEFAULT, parse_listen};
pub(super) use start::Beginning;

use super::findings::Findings;
use super::item::Item;
use super::nearest::nearest;
use super::setting::{Kind, Parse};
use super::units::{self, BadUnit};
use super::values::{text, wrong};
use crate::handler::RateLimit;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

/// A whole number in these bounds.
pub(super) struct Whole<T>(pub(super) RangeInclusive<T>);

/// A duration in these bounds.
pub(super) struct Span(pub(super) RangeInclusive<Duration>);

/// A size in bytes in these bounds.
pub(super) struct Size(pub(super) RangeInclusive<u64>);

/// Runs in a time.
pub(super) struct Rate;

/// One of a few words.
pub(super) struct Word<T: 'static>(pub(super) &'static [(&'static str, T)]);

/// A table of settings; the text is its form.
pub(super) struct Table(pub(super) &'static str);

/// A value that takes more than itself to be read: what it is, in words. A default is the text in it.
pub(super) struct Form(pub(super) &'static str);

impl<T: Display> Kind for Whole<T> {
    type Value = T;

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", grouped(self.0.start()), grouped(self.0.end()))
    }

    fn show(&self, value: &T) -> String {
        grouped(value)
    }
}

impl<T: Display + PartialOrd + TryFrom<u64>> Parse for Whole<T> {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<T> {
        let DeValue::Integer(digits) = item.value.get_ref() else {
            wrong(findings, item, &self.expected());
            return None;
        };
        let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok().and_then(|n| T::try_from(n).ok());
        let number = number.filter(|number| self.0.contains(number));
        if number.is_none() {
            let message = format!("{} is out of range: {digits}", item.name);
            findings.error(item.span(), message).expected(self.expected()).hint(item.more());
        }
        number
    }
}

/// Thousands apart, as TOML allows.
fn grouped(number: &impl Display) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|group| str::from_utf8(group).ok()).collect();
    groups.join("_")
}

impl Kind for Span {
    type Value = Duration;

    fn expected(&self) -> String {
        let (start, end) = (units::show_duration(*self.0.start()), units::show_duration(*self.0.end()));
        format!("a duration from \"{start}\" to \"{end}\"")
    }

    fn show(&self, value: &Duration) -> String {
        format!("\"{}\"", units::show_duration(*value))
    }
}

impl Parse for Span {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Duration> {
        quantity(findings, item, self, units::duration, |duration| self.0.contains(duration))
    }
}

impl Kind for Size {
    type Value = u64;

    fn expected(&self) -> String {
        let (start, end) = (units::show_size(*self.0.start()), units::show_size(*self.0.end()));
        format!("a size from \"{start}\" to \"{end}\"")
    }

    fn show(&self, value: &u64) -> String {
        format!("\"{}\"", units::show_size(*value))
    }
}

impl Parse for Size {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<u64> {
        quantity(findings, item, self, units::size, |bytes| self.0.contains(bytes))
    }
}

impl Kind for Rate {
    type Value = RateLimit;

    fn expected(&self) -> String {
        units::EXPECTED_RATE.into()
    }

    fn show(&self, value: &RateLimit) -> String {
        format!("\"{}\"", units::show_rate(*value))
    }
}

impl Parse for Rate {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<RateLimit> {
        // Its bounds are those of the unit.
        quantity(findings, item, self, units::rate, |_| true)
    }
}

fn quantity<K: Kind>(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    kind: &K,
    parse: fn(&str) -> Result<K::Value, BadUnit>,
    fits: impl Fn(&K::Value) -> bool,
) -> Option<K::Value> {
    let typed = text(findings, item, &kind.expected())?;
    match parse(typed) {
        Ok(value) if fits(&value) => Some(value),
        Ok(_) => {
            let message = format!("{} is out of range: {typed}", item.name);
            findings.error(item.span(), message).expected(kind.expected()).hint(item.more());
            None
        }
        Err(BadUnit { message, hint }) => {
            findings.error(item.span(), format!("{}: {message}", item.name)).expected(kind.expected()).hint(hint);
            None
        }
    }
}

impl<T: Copy + PartialEq> Kind for Word<T> {
    type Value = T;

    fn expected(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        names.join(" or ")
    }

    fn show(&self, value: &T) -> String {
        let name = self.0.iter().find(|(_, choice)| choice == value).map(|(name, _)| *name);
        format!("\"{}\"", name.unwrap_or_default())
    }
}

impl<T: Copy + PartialEq> Parse for Word<T> {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<T> {
        let word = text(findings, item, &self.expected())?;
        let found = self.0.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        if found.is_none() {
            let message = format!("{} cannot be \"{word}\"", item.name);
            let problem = findings.error(item.span(), message).expected(self.expected()).hint(item.more());
            let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
            if let Some(near) = nearest(word, &names) {
                problem.hint(format!("did you mean \"{near}\"?"));
            } else {
                problem.hint(item.more());
            }
        }
        found
    }
}

impl Kind for Table {
    type Value = ();

    fn expected(&self) -> String {
        self.0.into()
    }

    fn show(&self, (): &()) -> String {
        "the defaults of what is in it".into()
    }
}

impl Kind for Form {
    type Value = &'static str;

    fn expected(&self) -> String {
        self.0.into()
    }

    fn show(&self, value: &&'static str) -> String {
        format!("\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_of_five_digits_and_more_are_grouped() {
        for (number, shown) in [(0u64, "0"), (1024, "1024"), (10_000, "10_000"), (1_234_567, "1_234_567")] {
            assert_eq!(grouped(&number), shown);
        }
    }
}

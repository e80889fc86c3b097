//! Typed values: each reader returns what it read, or reports what is wrong and returns `None`.

use super::findings::Findings;
use super::section::{Item, kind, nearest};
use super::units::{self, BadUnit};
use crate::pipeline::rate;
use crate::topic::{Pattern, TopicError};
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::de::DeValue;

/// A pattern and where it stands, for the checks that compare several.
pub(super) struct PatternAt {
    pub(super) pattern: Pattern,
    pub(super) span: Range<usize>,
}

/// The value is of the wrong type.
pub(super) fn wrong(findings: &mut Findings<'_>, item: &Item<'_>, expected: &str) {
    let message = format!("{} is {}", item.name, kind(item.value.get_ref()));
    findings.error(item.span(), message).expected(expected);
}

pub(super) fn text<'t>(findings: &mut Findings<'_>, item: &Item<'t>, expected: &str) -> Option<&'t str> {
    match item.value.get_ref() {
        DeValue::String(text) => Some(text.as_ref()),
        _ => {
            wrong(findings, item, expected);
            None
        }
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(findings: &mut Findings<'_>, item: &Item<'_>, choices: &[(&str, T)]) -> Option<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let expected = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or ");
    let word = text(findings, item, &expected)?;
    let found = choices.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    if found.is_none() {
        let problem = findings.error(item.span(), format!("{} cannot be \"{word}\"", item.name)).expected(expected);
        if let Some(near) = nearest(word, &names) {
            problem.hint(format!("did you mean \"{near}\"?"));
        }
    }
    found
}

pub(super) fn integer(findings: &mut Findings<'_>, item: &Item<'_>, range: RangeInclusive<u64>) -> Option<u64> {
    let expected = format!("a whole number from {} to {}", range.start(), range.end());
    let DeValue::Integer(digits) = item.value.get_ref() else {
        wrong(findings, item, &expected);
        return None;
    };
    let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok().filter(|number| range.contains(number));
    if number.is_none() {
        findings.error(item.span(), format!("{} is out of range: {digits}", item.name)).expected(expected);
    }
    number
}

pub(super) fn duration(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    quantity(findings, item, range, "a duration", units::duration, |duration| units::show_duration(*duration))
}

/// A size in bytes.
pub(super) fn size(findings: &mut Findings<'_>, item: &Item<'_>, range: RangeInclusive<u64>) -> Option<u64> {
    quantity(findings, item, range, "a size", units::size, |bytes| units::show_size(*bytes))
}

/// Runs in a time.
pub(super) fn rate(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<rate::Limit> {
    let typed = text(findings, item, units::EXPECTED_RATE)?;
    match units::rate(typed) {
        Ok(limit) => Some(limit),
        Err(BadUnit { message, hint }) => {
            let problem = findings.error(item.span(), format!("{}: {message}", item.name));
            problem.expected(units::EXPECTED_RATE).hint(hint);
            None
        }
    }
}

fn quantity<T: PartialOrd>(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    range: RangeInclusive<T>,
    what: &str,
    parse: fn(&str) -> Result<T, BadUnit>,
    show: fn(&T) -> String,
) -> Option<T> {
    let expected = format!("{what} from \"{}\" to \"{}\"", show(range.start()), show(range.end()));
    let typed = text(findings, item, &expected)?;
    match parse(typed) {
        Ok(value) if range.contains(&value) => Some(value),
        Ok(_) => {
            findings.error(item.span(), format!("{} is out of range: {typed}", item.name)).expected(expected);
            None
        }
        Err(BadUnit { message, hint }) => {
            findings.error(item.span(), format!("{}: {message}", item.name)).expected(expected).hint(hint);
            None
        }
    }
}

/// The entries of a list.
pub(super) fn list<'t>(findings: &mut Findings<'_>, item: &Item<'t>, expected: &str) -> Option<Vec<Item<'t>>> {
    let DeValue::Array(entries) = item.value.get_ref() else {
        let is_text = matches!(item.value.get_ref(), DeValue::String(_));
        wrong(findings, item, expected);
        if is_text {
            findings.last_hint("put it into brackets: a list may have one entry");
        }
        return None;
    };
    Some(entries.iter().map(|value| Item { name: format!("an entry of {}", item.name), value }).collect())
}

/// A list of patterns. Wrong entries are reported one by one and left out.
pub(super) fn patterns(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Vec<PatternAt>> {
    let entries = list(findings, item, "a list of patterns, such as [\"orders.*\"]")?;
    let mut patterns: Vec<PatternAt> = vec![];
    for entry in entries {
        let Some(typed) = text(findings, &entry, "a pattern, such as \"orders.*\"") else { continue };
        match Pattern::parse(typed) {
            Ok(pattern) if patterns.iter().any(|other| other.pattern == pattern) => {
                findings.error(entry.span(), format!("`{pattern}` is there twice in {}", item.name)).hint("remove one");
            }
            Ok(pattern) => patterns.push(PatternAt { pattern, span: entry.span() }),
            Err(error) => bad_pattern(findings, &entry, &error),
        }
    }
    Some(patterns)
}

fn bad_pattern(findings: &mut Findings<'_>, entry: &Item<'_>, error: &TopicError) {
    let hint = match error {
        TopicError::RestNotLast { .. } => "use `*` for one token in the middle",
        TopicError::BadCharacter { token, .. } if token.contains('*') => "`*` stands for a whole token",
        _ => "tokens of A-Z a-z 0-9 _ - joined by dots; `*` is one token, a last `>` the rest",
    };
    refused(findings, entry, error).hint(hint);
}

/// The value is of the right type and says something impossible.
pub(super) fn refused<'f>(
    findings: &'f mut Findings<'_>,
    item: &Item<'_>,
    error: &dyn Display,
) -> &'f mut super::Problem {
    findings.error(item.span(), format!("{}: {error}", item.name))
}

//! Texts, lists and patterns: each reader returns what it read, or reports what is wrong and returns `None`.

use super::findings::Findings;
use super::item::{Item, kind};
use super::problem::Problem;
use crate::topic::{Pattern, TopicError};
use std::fmt::Display;
use std::ops::Range;
use toml::de::DeValue;

/// A pattern and where it stands, for the checks that compare several.
pub(super) struct PatternAt {
    pub(super) pattern: Pattern,
    pub(super) span: Range<usize>,
}

/// The patterns alone.
pub(super) fn plain(patterns: Vec<PatternAt>) -> Vec<Pattern> {
    patterns.into_iter().map(|at| at.pattern).collect()
}

/// The value is of the wrong type.
pub(super) fn wrong(findings: &mut Findings<'_>, item: &Item<'_>, expected: &str) {
    let message = format!("{} is {}", item.name, kind(item.value.get_ref()));
    findings.error(item.span(), message).expected(expected).hint(item.more());
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
    Some(
        entries
            .iter()
            .map(|value| Item { name: format!("an entry of {}", item.name), path: item.path, value })
            .collect(),
    )
}

/// A list of patterns. Wrong entries are reported one by one and left out.
pub(super) fn patterns(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Vec<PatternAt>> {
    let entries = list(findings, item, "a list of patterns, such as [\"orders.*\"]")?;
    let mut patterns: Vec<PatternAt> = vec![];
    for entry in entries {
        let Some(typed) = text(findings, &entry, "a pattern, such as \"orders.*\"") else { continue };
        match Pattern::parse(typed) {
            Ok(pattern) if patterns.iter().any(|other| other.pattern == pattern) => {
                let message = format!("`{pattern}` is there twice in {}", item.name);
                findings.error(entry.span(), message).expected("each pattern once").hint("remove one");
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
    refused(findings, entry, error).expected("a pattern, such as \"orders.*\"").hint(hint);
}

/// The value is of the right type and says something impossible.
pub(super) fn refused<'f>(findings: &'f mut Findings<'_>, item: &Item<'_>, error: &dyn Display) -> &'f mut Problem {
    findings.error(item.span(), format!("{}: {error}", item.name))
}

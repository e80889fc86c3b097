//! How a handler's messages are treated: dedup, retry, breaker, limits, dead letters.

use super::breaker;
use super::findings::Findings;
use super::handler::plain;
use super::section::{Item, Section, kind};
use super::values::{self, PatternAt};
use crate::handler::{DeadBox, DeadFull, Dedup, OnFailure, Policy, Retry};
use crate::message::BODY_BYTES_MAX;
use std::time::Duration;
use toml::de::DeValue;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Reads the part of a handler's section that makes its policy.
pub(super) fn read(findings: &mut Findings<'_>, section: &mut Section<'_>, subscribe: &[PatternAt]) -> Policy {
    let default = Policy::default();
    let dedup = section.read(findings, "dedup", |f, item| dedup(f, item, subscribe)).unwrap_or(default.dedup);
    let retry_section = section.section(findings, "retry");
    let retry = retry(findings, retry_section);
    let on_failure = section.read(findings, "on_failure", |f, item| {
        values::choice(f, item, &[("park", OnFailure::Park), ("skip", OnFailure::Skip)])
    });
    let breaker = section.read(findings, "breaker", breaker::read).unwrap_or(default.breaker);
    let mut limit = section.section(findings, "limit");
    let concurrency = limit.read(findings, "concurrency", |f, item| values::integer(f, item, 1..=100_000));
    let rate = limit.read(findings, "rate", values::rate);
    let body = limit.read(findings, "body", |f, item| values::size(f, item, 1..=BODY_BYTES_MAX as u64));
    limit.finish(findings, &[]);
    let dead_section = section.section(findings, "dead");
    let dead = dead(findings, dead_section);
    Policy {
        dedup,
        retry,
        on_failure: on_failure.unwrap_or(default.on_failure),
        concurrency: concurrency.and_then(|runs| usize::try_from(runs).ok()).unwrap_or(default.concurrency),
        rate: rate.or(default.rate),
        body_bytes_max: body.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default.body_bytes_max),
        breaker,
        dead,
    }
}

fn dedup(findings: &mut Findings<'_>, item: &Item<'_>, subscribe: &[PatternAt]) -> Option<Option<Dedup>> {
    let table = match item.value.get_ref() {
        DeValue::Boolean(false) => return Some(None),
        DeValue::Table(table) => table,
        other => {
            let message = format!("`dedup` is {}", kind(other));
            findings
                .error(item.span(), message)
                .expected("false, or a table such as { window = \"24h\", max = 1_000_000 }")
                .hint("it is on unless it is false");
            return None;
        }
    };
    let default = Dedup::default();
    let mut section = Section::new("`dedup`", Some(table));
    let window = section.read(findings, "window", |f, item| values::duration(f, item, SECOND..=365 * DAY));
    let max = section.read(findings, "max", |f, item| values::integer(f, item, 1..=100_000_000));
    let topics = section.read(findings, "topics", values::patterns);
    section.finish(findings, &[]);
    for at in topics.iter().flatten() {
        if !subscribe.is_empty() && !subscribe.iter().any(|own| own.pattern.overlaps(&at.pattern)) {
            findings
                .error(
                    at.span.clone(),
                    format!("`{}` can never match: the handler subscribes to no such topic", at.pattern),
                )
                .hint("`dedup.topics` names some of the subscribed topics");
        }
    }
    Some(Some(Dedup {
        window: window.unwrap_or(default.window),
        marks_max: max.and_then(|max| usize::try_from(max).ok()).unwrap_or(default.marks_max),
        topics: topics.map(plain),
    }))
}

fn retry(findings: &mut Findings<'_>, mut section: Section<'_>) -> Retry {
    let default = Retry::default();
    let attempts = section.read(findings, "attempts", |f, item| values::integer(f, item, 1..=1_000_000));
    let waits = Duration::from_millis(1)..=7 * DAY;
    let min = section.read(findings, "min", |f, item| values::duration(f, item, waits.clone()));
    let max_item = section.item("max");
    let max = max_item.as_ref().and_then(|item| values::duration(findings, item, waits.clone()));
    section.finish(findings, &[]);
    let retry = Retry {
        attempts: attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(default.attempts),
        min: min.unwrap_or(default.min),
        // A larger first wait alone moves the default maximum along.
        max: max.unwrap_or(default.max.max(min.unwrap_or(default.min))),
    };
    if let Some(item) = max_item.filter(|_| retry.max < retry.min) {
        findings
            .error(item.span(), "the longest wait of `retry` is shorter than the first")
            .hint("raise `max`, or lower `min`");
    }
    retry
}

fn dead(findings: &mut Findings<'_>, mut section: Section<'_>) -> DeadBox {
    let default = DeadBox::default();
    let max = section.read(findings, "max", |f, item| values::integer(f, item, 1..=10_000_000));
    let full = section.read(findings, "full", |f, item| {
        values::choice(f, item, &[("drop-oldest", DeadFull::DropOldest), ("stop", DeadFull::Stop)])
    });
    section.finish(findings, &[]);
    DeadBox { letters_max: max.unwrap_or(default.letters_max), full: full.unwrap_or(default.full) }
}

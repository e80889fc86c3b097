//! How a handler's messages are treated: dedup, retry, breaker, limits, dead letters, delayed messages.

use super::breaker;
use super::declared::breaker::BREAKER;
use super::declared::policy as declared;
use super::findings::Findings;
use super::item::Item;
use super::section::Section;
use super::setting::Kind as _;
use super::values::{self, PatternAt, plain};
use super::waits::Longest;
use crate::handler::{BreakerSettings as Breaker, DeadBox, Dedup, DelayedBound, Policy, Retry};
use toml::de::DeValue;

/// Reads the part of a handler's section that makes its policy.
pub(super) fn read(findings: &mut Findings<'_>, section: &mut Section<'_>, subscribe: &[PatternAt]) -> Policy {
    let dedup = section.read(findings, &declared::DEDUP, |f, item| dedup(f, item, subscribe));
    let retry_section = section.section(findings, &declared::RETRY);
    let retry = retry(findings, retry_section);
    let on_failure = section.value(findings, &declared::ON_FAILURE);
    let breaker = section.read(findings, &BREAKER, breaker::read);
    let mut limit = section.section(findings, &declared::LIMIT);
    let concurrency = limit.value(findings, &declared::LIMIT_CONCURRENCY);
    let rate = limit.given(findings, &declared::LIMIT_RATE);
    let body_bytes_max = limit.value(findings, &declared::LIMIT_BODY);
    limit.finish(findings, &[]);
    let mut dead = section.section(findings, &declared::DEAD);
    let (letters_max, full) = (dead.value(findings, &declared::DEAD_MAX), dead.value(findings, &declared::DEAD_FULL));
    dead.finish(findings, &[]);
    let mut delayed = section.section(findings, &declared::DELAYED);
    let messages_max = delayed.value(findings, &declared::DELAYED_MAX);
    let bytes_max = usize::try_from(delayed.value(findings, &declared::DELAYED_BYTES)).unwrap_or(usize::MAX);
    delayed.finish(findings, &[]);
    Policy {
        dedup: dedup.unwrap_or_else(|| Some(Dedup::default())),
        retry,
        on_failure,
        concurrency,
        rate,
        body_bytes_max: usize::try_from(body_bytes_max).unwrap_or(usize::MAX),
        breaker: breaker.unwrap_or_else(|| Some(Breaker::default())),
        dead: DeadBox { letters_max, full },
        delayed: DelayedBound { messages_max, bytes_max },
    }
}

fn dedup(findings: &mut Findings<'_>, item: &Item<'_>, subscribe: &[PatternAt]) -> Option<Option<Dedup>> {
    let table = match item.value.get_ref() {
        DeValue::Boolean(false) => return Some(None),
        DeValue::Table(table) => table,
        _ => {
            values::wrong(findings, item, &declared::DEDUP.kind.expected());
            findings.last_hint("it is on unless it is false");
            return None;
        }
    };
    let mut section = Section::of(&declared::DEDUP, table);
    let window = section.value(findings, &declared::DEDUP_WINDOW);
    let marks_max = section.value(findings, &declared::DEDUP_MAX);
    let topics = section.read(findings, &declared::DEDUP_TOPICS, values::patterns);
    section.finish(findings, &[]);
    for at in topics.iter().flatten() {
        if !subscribe.is_empty() && !subscribe.iter().any(|own| own.pattern.overlaps(&at.pattern)) {
            let message = format!("`{}` can never match: the handler subscribes to no such topic", at.pattern);
            let subscribed: Vec<String> = subscribe.iter().map(|own| format!("`{}`", own.pattern)).collect();
            findings
                .error(at.span.clone(), message)
                .expected(format!("topics of {}", subscribed.join(", ")))
                .hint("`dedup.topics` names some of the subscribed topics");
        }
    }
    Some(Some(Dedup { window, marks_max, topics: topics.map(plain) }))
}

fn retry(findings: &mut Findings<'_>, mut section: Section<'_>) -> Retry {
    let attempts = section.value(findings, &declared::RETRY_ATTEMPTS);
    let min = section.value(findings, &declared::RETRY_MIN);
    let longest = Longest { table: "retry", first: "min", last: "max" };
    let max = longest.read(findings, &mut section, &declared::RETRY_MAX, min, Retry::default().max);
    section.finish(findings, &[]);
    Retry { attempts, min, max }
}

//! A handler's `breaker`: false, or when it trips and how long it stays open.

use super::findings::Findings;
use super::section::{Item, Section, kind};
use super::values;
use crate::pipeline::breaker::{Settings, Trip};
use std::time::Duration;
use toml::de::DeValue;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What trips it unless told otherwise; a window is that of ten buckets of a second.
const FAILURES_DEFAULT: u32 = 5;
const PERCENT_DEFAULT: u8 = 50;
const SAMPLES_DEFAULT: u32 = 20;
const WINDOW_DEFAULT: Duration = Duration::from_secs(10);

/// What trips a breaker, without its numbers.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Consecutive,
    Count,
    Rate,
}

impl Kind {
    const NAMES: &[(&str, Kind)] = &[("consecutive", Kind::Consecutive), ("count", Kind::Count), ("rate", Kind::Rate)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// The numbers that this kind looks at.
    fn uses(self) -> &'static [&'static str] {
        match self {
            Kind::Consecutive => &["failures"],
            Kind::Count => &["failures", "window"],
            Kind::Rate => &["percent", "samples", "window"],
        }
    }
}

/// Reads `breaker`; the inner `None` is no breaker.
pub(super) fn read(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Option<Settings>> {
    let table = match item.value.get_ref() {
        DeValue::Boolean(false) => return Some(None),
        DeValue::Table(table) => table,
        other => {
            findings
                .error(item.span(), format!("`breaker` is {}", kind(other)))
                .expected("false, or a table such as { trip = \"consecutive\", failures = 5 }")
                .hint("it is on unless it is false");
            return None;
        }
    };
    let default = Settings::default();
    let mut section = Section::new("`breaker`", Some(table));
    let trip_item = section.item("trip");
    // Of a kind that is none nothing can be said about the numbers.
    let trip = match &trip_item {
        Some(item) => values::choice(findings, item, Kind::NAMES),
        None => Some(Kind::Consecutive),
    };
    let count = |findings: &mut Findings<'_>, item: &Item<'_>| {
        values::integer(findings, item, 1..=1_000_000).and_then(|count| u32::try_from(count).ok())
    };
    let (failures_item, percent_item) = (section.item("failures"), section.item("percent"));
    let (samples_item, window_item) = (section.item("samples"), section.item("window"));
    let numbers = [&failures_item, &percent_item, &samples_item, &window_item];
    if let Some(kind) = trip {
        numbers.into_iter().flatten().for_each(|item| check_used(findings, item, kind));
    }
    let failures = failures_item.and_then(|item| count(findings, &item)).unwrap_or(FAILURES_DEFAULT);
    let percent = percent_item.and_then(|item| values::integer(findings, &item, 1..=100));
    let percent = percent.and_then(|percent| u8::try_from(percent).ok()).unwrap_or(PERCENT_DEFAULT);
    let samples = samples_item.and_then(|item| count(findings, &item)).unwrap_or(SAMPLES_DEFAULT);
    let window = window_item.and_then(|item| values::duration(findings, &item, SECOND..=SECOND * 3600));
    let window = window.unwrap_or(WINDOW_DEFAULT);
    let waits = Duration::from_millis(1)..=DAY;
    let wait = section.read(findings, "wait", |f, item| values::duration(f, item, waits.clone()));
    let wait = wait.unwrap_or(default.wait);
    let max_item = section.item("max_wait");
    let max_wait = max_item.as_ref().and_then(|item| values::duration(findings, item, waits));
    section.finish(findings, &[]);
    if let Some(item) = max_item.filter(|_| max_wait.is_some_and(|max| max < wait)) {
        findings
            .error(item.span(), "the longest wait of `breaker` is shorter than the first")
            .hint("raise `max_wait`, or lower `wait`");
    }
    Some(Some(Settings {
        trip: match trip.unwrap_or(Kind::Consecutive) {
            Kind::Consecutive => Trip::Consecutive { failures },
            Kind::Count => Trip::Count { failures, window },
            Kind::Rate => Trip::Rate { percent, samples, window },
        },
        wait,
        // A longer first wait alone moves the default maximum along.
        max_wait: max_wait.unwrap_or(default.max_wait.max(wait)),
    }))
}

/// A number that the kind of trip never looks at was meant for another kind.
fn check_used(findings: &mut Findings<'_>, item: &Item<'_>, kind: Kind) {
    let uses = |kind: Kind| kind.uses().iter().any(|name| item.name == format!("`{name}`"));
    if uses(kind) {
        return;
    }
    let others: Vec<String> =
        (Kind::NAMES.iter().filter(|(_, other)| uses(*other))).map(|(name, _)| format!("trip = \"{name}\"")).collect();
    findings
        .error(item.span(), format!("{} has no effect with trip = \"{}\"", item.name, kind.name()))
        .expected(kind.uses().join(", "))
        .hint(format!("remove it, or write {}", others.join(" or ")));
}

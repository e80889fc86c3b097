//! A handler's `breaker`: false, or when it trips and how long it stays open.

use super::declared::breaker::{self as declared, Trips};
use super::findings::Findings;
use super::item::Item;
use super::section::Section;
use super::setting::{Is, Kind as _, Parse, Setting};
use super::values;
use super::waits::Longest;
use crate::handler::{BreakerSettings, Trip};
use toml::de::DeValue;

/// Reads `breaker`; the inner `None` is no breaker.
pub(super) fn read(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Option<BreakerSettings>> {
    let table = match item.value.get_ref() {
        DeValue::Boolean(false) => return Some(None),
        DeValue::Table(table) => table,
        _ => {
            values::wrong(findings, item, &declared::BREAKER.kind.expected());
            findings.last_hint("it is on unless it is false");
            return None;
        }
    };
    let mut section = Section::of(&declared::BREAKER, table);
    // Of a kind that is none nothing can be said about the numbers.
    let trips = match section.item(&declared::BREAKER_TRIP) {
        Some(item) => declared::BREAKER_TRIP.kind.parse(findings, &item),
        None => Some(declared::BREAKER_TRIP.default.0),
    };
    let failures = number(findings, &mut section, &declared::BREAKER_FAILURES, trips);
    let percent = number(findings, &mut section, &declared::BREAKER_PERCENT, trips);
    let samples = number(findings, &mut section, &declared::BREAKER_SAMPLES, trips);
    let window = number(findings, &mut section, &declared::BREAKER_WINDOW, trips);
    let wait = section.value(findings, &declared::BREAKER_WAIT);
    let longest = Longest { table: "breaker", first: "wait", last: "max_wait" };
    let max_default = BreakerSettings::default().max_wait;
    let max_wait = longest.read(findings, &mut section, &declared::BREAKER_MAX_WAIT, wait, max_default);
    section.finish(findings, &[]);
    let trip = match trips.unwrap_or(declared::BREAKER_TRIP.default.0) {
        Trips::Consecutive => Trip::Consecutive { failures },
        Trips::Count => Trip::Count { failures, window },
        Trips::Rate => Trip::Rate { percent, samples, window },
    };
    Some(Some(BreakerSettings { trip, wait, max_wait }))
}

/// Reads one of the numbers; one that this kind of trip never looks at was meant for another.
fn number<K: Parse>(
    findings: &mut Findings<'_>,
    section: &mut Section<'_>,
    setting: &'static Setting<K, Is<K::Value>>,
    trips: Option<Trips>,
) -> K::Value
where
    K::Value: Copy,
{
    let Some(item) = section.item(setting) else { return setting.default.0 };
    let uses = |trips: Trips| trips.uses().contains(&setting.name());
    if let Some(trips) = trips.filter(|trips| !uses(*trips)) {
        let others = Trips::NAMES.iter().filter(|(_, other)| uses(*other));
        let others: Vec<String> = others.map(|(name, _)| format!("trip = \"{name}\"")).collect();
        findings
            .error(item.span(), format!("{} has no effect with trip = \"{}\"", item.name, trips.name()))
            .expected(trips.uses().join(", "))
            .hint(format!("remove it, or write {}", others.join(" or ")));
    }
    setting.kind.parse(findings, &item).unwrap_or(setting.default.0)
}

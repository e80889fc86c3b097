//! One `[handlers.NAME]` section.

use super::findings::Findings;
use super::secret::{self, Environment};
use super::section::{Item, Later, Section, kind};
use super::values::{self, PatternAt};
use super::{HandlerSettings, SandboxMode, Start, fields};
use crate::clock::Timestamp;
use crate::handler::{Dedup, HandlerName, OnFailure, Policy, Retry};
use crate::message::BODY_BYTES_MAX;
use crate::routing::{IdFrom, KeyFrom};
use crate::topic::Pattern;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// Enough to use every core of a common server, few enough that an idle handler costs little.
pub const SHARDS_DEFAULT: u16 = 8;
const SHARDS_MAX: u64 = 1024;
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

const LATER: &[Later] = &[
    ("breaker", "remove it: a failing handler is retried with growing waits"),
    ("dead", "remove it: every dead letter is kept"),
    ("http", "remove it: handlers of this version cannot call out"),
    ("reply", "remove it: handlers of this version answer no requests"),
    ("signals", "remove it: use `subscribe`"),
    ("group", "remove it: it belongs to `signals`, which this version does not have"),
];
const LIMIT_LATER: &[Later] = &[("rate", "use `concurrency`")];

/// Reads one handler. `None`: it is unusable; the reasons are reported.
pub(super) fn read(
    findings: &mut Findings<'_>,
    name: HandlerName,
    name_span: Range<usize>,
    mut section: Section<'_>,
    directory: &Path,
    environment: Environment<'_>,
) -> Option<HandlerSettings> {
    let module_item = section.item("module");
    let module = module_item.as_ref().and_then(|item| module(findings, item, directory));
    let subscribe_item = section.item("subscribe");
    let subscribe = subscribe_item.as_ref().map(|item| subscribe(findings, item));
    let start = section.read(findings, "start", start).unwrap_or(Start::Latest);
    let publish = section.read(findings, "publish", values::patterns).unwrap_or_default();
    let subscribed = subscribe.as_deref().unwrap_or_default();
    let key = section.read(findings, "key", |f, item| fields::key(f, item, subscribed)).unwrap_or(KeyFrom::Message);
    let id = section.read(findings, "id", |f, item| fields::id(f, item, subscribed)).unwrap_or(IdFrom::Message);
    let shards = section.read(findings, "shards", |f, item| values::integer(f, item, 1..=SHARDS_MAX));
    let sandbox = section.read(findings, "sandbox", |f, item| {
        values::choice(f, item, &[("fresh", SandboxMode::Fresh), ("warm", SandboxMode::Warm)])
    });
    let timeout = section.read(findings, "timeout", |f, item| {
        values::duration(f, item, Duration::from_millis(10)..=Duration::from_secs(3600))
    });
    let memory = section.read(findings, "memory", |f, item| values::size(f, item, 1 << 20..=4 << 30));
    let policy = policy(findings, &mut section, subscribed);
    let config = section.read(findings, "config", |f, item| secret::config(f, item, directory, environment));
    section.finish(findings, LATER);

    for (name, present) in [("module", module_item.is_some()), ("subscribe", subscribe_item.is_some())] {
        if !present {
            let example = if name == "module" { "module = \"order.wasm\"" } else { "subscribe = [\"events.*\"]" };
            findings
                .error(name_span.clone(), format!("the handler has no `{name}`"))
                .expected(example)
                .hint(format!("add `{name}` to its section"));
        }
    }
    check_grants(findings, &publish, subscribed);

    Some(HandlerSettings {
        name,
        module: module?,
        subscribe: plain(subscribe?),
        key,
        id,
        shards: shards.and_then(|shards| u16::try_from(shards).ok()).unwrap_or(SHARDS_DEFAULT),
        start,
        publish: plain(publish),
        sandbox: sandbox.unwrap_or(SandboxMode::Fresh),
        timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
        memory_bytes: memory.unwrap_or(MEMORY_BYTES_DEFAULT),
        policy,
        config: config.unwrap_or_default(),
    })
}

fn plain(patterns: Vec<PatternAt>) -> Vec<Pattern> {
    patterns.into_iter().map(|at| at.pattern).collect()
}

fn module(findings: &mut Findings<'_>, item: &Item<'_>, directory: &Path) -> Option<PathBuf> {
    let typed = values::text(findings, item, "the path of a .wasm file")?;
    let path = directory.join(typed);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Some(path),
        Ok(_) => {
            findings
                .error(item.span(), format!("`{}` is not a file", path.display()))
                .expected("the path of a .wasm file");
            None
        }
        Err(error) => {
            findings
                .error(item.span(), format!("failed to find the module `{}`: {error}", path.display()))
                .hint("paths are relative to the settings file; `sluicebox build` builds the handlers next to it");
            None
        }
    }
}

fn subscribe(findings: &mut Findings<'_>, item: &Item<'_>) -> Vec<PatternAt> {
    let Some(patterns) = values::patterns(findings, item) else { return vec![] };
    if matches!(item.value.get_ref(), DeValue::Array(entries) if entries.is_empty()) {
        findings
            .error(item.span(), "`subscribe` is empty: the handler would get nothing")
            .expected("1 pattern or more");
    }
    for at in patterns.iter().filter(|at| at.pattern.as_str().starts_with('_')) {
        findings
            .error(at.span.clone(), format!("`{}` begins with `_`: such topics belong to the host", at.pattern))
            .hint("subscribe to topics of your own");
    }
    patterns
}

/// Grants that cannot work, and those that may run in a circle.
fn check_grants(findings: &mut Findings<'_>, publish: &[PatternAt], subscribe: &[PatternAt]) {
    for PatternAt { pattern, span } in publish {
        if pattern.as_str().starts_with('_') {
            findings
                .error(
                    span.clone(),
                    format!("the grant `{pattern}` can never match: topics with `_` belong to the host"),
                )
                .hint("grant topics of your own");
        }
        if let Some(own) = subscribe.iter().find(|own| own.pattern.overlaps(pattern)) {
            findings
                .warning(
                    span.clone(),
                    format!("the handler may get its own messages: `{pattern}` meets `{}`", own.pattern),
                )
                .hint("a message that went through more than 32 handlers is a dead letter `loop`");
        }
    }
}

fn start(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Start> {
    const EXPECTED: &str = "\"latest\", \"earliest\" or a time such as \"2026-01-31T08:00:00Z\"";
    let typed = match item.value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        _ => {
            values::wrong(findings, item, EXPECTED);
            return None;
        }
    };
    match typed.as_str() {
        "latest" => Some(Start::Latest),
        "earliest" => Some(Start::Earliest),
        _ => {
            let time = typed.parse::<jiff::Timestamp>().ok();
            let ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
            if ms.is_none() {
                findings
                    .error(item.span(), format!("`start` cannot be `{typed}`"))
                    .expected(EXPECTED)
                    .hint("a time is RFC 3339 with its zone: add `Z` for UTC");
            }
            ms.map(|ms| Start::At(Timestamp(ms)))
        }
    }
}

fn policy(findings: &mut Findings<'_>, section: &mut Section<'_>, subscribe: &[PatternAt]) -> Policy {
    let default = Policy::default();
    let dedup = section.read(findings, "dedup", |f, item| dedup(f, item, subscribe)).unwrap_or(default.dedup);
    let retry_section = section.section(findings, "retry");
    let retry = retry(findings, retry_section);
    let on_failure = section.read(findings, "on_failure", |f, item| {
        values::choice(f, item, &[("park", OnFailure::Park), ("skip", OnFailure::Skip)])
    });
    let mut limit = section.section(findings, "limit");
    let concurrency = limit.read(findings, "concurrency", |f, item| values::integer(f, item, 1..=100_000));
    let body = limit.read(findings, "body", |f, item| values::size(f, item, 1..=BODY_BYTES_MAX as u64));
    limit.finish(findings, LIMIT_LATER);
    Policy {
        dedup,
        retry,
        on_failure: on_failure.unwrap_or(default.on_failure),
        concurrency: concurrency.and_then(|runs| usize::try_from(runs).ok()).unwrap_or(default.concurrency),
        body_bytes_max: body.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default.body_bytes_max),
        ..default
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

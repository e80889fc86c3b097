//! One `[handlers.NAME]` section.

use super::findings::Findings;
use super::secret::{self, Environment};
use super::section::{Item, Later, Section};
use super::values::{self, PatternAt};
use super::{HandlerSettings, SandboxMode, Start, fields, policy};
use crate::clock::Timestamp;
use crate::handler::HandlerName;
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

const LATER: &[Later] = &[
    ("http", "remove it: handlers of this version cannot call out"),
    ("reply", "remove it: handlers of this version answer no requests"),
    ("signals", "remove it: use `subscribe`"),
    ("group", "remove it: it belongs to `signals`, which this version does not have"),
];

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
    let policy = policy::read(findings, &mut section, subscribed);
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

pub(super) fn plain(patterns: Vec<PatternAt>) -> Vec<Pattern> {
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

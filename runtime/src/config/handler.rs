//! One `[handlers.NAME]` section.

use super::declared::handler as declared;
use super::findings::Findings;
use super::guest_config::{self, Environment};
use super::item::Item;
use super::section::{Later, Section};
use super::setting::Kind as _;
use super::settings::HandlerSettings;
use super::values::{self, PatternAt, plain};
use super::{fields, policy};
use crate::handler::HandlerName;
use crate::routing::{IdFrom, KeyFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

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
    let module_item = section.item(&declared::MODULE);
    let module = module_item.as_ref().and_then(|item| module(findings, item, directory));
    let subscribe_item = section.item(&declared::SUBSCRIBE);
    let subscribe = subscribe_item.as_ref().map(|item| subscribe(findings, item));
    let start = section.value(findings, &declared::START);
    let publish = section.read(findings, &declared::PUBLISH, values::patterns).unwrap_or_default();
    let subscribed = subscribe.as_deref().unwrap_or_default();
    let key = section.read(findings, &declared::KEY, |f, item| fields::key(f, item, subscribed));
    let id = section.read(findings, &declared::ID, |f, item| fields::id(f, item, subscribed));
    let shards = section.value(findings, &declared::SHARDS);
    let sandbox = section.value(findings, &declared::SANDBOX);
    let timeout = section.value(findings, &declared::TIMEOUT);
    let memory_bytes = section.value(findings, &declared::MEMORY);
    let policy = policy::read(findings, &mut section, subscribed);
    let show_state = section.value(findings, &declared::SHOW_STATE);
    let config =
        section.read(findings, &declared::CONFIG, |f, item| guest_config::read(f, item, directory, environment));
    section.finish(findings, LATER);

    for (setting, present) in
        [(&declared::MODULE, module_item.is_some()), (&declared::SUBSCRIBE, subscribe_item.is_some())]
    {
        if !present {
            let name = setting.name();
            let problem = findings.error(name_span.clone(), format!("the handler has no `{name}`"));
            problem.expected(setting.example).hint(format!("add `{name}` to its section"));
        }
    }
    check_grants(findings, &publish, subscribed);

    Some(HandlerSettings {
        name,
        module: module?,
        subscribe: plain(subscribe?),
        key: key.unwrap_or(KeyFrom::Message),
        id: id.unwrap_or(IdFrom::Message),
        shards,
        start,
        publish: plain(publish),
        sandbox,
        timeout,
        memory_bytes,
        policy,
        show_state,
        config: config.unwrap_or_default(),
    })
}

fn module(findings: &mut Findings<'_>, item: &Item<'_>, directory: &Path) -> Option<PathBuf> {
    let expected = declared::MODULE.kind.expected();
    let typed = values::text(findings, item, &expected)?;
    let path = directory.join(typed);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Some(path),
        Ok(_) => {
            findings
                .error(item.span(), format!("`{}` is not a file", path.display()))
                .expected(expected)
                .hint("name the module itself, such as `order.wasm`");
            None
        }
        Err(error) => {
            findings
                .error(item.span(), format!("failed to find the module `{}`: {error}", path.display()))
                .expected(expected)
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
            .expected("1 pattern or more")
            .hint("name topics; `>` is all of them");
    }
    for at in patterns.iter().filter(|at| at.pattern.as_str().starts_with('_')) {
        findings
            .error(at.span.clone(), format!("`{}` begins with `_`: such topics belong to the host", at.pattern))
            .expected("topics that do not begin with `_`")
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
                .expected("topics that do not begin with `_`")
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

//! The settings of the host itself: `namespace`, `[log]`, `[host]`, `[http]`.

mod edges;
mod nats;
mod redis;
mod server;

use super::declared::host::{
    HOST_CLOCK_SKEW_MAX, HOST_DATA, HOST_DELAYED, HOST_DELAYED_BYTES, HOST_DELAYED_MAX, HOST_LEASE, HOST_NAME,
    HOST_WAITING, HTTP_LISTEN, HTTP_TOKEN_FILE, LOG_KIND, LOG_PATH, LOG_RETAIN, LOG_RETAIN_AGE, LOG_RETAIN_BYTES,
    NAMESPACE,
};
use super::findings::Findings;
use super::item::Item;
use super::kinds::{Address, Span, parse_listen};
use super::secret::{self, Secret};
use super::section::Section;
use super::setting::{Above, Kind, Parse};
use super::settings::{HostSettings, HttpSettings, LogKind, LogSettings, Namespace, Overrides, Retain};
use super::values;
use crate::handler::DelayedBound;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

/// A shorter token can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const EXPECTED_TOKEN: &str = "a file with 16 or more letters, digits and signs without white space between them";
const HINT_TOKEN: &str = "make one: head -c 24 /dev/urandom | base64 > token";
/// Shorter than this, a message could be gone before anyone saw it.
const RETAIN_AGE_MIN: Duration = Duration::from_secs(1);
const RETAIN_AGE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

pub(super) fn namespace(
    findings: &mut Findings<'_>,
    root: &mut Section<'_>,
    overrides: &Overrides,
) -> Option<Namespace> {
    let expected = || NAMESPACE.kind.expected();
    let typed = root.read(findings, &NAMESPACE, |findings, item| {
        let text = values::text(findings, item, &expected())?;
        let namespace = Namespace::parse(text);
        if namespace.is_none() {
            let message = format!("`{text}` is not a namespace");
            findings.error(item.span(), message).expected(expected()).hint(item.more());
        }
        namespace
    });
    let Some(text) = &overrides.namespace else { return typed.or_else(|| Namespace::parse(NAMESPACE.default.0)) };
    let namespace = Namespace::parse(text);
    if namespace.is_none() {
        let problem = findings.error_in(&origin(NAMESPACE.above), format!("`{text}` is not a namespace"));
        problem.expected(expected()).hint("unset it to take the name in the file");
    }
    namespace
}

pub(super) fn log(
    findings: &mut Findings<'_>,
    mut section: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> LogSettings {
    let kind = section.item(&LOG_KIND);
    // One that is none was reported: what stands beside it is looked at as if it were the default.
    let kind = kind.as_ref().and_then(|item| LOG_KIND.kind.parse(findings, item)).unwrap_or(LogKind::Embedded);
    let typed = match kind {
        LogKind::Embedded => embedded(findings, section, directory, overrides),
        LogKind::Nats => nats::read(findings, section, directory),
        LogKind::Redis => redis::read(findings, section, directory),
    };
    match overrides.log {
        Some(wanted) if wanted != kind => as_without_settings(wanted, directory, overrides),
        _ => typed,
    }
}

/// A log of this kind as it is where nothing is said of it.
fn as_without_settings(kind: LogKind, directory: &Path, overrides: &Overrides) -> LogSettings {
    let retain = Retain::default();
    match kind {
        LogKind::Embedded => {
            let path = overrides.data.clone().unwrap_or_else(|| directory.join(LOG_PATH.default.0));
            LogSettings::Embedded { path, retain }
        }
        LogKind::Nats => nats::without_settings(retain),
        LogKind::Redis => redis::without_settings(retain),
    }
}

fn embedded(
    findings: &mut Findings<'_>,
    mut section: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> LogSettings {
    let path = section.read(findings, &LOG_PATH, |findings, item| {
        let hint = format!("leave it out for `{}`", LOG_PATH.default.0);
        directory_at(findings, item, directory, &LOG_PATH.kind.expected(), &hint)
    });
    let retain = section.read(findings, &LOG_RETAIN, retain).unwrap_or_default();
    server::refuse(findings, &mut section);
    section.finish(findings, &[]);
    if overrides.data.as_ref().is_some_and(|data| data.as_os_str().is_empty()) {
        let problem = findings.error_in(&origin(LOG_PATH.above), "the path is empty");
        problem.expected(LOG_PATH.kind.expected()).hint("name a directory, or unset it");
    }
    let path = path.unwrap_or_else(|| directory.join(LOG_PATH.default.0));
    LogSettings::Embedded { path: overrides.data.clone().unwrap_or(path), retain }
}

/// `log`: the host's own data is beside it unless the settings say otherwise.
pub(super) fn host(
    findings: &mut Findings<'_>,
    mut section: Section<'_>,
    directory: &Path,
    log: &LogSettings,
    overrides: &Overrides,
) -> HostSettings {
    let data = section.read(findings, &HOST_DATA, |findings, item| {
        let hint = "leave it out for the directory of the log";
        directory_at(findings, item, directory, &HOST_DATA.kind.expected(), hint)
    });
    let name = section.read(findings, &HOST_NAME, |findings, item| {
        let text = values::text(findings, item, &HOST_NAME.kind.expected())?;
        let is_good = is_host_name(text);
        if !is_good {
            let message = format!("`{text}` is not the name of a host");
            findings.error(item.span(), message).expected(HOST_NAME.kind.expected()).hint(item.more());
        }
        is_good.then(|| text.to_owned())
    });
    let name = match &overrides.host_name {
        Some(above) if !is_host_name(above) => {
            let problem = findings.error_in(&origin(HOST_NAME.above), format!("`{above}` is not the name of a host"));
            problem.expected(HOST_NAME.kind.expected()).hint("unset it to take the name of the machine");
            None
        }
        Some(above) => Some(above.clone()),
        None => name,
    };
    let lease = section.value(findings, &HOST_LEASE);
    let clock_skew_max = section.value(findings, &HOST_CLOCK_SKEW_MAX);
    let waiting_bytes_max = section.value(findings, &HOST_WAITING);
    let mut delayed = section.section(findings, &HOST_DELAYED);
    let messages_max = delayed.value(findings, &HOST_DELAYED_MAX);
    let bytes_max = usize::try_from(delayed.value(findings, &HOST_DELAYED_BYTES)).unwrap_or(usize::MAX);
    delayed.finish(findings, &[]);
    let delayed = DelayedBound { messages_max, bytes_max };
    section.finish(findings, &[]);
    let data = data.unwrap_or_else(|| match log {
        LogSettings::Embedded { path, .. } => path.clone(),
        LogSettings::Nats { .. } | LogSettings::Redis { .. } => {
            overrides.data.clone().unwrap_or_else(|| directory.join(LOG_PATH.default.0))
        }
    });
    HostSettings { name, lease, data, clock_skew_max, accept_clock: overrides.accept_clock, waiting_bytes_max, delayed }
}

fn is_host_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The path of a directory, which need not be there.
fn directory_at(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    directory: &Path,
    expected: &str,
    hint: &str,
) -> Option<PathBuf> {
    let text = values::text(findings, item, expected)?;
    if text.is_empty() {
        findings.error(item.span(), format!("{} is empty", item.name)).expected(expected).hint(hint);
        return None;
    }
    Some(directory.join(text))
}

/// How long messages are kept; `false` keeps everything.
fn retain(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Retain> {
    let table = match item.value.get_ref() {
        DeValue::Boolean(false) => return Some(Retain { age: None, bytes_max: None }),
        DeValue::Table(table) => table,
        _ => {
            values::wrong(findings, item, &LOG_RETAIN.kind.expected());
            findings.last_hint("`retain = false` keeps everything");
            return None;
        }
    };
    let mut section = Section::of(&LOG_RETAIN, table);
    let age = section.read(findings, &LOG_RETAIN_AGE, |findings, item| match item.value.get_ref() {
        DeValue::Boolean(false) => Some(None),
        DeValue::String(_) => Span(RETAIN_AGE_MIN..=RETAIN_AGE_MAX).parse(findings, item).map(Some),
        _ => {
            values::wrong(findings, item, &LOG_RETAIN_AGE.kind.expected());
            None
        }
    });
    let bytes_max = section.given(findings, &LOG_RETAIN_BYTES);
    section.finish(findings, &[]);
    Some(Retain { age: age.unwrap_or(Retain::default().age), bytes_max })
}

pub(super) fn http(
    findings: &mut Findings<'_>,
    mut section: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> HttpSettings {
    let listen_item = section.item(&HTTP_LISTEN);
    let listen_typed = listen_item.as_ref().and_then(|item| Address.parse(findings, item));
    let token_item = section.item(&HTTP_TOKEN_FILE);
    let token_typed = token_item.as_ref().and_then(|item| token(findings, item, directory));
    section.finish(findings, &[]);

    let listen_override = overrides.listen.as_deref().and_then(|text| {
        let parsed = parse_listen(text);
        if let Err(hint) = &parsed {
            let message = format!("`{text}` is not an address to listen on");
            findings.error_in(&origin(HTTP_LISTEN.above), message).expected(Address.expected()).hint(hint);
        }
        parsed.ok()
    });
    let token_override = overrides.token_file.as_deref().map(|path| token_above(findings, path));
    let has_token = token_item.is_some() || token_override.is_some();
    let listen = listen_override.or(listen_typed).unwrap_or(HTTP_LISTEN.default.0);
    if !listen.ip().is_loopback() && !has_token {
        let message = format!("`{listen}` can be reached from other machines, which needs `token_file`");
        let problem = match (listen_override, &listen_item) {
            (None, Some(item)) => findings.error(item.span(), message),
            _ => findings.error_in(&origin(HTTP_LISTEN.above), message),
        };
        problem
            .expected("an address of this machine alone, or a token")
            .hint("add token_file = \"…\" under [http], or listen on 127.0.0.1");
    }
    HttpSettings { listen, token: token_override.unwrap_or(token_typed) }
}

/// What a flag or variable is called in messages.
fn origin(above: Option<Above>) -> String {
    above.map(Above::origin).unwrap_or_default()
}

fn token(findings: &mut Findings<'_>, item: &Item<'_>, directory: &Path) -> Option<Secret> {
    let text = secret::from_file(findings, item, directory, &HTTP_TOKEN_FILE.kind.expected())?;
    match checked_token(&text) {
        Ok(token) => Some(token),
        Err(problem) => {
            let message = format!("the token in {} {problem}", item.name);
            findings.error(item.span(), message).expected(EXPECTED_TOKEN).hint(HINT_TOKEN);
            None
        }
    }
}

/// The token of a flag or variable.
fn token_above(findings: &mut Findings<'_>, path: &Path) -> Option<Secret> {
    let problem = match secret::read_small(path) {
        Ok(text) => match checked_token(&text) {
            Ok(token) => return Some(token),
            Err(problem) => format!("the token in `{}` {problem}", path.display()),
        },
        Err(error) => format!("failed to read the token `{}`: {error}", path.display()),
    };
    findings.error_in(&origin(HTTP_TOKEN_FILE.above), problem).expected(EXPECTED_TOKEN).hint(HINT_TOKEN);
    None
}

/// The token, or what is wrong with it, without a word of it.
fn checked_token(text: &str) -> Result<Secret, String> {
    let token = text.trim();
    if token.len() < TOKEN_BYTES_MIN {
        Err(format!("has {} bytes, at least {TOKEN_BYTES_MIN} are needed", token.len()))
    } else if !token.bytes().all(|b| b.is_ascii_graphic()) {
        Err("has a character that cannot be sent in a header".into())
    } else {
        Ok(Secret::new(token))
    }
}

/// Relative paths of the file start at its directory.
pub(super) fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    }
}

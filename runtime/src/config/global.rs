//! The settings of the host itself: `namespace`, `[log]`, `[http]`.

use super::findings::Findings;
use super::secret::{self, Secret};
use super::section::{Item, Later, Section};
use super::{HttpSettings, LogSettings, Namespace, Overrides, Retain, values};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::DeValue;

const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const PATH_DEFAULT: &str = "data";
const NAMESPACE_DEFAULT: &str = "default";
/// Shorter than this, a message could be gone before anyone saw it.
const RETAIN_AGE_MIN: Duration = Duration::from_secs(1);
const RETAIN_AGE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The log with its indexes and the reserve for commits does not work in less.
const RETAIN_BYTES_MIN: u64 = 64 << 20;
/// A shorter token can be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const EXPECTED_LISTEN: &str = "an address and a port, such as \"127.0.0.1:8080\"";
const LISTEN_ORIGIN: &str = "--listen or SLUICEBOX_LISTEN";

const LOG_LATER: &[Later] = &[
    ("url", "it belongs to kind = \"nats\" or \"redis\", which this version does not have: use `path`"),
    ("ingress", "it belongs to kind = \"nats\", which this version does not have"),
    ("egress", "it belongs to kind = \"nats\", which this version does not have"),
];

pub(super) fn namespace(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Namespace> {
    let text = values::text(findings, item, "a name, such as \"shop\"")?;
    let namespace = Namespace::parse(text);
    if namespace.is_none() {
        findings
            .error(item.span(), format!("`{text}` is not a namespace"))
            .expected("a-z, then up to 62 of a-z 0-9 _ -");
    }
    namespace
}

pub(super) fn namespace_default() -> Namespace {
    Namespace(NAMESPACE_DEFAULT.into())
}

pub(super) fn log(
    findings: &mut Findings<'_>,
    mut section: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> LogSettings {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Embedded,
        Other,
    }
    let kinds = [("embedded", Kind::Embedded), ("nats", Kind::Other), ("redis", Kind::Other)];
    if let Some(item) = section.item("kind")
        && values::choice(findings, &item, &kinds) == Some(Kind::Other)
    {
        findings
            .error(item.span(), "this kind of log is not available in this version")
            .expected("\"embedded\"")
            .hint("remove `kind`, or write kind = \"embedded\"");
    }
    let path = section.read(findings, "path", |findings, item| {
        let text = values::text(findings, item, "the path of a directory")?;
        if text.is_empty() {
            findings.error(item.span(), "`path` is empty").hint(format!("leave it out for `{PATH_DEFAULT}`"));
            return None;
        }
        Some(directory.join(text))
    });
    let retain = section.read(findings, "retain", retain).unwrap_or_default();
    section.finish(findings, LOG_LATER);
    let path = path.unwrap_or_else(|| directory.join(PATH_DEFAULT));
    LogSettings::Embedded { path: overrides.data.clone().unwrap_or(path), retain }
}

/// How long messages are kept; `false` keeps everything.
fn retain(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Retain> {
    const EXPECTED: &str = "false, or a table such as { age = \"7d\", max_bytes = \"50GiB\" }";
    let table = match item.value.get_ref() {
        DeValue::Boolean(false) => return Some(Retain { age: None, bytes_max: None }),
        DeValue::Table(table) => table,
        _ => {
            values::wrong(findings, item, EXPECTED);
            findings.last_hint("`retain = false` keeps everything");
            return None;
        }
    };
    let mut section = Section::new("`retain`", Some(table));
    let age = section.read(findings, "age", |findings, item| match item.value.get_ref() {
        DeValue::Boolean(false) => Some(None),
        _ => values::duration(findings, item, RETAIN_AGE_MIN..=RETAIN_AGE_MAX).map(Some),
    });
    let bytes_max = section.read(findings, "max_bytes", |f, item| values::size(f, item, RETAIN_BYTES_MIN..=1 << 50));
    section.finish(findings, &[]);
    Some(Retain { age: age.unwrap_or(Retain::default().age), bytes_max })
}

pub(super) fn http(
    findings: &mut Findings<'_>,
    mut section: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> HttpSettings {
    let listen_item = section.item("listen");
    let listen_typed = listen_item.as_ref().and_then(|item| listen(findings, item));
    let token_item = section.item("token_file");
    let token = token_item.as_ref().and_then(|item| token(findings, item, directory));
    section.finish(findings, &[]);

    let listen_override = overrides.listen.as_deref().and_then(|text| {
        let parsed = parse_listen(text);
        if let Err(hint) = &parsed {
            let message = format!("`{text}` is not an address to listen on");
            findings.error_in(LISTEN_ORIGIN, message).expected(EXPECTED_LISTEN).hint(hint);
        }
        parsed.ok()
    });
    let listen = listen_override.or(listen_typed).unwrap_or(LISTEN_DEFAULT);
    if !listen.ip().is_loopback() && token_item.is_none() {
        let message = format!("`{listen}` can be reached from other machines, which needs `token_file`");
        let problem = match (listen_override, &listen_item) {
            (None, Some(item)) => findings.error(item.span(), message),
            _ => findings.error_in(LISTEN_ORIGIN, message),
        };
        problem.hint("add token_file = \"…\" under [http], or listen on 127.0.0.1");
    }
    HttpSettings { listen, token }
}

fn listen(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<SocketAddr> {
    let text = values::text(findings, item, EXPECTED_LISTEN)?;
    match parse_listen(text) {
        Ok(address) => Some(address),
        Err(hint) => {
            values::refused(findings, item, &format!("`{text}` is not an address to listen on"))
                .expected(EXPECTED_LISTEN)
                .hint(hint);
            None
        }
    }
}

/// The address, or a hint.
fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        if let Some(port) = text.strip_prefix(':') {
            format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for every interface")
        } else if text.parse::<u16>().is_ok() {
            format!("write `127.0.0.1:{text}`")
        } else if text.parse::<IpAddr>().is_ok() {
            format!("add a port: `{}`", SocketAddr::new(text.parse().unwrap_or(LISTEN_DEFAULT.ip()), 8080))
        } else if text.contains("://") {
            "leave the scheme out".into()
        } else {
            "host names are not looked up: write the numeric address".into()
        }
    })
}

fn token(findings: &mut Findings<'_>, item: &Item<'_>, directory: &Path) -> Option<Secret> {
    let text = secret::from_file(findings, item, directory)?;
    let token = text.trim();
    let problem = if token.len() < TOKEN_BYTES_MIN {
        format!("the token in {} has {} bytes, at least {TOKEN_BYTES_MIN} are needed", item.name, token.len())
    } else if !token.bytes().all(|b| b.is_ascii_graphic()) {
        format!("the token in {} has a character that cannot be sent in a header", item.name)
    } else {
        return Some(Secret::new(token));
    };
    findings.error(item.span(), problem).hint("make one: head -c 24 /dev/urandom | base64 > token");
    None
}

/// Relative paths of the file start at its directory.
pub(super) fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    }
}

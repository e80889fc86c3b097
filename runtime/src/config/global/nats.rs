//! What `[log]` says for kind = "nats": where the servers are, and who connects.

use super::{edges, retain};
use crate::config::declared::host::{
    LOG_CA_FILE, LOG_EGRESS, LOG_INGRESS, LOG_LOGIN, LOG_LOGIN_CREDENTIALS, LOG_LOGIN_NKEY, LOG_LOGIN_PASSWORD,
    LOG_LOGIN_TOKEN, LOG_LOGIN_USER, LOG_PATH, LOG_REPLICAS, LOG_RETAIN, LOG_URL,
};
use crate::config::findings::Findings;
use crate::config::item::Item;
use crate::config::secret::{self, Secret};
use crate::config::section::Section;
use crate::config::setting::{Kind as _, Setting};
use crate::config::settings::{LogSettings, NatsLogin, Retain};
use crate::config::values;
use std::path::Path;
use toml::de::DeValue;

pub(super) fn read(findings: &mut Findings<'_>, mut section: Section<'_>, directory: &Path) -> LogSettings {
    let url = section.read(findings, &LOG_URL, url);
    let login = section.read(findings, &LOG_LOGIN, |findings, item| login(findings, item, directory));
    let ca_file = section.read(findings, &LOG_CA_FILE, |findings, item| {
        let path = directory.join(values::text(findings, item, &LOG_CA_FILE.kind.expected())?);
        if !path.is_file() {
            let problem = findings.error(item.span(), format!("there is no file `{}`", path.display()));
            problem.expected(LOG_CA_FILE.kind.expected()).hint("paths are relative to the settings file");
        }
        Some(path)
    });
    let replicas = section.value(findings, &LOG_REPLICAS);
    let retain = section
        .read(findings, &LOG_RETAIN, |findings, item| {
            let typed = retain(findings, item)?;
            if typed.bytes_max.is_some() {
                let problem = findings.error(item.span(), "a log of kind \"nats\" does not count its bytes");
                problem
                    .expected("an age, or false")
                    .hint("leave `max_bytes` out, and set bounds of the account on the server");
            }
            Some(Retain { bytes_max: None, ..typed })
        })
        .unwrap_or_default();
    if let Some(item) = section.item(&LOG_PATH) {
        let problem = findings.error(item.span(), "`path` belongs to kind = \"embedded\"");
        problem
            .expected("`url`, which says where the servers are")
            .hint("the host's own directory is `data` in [host]");
    }
    let edges = edges::read(findings, &mut section);
    section.finish(findings, &[]);
    let url = url.unwrap_or_else(|| LOG_URL.default.0.to_owned());
    LogSettings::Nats { url, login: login.unwrap_or(NatsLogin::None), ca_file, replicas, retain, edges }
}

/// What only this kind has is refused beside another one.
pub(super) fn refuse(findings: &mut Findings<'_>, section: &mut Section<'_>) {
    let items = [
        section.item(&LOG_URL),
        section.item(&LOG_LOGIN),
        section.item(&LOG_CA_FILE),
        section.item(&LOG_REPLICAS),
        section.item(&LOG_INGRESS),
        section.item(&LOG_EGRESS),
    ];
    for item in items.into_iter().flatten() {
        let problem = findings.error(item.span(), format!("{} belongs to kind = \"nats\"", item.name));
        problem.cut_excerpt();
        problem.expected("`path`, which says where the embedded log is").hint("write kind = \"nats\", or remove it");
    }
}

fn url(findings: &mut Findings<'_>, item: &Item<'_>) -> Option<String> {
    let expected = LOG_URL.kind.expected();
    let text = values::text(findings, item, &expected)?;
    let is_good =
        |url: &str| ["nats://", "tls://"].iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
    if text.contains('@') {
        let problem = findings.error(item.span(), format!("{} has a name or a password in it", item.name));
        problem.cut_excerpt();
        problem
            .expected(expected)
            .hint("write login = { user = \"…\", password_file = \"…\" }: addresses are shown, files are not");
        return None;
    }
    if let Some(bad) = text.split(',').map(str::trim).find(|url| !is_good(url)) {
        let problem = findings.error(item.span(), format!("`{bad}` is not the address of a server"));
        problem.expected(expected).hint("begin with nats://, or with tls:// for encryption");
        return None;
    }
    Some(text.to_owned())
}

fn login(findings: &mut Findings<'_>, item: &Item<'_>, directory: &Path) -> Option<NatsLogin> {
    let DeValue::Table(table) = item.value.get_ref() else {
        values::wrong(findings, item, &LOG_LOGIN.kind.expected());
        findings.last_hint("secrets stand in files of their own");
        return None;
    };
    let mut section = Section::of(&LOG_LOGIN, table);
    let credentials = file(findings, &mut section, &LOG_LOGIN_CREDENTIALS, directory);
    let token = file(findings, &mut section, &LOG_LOGIN_TOKEN, directory);
    let nkey = file(findings, &mut section, &LOG_LOGIN_NKEY, directory);
    let password = file(findings, &mut section, &LOG_LOGIN_PASSWORD, directory);
    let user = section.read(findings, &LOG_LOGIN_USER, |findings, item| {
        values::text(findings, item, &LOG_LOGIN_USER.kind.expected()).map(str::to_owned)
    });
    let typed = table.len();
    section.finish(findings, &[]);
    let login = match (credentials, token, nkey, user, password) {
        (Some(text), None, None, None, None) => Some(NatsLogin::Credentials(text)),
        (None, Some(text), None, None, None) => Some(NatsLogin::Token(trimmed(&text))),
        (None, None, Some(text), None, None) => Some(NatsLogin::Nkey(trimmed(&text))),
        (None, None, None, Some(user), Some(password)) => Some(NatsLogin::User { user, password: trimmed(&password) }),
        (None, None, None, None, None) if typed > 0 => return None,
        _ => None,
    };
    if login.is_none() {
        let problem = findings.error(item.span(), "`login` does not say one way to connect");
        problem.cut_excerpt();
        problem
            .expected("one of credentials_file, server_token_file, nkey_file, or user and password_file")
            .hint("keep the one that the server asks for");
    }
    login
}

fn trimmed(text: &Secret) -> Secret {
    Secret::new(text.expose().trim())
}

fn file<K: crate::config::setting::Kind, D>(
    findings: &mut Findings<'_>,
    section: &mut Section<'_>,
    setting: &'static Setting<K, D>,
    directory: &Path,
) -> Option<Secret> {
    section.read(findings, setting, |findings, item| {
        secret::from_file(findings, item, directory, &setting.kind.expected()).map(Secret::new)
    })
}

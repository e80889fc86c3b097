//! What `[log]` says for kind = "nats": where the servers are, and who connects.

use super::edges;
use super::server::{ca_file, file, refuse_path, retain_by_age, trimmed, url, user_and_password};
use crate::config::declared::host::{
    LOG_CHANNELS, LOG_LOGIN, LOG_LOGIN_CREDENTIALS, LOG_LOGIN_NKEY, LOG_LOGIN_TOKEN, LOG_REPLICAS, LOG_URL,
};
use crate::config::findings::Findings;
use crate::config::item::Item;
use crate::config::section::Section;
use crate::config::setting::Kind as _;
use crate::config::settings::{Edges, LogSettings, NatsLogin, Retain};
use crate::config::values;
use std::path::Path;
use toml::de::DeValue;

const URL: &str = "nats://127.0.0.1:4222";
const HINT_URL: &str = "begin with nats://, or with tls:// for encryption";

pub(super) fn read(findings: &mut Findings<'_>, mut section: Section<'_>, directory: &Path) -> LogSettings {
    let url =
        section.read(findings, &LOG_URL, |findings, item| url(findings, item, &["nats://", "tls://"], HINT_URL, true));
    let login = section.read(findings, &LOG_LOGIN, |findings, item| login(findings, item, directory));
    let ca_file = ca_file(findings, &mut section, directory);
    let replicas = section.value(findings, &LOG_REPLICAS);
    let retain = retain_by_age(findings, &mut section, "nats", "bounds of the account on the server");
    refuse_path(findings, &mut section);
    if let Some(item) = section.item(&LOG_CHANNELS) {
        let problem = findings.error(item.span(), "`ingress_channels` belongs to kind = \"redis\"");
        problem
            .expected("no `ingress_channels`")
            .hint("name the subjects in `ingress`: a stream keeps what comes there");
    }
    let edges = edges::read(findings, &mut section);
    section.finish(findings, &[]);
    let url = url.unwrap_or_else(|| URL.to_owned());
    LogSettings::Nats { url, login: login.unwrap_or(NatsLogin::None), ca_file, replicas, retain, edges }
}

/// A server of this machine that asks nobody who connects.
pub(super) fn without_settings(retain: Retain) -> LogSettings {
    let (url, login, edges) = (URL.to_owned(), NatsLogin::None, Edges::default());
    LogSettings::Nats { url, login, ca_file: None, replicas: 1, retain, edges }
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
    let (user, password) = user_and_password(findings, &mut section, directory);
    let typed = table.len();
    section.finish(findings, &[]);
    let login = match (credentials, token, nkey, user, password) {
        (Some(text), None, None, None, None) => Some(NatsLogin::Credentials(text)),
        (None, Some(text), None, None, None) => Some(NatsLogin::Token(trimmed(&text))),
        (None, None, Some(text), None, None) => Some(NatsLogin::Nkey(trimmed(&text))),
        (None, None, None, Some(user), Some(password)) => Some(NatsLogin::User { user, password }),
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

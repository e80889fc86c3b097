//! What `[log]` says for kind = "redis": where the server is, and who connects.

use super::edges;
use super::server::{ca_file, refuse_path, retain_by_age, url, user_and_password};
use crate::config::declared::host::{LOG_LOGIN, LOG_REPLICAS, LOG_URL};
use crate::config::findings::Findings;
use crate::config::item::Item;
use crate::config::section::Section;
use crate::config::setting::Kind as _;
use crate::config::settings::{Edges, LogSettings, RedisLogin, Retain};
use crate::config::values;
use crate::log::redis::check_url;
use std::path::Path;
use toml::de::DeValue;

const URL: &str = "redis://127.0.0.1:6379";
const SCHEMES: [&str; 5] = ["redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://"];
const HINT_URL: &str =
    "begin with redis://, with rediss:// for encryption, with unix:// for a socket, or with redis+sentinel://";

pub(super) fn read(findings: &mut Findings<'_>, mut section: Section<'_>, directory: &Path) -> LogSettings {
    let url = section.read(findings, &LOG_URL, |findings, item| {
        let text = url(findings, item, &SCHEMES, HINT_URL, false)?;
        if let Err(reason) = check_url(&text) {
            let problem = findings.error(item.span(), reason);
            problem
                .expected(LOG_URL.kind.expected())
                .hint("sentinels say where a master is, by the name they have for it");
            return None;
        }
        Some(text)
    });
    let login = section.read(findings, &LOG_LOGIN, |findings, item| login(findings, item, directory));
    let ca_file = ca_file(findings, &mut section, directory);
    let retain = retain_by_age(findings, &mut section, "redis", "`maxmemory` of the server");
    refuse_path(findings, &mut section);
    if let Some(item) = section.item(&LOG_REPLICAS) {
        let problem = findings.error(item.span(), "`replicas` belongs to kind = \"nats\"");
        problem.expected("no `replicas`").hint("remove it: who copies a Redis server is said there");
    }
    let edges = edges::read(findings, &mut section);
    section.finish(findings, &[]);
    let url = url.unwrap_or_else(|| URL.to_owned());
    LogSettings::Redis { url, login: login.unwrap_or(RedisLogin::None), ca_file, retain, edges }
}

/// A server of this machine that asks nobody who connects.
pub(super) fn without_settings(retain: Retain) -> LogSettings {
    let edges = Edges::default();
    LogSettings::Redis { url: URL.to_owned(), login: RedisLogin::None, ca_file: None, retain, edges }
}

fn login(findings: &mut Findings<'_>, item: &Item<'_>, directory: &Path) -> Option<RedisLogin> {
    let DeValue::Table(table) = item.value.get_ref() else {
        values::wrong(findings, item, &LOG_LOGIN.kind.expected());
        findings.last_hint("secrets stand in files of their own");
        return None;
    };
    let mut section = Section::of(&LOG_LOGIN, table);
    let (user, password) = user_and_password(findings, &mut section, directory);
    let typed = table.len();
    section.finish(findings, &[]);
    match (user, password) {
        (user, Some(password)) => Some(user.map_or(RedisLogin::Password(password.clone()), |user| RedisLogin::User {
            user,
            password: password.clone(),
        })),
        // What is wrong with it was said.
        (None, None) if typed > 0 => None,
        _ => {
            let problem = findings.error(item.span(), "`login` does not say how to connect");
            problem.cut_excerpt();
            problem
                .expected("password_file, or user and password_file")
                .hint("the password stands in a file of its own");
            None
        }
    }
}

//! What `[log]` says for every kind that is on servers.

use super::retain;
use crate::config::declared::host::{
    LOG_CA_FILE, LOG_CHANNELS, LOG_EGRESS, LOG_INGRESS, LOG_LOGIN, LOG_LOGIN_PASSWORD, LOG_LOGIN_USER, LOG_PATH,
    LOG_REPLICAS, LOG_RETAIN, LOG_URL,
};
use crate::config::findings::Findings;
use crate::config::item::Item;
use crate::config::secret::{self, Secret};
use crate::config::section::Section;
use crate::config::setting::{Kind as _, Setting};
use crate::config::settings::Retain;
use crate::config::values;
use std::path::{Path, PathBuf};

/// An address that is shown, so it has no secrets in it.
pub(super) fn url(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    schemes: &[&str],
    hint: &str,
    is_list: bool,
) -> Option<String> {
    let expected = LOG_URL.kind.expected();
    let text = values::text(findings, item, &expected)?;
    let is_good = |url: &str| schemes.iter().any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
    if text.contains('@') {
        let problem = findings.error(item.span(), format!("{} has a name or a password in it", item.name));
        problem.cut_excerpt();
        problem
            .expected(expected)
            .hint("write login = { user = \"…\", password_file = \"…\" }: addresses are shown, files are not");
        return None;
    }
    let urls: Vec<&str> = if is_list { text.split(',').map(str::trim).collect() } else { vec![text] };
    if let Some(bad) = urls.into_iter().find(|url| !is_good(url)) {
        let problem = findings.error(item.span(), format!("`{bad}` is not the address of a server"));
        problem.expected(expected).hint(hint);
        return None;
    }
    Some(text.to_owned())
}

pub(super) fn ca_file(findings: &mut Findings<'_>, section: &mut Section<'_>, directory: &Path) -> Option<PathBuf> {
    section.read(findings, &LOG_CA_FILE, |findings, item| {
        let path = directory.join(values::text(findings, item, &LOG_CA_FILE.kind.expected())?);
        if !path.is_file() {
            let problem = findings.error(item.span(), format!("there is no file `{}`", path.display()));
            problem.expected(LOG_CA_FILE.kind.expected()).hint("paths are relative to the settings file");
        }
        Some(path)
    })
}

/// How long messages are kept, by their age alone.
pub(super) fn retain_by_age(findings: &mut Findings<'_>, section: &mut Section<'_>, kind: &str, bound: &str) -> Retain {
    let read = section.read(findings, &LOG_RETAIN, |findings, item| {
        let typed = retain(findings, item)?;
        if typed.bytes_max.is_some() {
            let problem = findings.error(item.span(), format!("a log of kind \"{kind}\" does not count its bytes"));
            problem.expected("an age, or false").hint(format!("leave `max_bytes` out, and set {bound}"));
        }
        Some(Retain { bytes_max: None, ..typed })
    });
    read.unwrap_or_default()
}

/// What only the embedded log has.
pub(super) fn refuse_path(findings: &mut Findings<'_>, section: &mut Section<'_>) {
    if let Some(item) = section.item(&LOG_PATH) {
        let problem = findings.error(item.span(), "`path` belongs to kind = \"embedded\"");
        problem
            .expected("`url`, which says where the servers are")
            .hint("the host's own directory is `data` in [host]");
    }
}

/// What the embedded log does not have.
pub(super) fn refuse(findings: &mut Findings<'_>, section: &mut Section<'_>) {
    let both = "\"nats\" or \"redis\"";
    let items = [
        (section.item(&LOG_URL), both),
        (section.item(&LOG_LOGIN), both),
        (section.item(&LOG_CA_FILE), both),
        (section.item(&LOG_REPLICAS), "\"nats\""),
        (section.item(&LOG_INGRESS), both),
        (section.item(&LOG_CHANNELS), "\"redis\""),
        (section.item(&LOG_EGRESS), both),
    ];
    for (item, kinds) in items {
        let Some(item) = item else { continue };
        let problem = findings.error(item.span(), format!("{} belongs to kind = {kinds}", item.name));
        problem.cut_excerpt();
        problem
            .expected("`path`, which says where the embedded log is")
            .hint(format!("write kind = {kinds}, or remove it"));
    }
}

/// The user and the password in a table of who connects.
pub(super) fn user_and_password(
    findings: &mut Findings<'_>,
    section: &mut Section<'_>,
    directory: &Path,
) -> (Option<String>, Option<Secret>) {
    let password = file(findings, section, &LOG_LOGIN_PASSWORD, directory).map(|text| trimmed(&text));
    let user = section.read(findings, &LOG_LOGIN_USER, |findings, item| {
        values::text(findings, item, &LOG_LOGIN_USER.kind.expected()).map(str::to_owned)
    });
    (user, password)
}

pub(super) fn trimmed(text: &Secret) -> Secret {
    Secret::new(text.expose().trim())
}

/// The secret in a file that a setting names.
pub(super) fn file<K: crate::config::setting::Kind, D>(
    findings: &mut Findings<'_>,
    section: &mut Section<'_>,
    setting: &'static Setting<K, D>,
    directory: &Path,
) -> Option<Secret> {
    section.read(findings, setting, |findings, item| {
        secret::from_file(findings, item, directory, &setting.kind.expected()).map(Secret::new)
    })
}

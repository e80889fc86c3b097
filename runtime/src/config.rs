//! Settings: one TOML file, as typed, turned once into settings ready for use.
//!
//! [`load`] reads the file and either returns [`Settings`] in which nothing invalid can be written down, or every
//! [`Problem`] it found, each with its place, what was expected, and a hint. It reads files that the settings name
//! (tokens, values) and looks whether modules exist; it opens no log and loads no module.
//!
//! Flags win over `SLUICEBOX_*` variables, which win over the file; the command line merges the first two into
//! [`Overrides`]. Paths are relative to the file.
//!
//! Every setting is declared once, in `declared`; the parser takes names, bounds and defaults from there, and
//! [`reference`] describes them.

mod breaker;
mod declared;
mod fields;
mod files;
mod findings;
mod global;
mod guest_config;
mod handler;
mod item;
mod kinds;
mod nearest;
mod policy;
mod problem;
pub mod reference;
mod secret;
mod section;
mod setting;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod units;
mod values;
mod waits;

pub use declared::handler::{MEMORY_BYTES_DEFAULT, SHARDS_DEFAULT, TIMEOUT_DEFAULT};
pub use files::files;
pub(crate) use nearest::nearest;
pub use problem::{Excerpt, Location, Problem, Problems, Severity};
pub use secret::Secret;
pub use settings::{
    Edges, HandlerSettings, HostSettings, HttpSettings, LogKind, LogSettings, Namespace, NatsLogin, Overrides,
    RedisLogin, Retain, SandboxMode, Settings, ShowState, Start,
};

use crate::handler::HandlerName;
use findings::Findings;
use guest_config::Environment;
use section::{Later, Section};
use std::path::Path;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// The file that commands look for.
pub const FILE_NAME: &str = "sluicebox.toml";

const LATER: &[Later] = &[("flows", "remove it: flows are not there yet")];

/// Valid settings and what is doubtful about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub warnings: Vec<Problem>,
}

/// Reads and checks a settings file.
pub fn load(file: &Path, overrides: &Overrides) -> Result<Loaded, Problems> {
    let text = source::read(file)?;
    parse(&text, file, overrides, &|name| std::env::var(name).ok())
}

/// What a settings file says of the log, whatever else is wrong with it: modules may have yet to be built. `None`: it
/// cannot be told.
pub fn log_of(file: &Path, overrides: &Overrides) -> Option<LogSettings> {
    let text = source::read(file).ok()?;
    let (root, errors) = DeTable::parse_recoverable(&text);
    let mut findings = Findings::new(file, &text);
    let log = Section::root(root.get_ref()).section(&mut findings, &declared::host::LOG);
    let log = global::log(&mut findings, log, &global::directory_of(file), overrides);
    (errors.is_empty() && Problems(findings.into_problems()).errors() == 0).then_some(log)
}

fn parse(text: &str, file: &Path, overrides: &Overrides, environment: Environment<'_>) -> Result<Loaded, Problems> {
    let mut findings = Findings::new(file, text);
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // What follows a syntax error was read in a broken context: more errors would be guesses.
        for error in syntax_errors {
            let (expected, hint) = match error.message() {
                "duplicate key" => ("each name once in its section", "a name may be there once: remove or rename one"),
                _ => (
                    "TOML: [sections], and lines such as name = \"value\"",
                    "the file is TOML, see https://toml.io; if it looks cut off, save it again",
                ),
            };
            // At the end of a text there is no character to point at.
            let span = error.span().unwrap_or(text.len()..text.len());
            findings.error(span, error.message()).expected(expected).hint(hint);
        }
        return Err(Problems(findings.into_problems()));
    }

    if root.get_ref().is_empty() {
        // A file that was cut off before its first setting; taken as one, it would take every handler away.
        let hint = "was it cut off? a host without handlers says at least its `namespace`";
        return Err(source::refused(file, "the settings are empty".into(), hint));
    }

    let directory = global::directory_of(file);
    let mut root = Section::root(root.get_ref());
    let namespace = global::namespace(&mut findings, &mut root, overrides);
    let log = root.section(&mut findings, &declared::host::LOG);
    let log = global::log(&mut findings, log, &directory, overrides);
    let host = root.section(&mut findings, &declared::host::HOST);
    let host = global::host(&mut findings, host, &directory, &log, overrides);
    let http = root.section(&mut findings, &declared::host::HTTP);
    let http = global::http(&mut findings, http, &directory, overrides);
    let handlers = root
        .read(&mut findings, &declared::host::HANDLERS, |findings, item| match item.value.get_ref() {
            DeValue::Table(table) => Some(handlers(findings, table, &directory, environment)),
            _ => {
                values::wrong(findings, item, declared::host::HANDLERS.kind.0);
                None
            }
        })
        .unwrap_or_default();
    root.finish(&mut findings, LATER);

    let problems = Problems(findings.into_problems());
    match (problems.errors(), namespace) {
        (0, Some(namespace)) => {
            Ok(Loaded { settings: Settings { namespace, log, host, http, handlers }, warnings: problems.0 })
        }
        _ => Err(problems),
    }
}

fn handlers(
    findings: &mut Findings<'_>,
    table: &DeTable<'_>,
    directory: &Path,
    environment: Environment<'_>,
) -> Vec<HandlerSettings> {
    table
        .values()
        .filter_map(|value| value.get_ref().as_table())
        .for_each(|table| guest_config::conceal(findings, table));
    let mut handlers: Vec<HandlerSettings> = vec![];
    for (typed, value) in table {
        let title = format!("[handlers.{}]", typed.get_ref());
        let DeValue::Table(settings) = value.get_ref() else {
            let problem =
                findings.error(value.span(), format!("`{}` under `handlers` is not a section", typed.get_ref()));
            problem.expected("a section such as [handlers.order]").hint("settings of a handler stand under its name");
            continue;
        };
        let name = match HandlerName::parse_public(typed.get_ref()) {
            Ok(name) => name,
            Err(_) if HandlerName::parse(typed.get_ref()).is_ok() => {
                let own = format!("`{}` is the host's own handler, which needs no settings", typed.get_ref());
                let problem = findings.error(typed.span(), own);
                problem.expected("[handlers.NAME] with a name of your own").hint(
                    "what may be delayed is `delayed` in [host]; plain clients are `ingress` and `egress` in [log]",
                );
                continue;
            }
            Err(error) => {
                let problem = findings.error(typed.span(), error.to_string());
                problem.expected("[handlers.NAME] with such a name").hint("the log knows a handler by its name");
                continue;
            }
        };
        let section = Section::new(title, "handlers.*", Some(settings));
        handlers.extend(handler::read(findings, name, typed.span(), section, directory, environment));
    }
    handlers
}

/// A duration as the settings write it, such as `1h30m`; the error says what to write.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|bad| format!("{}: {}", bad.message, bad.hint))
}

//! The reference of all settings, written from their declarations: for the terminal, for programs, and as Markdown.

use super::declared;
use super::nearest::nearest;
pub use super::setting::Described;
use super::setting::{Declared, last};
use std::fmt::Write as _;

/// Every setting, in the order of the reference.
pub fn all() -> Vec<Described> {
    declared::all().map(Declared::describe).collect()
}

/// The settings of a name as people type it: `timeout`, `limit.rate`, `handlers.order.retry`. A table's name stands for
/// all that is in it as well. The error is the nearest name that exists.
pub fn find(name: &str) -> Result<Vec<Described>, Option<String>> {
    let name = name.trim().trim_matches(['[', ']']).to_ascii_lowercase();
    let typed: Vec<&str> = name.split('.').collect();
    let found: Vec<Described> =
        declared::all().filter(|setting| is_meant(setting.path(), &typed)).map(Declared::describe).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names: Vec<&str> = declared::all().map(|setting| last(setting.path())).collect();
    Err(typed.last().and_then(|name| nearest(name, &names)).map(str::to_owned))
}

/// Whether the typed names stand one after the other in a path; any name stands where the user chooses one.
fn is_meant(path: &str, typed: &[&str]) -> bool {
    let names: Vec<&str> = path.split('.').collect();
    // A name that the user chooses may be left out.
    let plain: Vec<&str> = names.iter().copied().filter(|name| *name != "*").collect();
    let fits = |names: &[&str]| names.iter().zip(typed).all(|(name, typed)| name == typed || *name == "*");
    let anchored = |window: &[&str]| window.first() != Some(&"*") && fits(window);
    names.windows(typed.len()).any(anchored) || plain.windows(typed.len()).any(fits)
}

/// One setting for the terminal.
pub fn text(setting: &Described) -> String {
    let Described { name, values, default, effect, example, .. } = setting;
    let mut text = format!("{name}\n  {effect}\n");
    let _ = write!(text, "  values:  {values}\n  default: {default}\n");
    if let (Some(flag), Some(variable)) = (setting.flag, setting.variable) {
        let _ = writeln!(text, "  above:   {flag}, {variable}");
    }
    let _ = write!(text, "  example: {}", example.replace('\n', "\n           "));
    text
}

/// All settings as Markdown, without a heading of the whole.
pub fn markdown() -> String {
    let mut text = String::new();
    for setting in all() {
        let Described { name, values, default, effect, example, .. } = &setting;
        let _ = write!(text, "### `{name}`\n\n{effect}\n\n- values: {values}\n- default: {default}\n");
        if let (Some(flag), Some(variable)) = (setting.flag, setting.variable) {
            let _ = writeln!(text, "- above it: `{flag}`, `{variable}`");
        }
        let _ = write!(text, "\n```toml\n{example}\n```\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::Section;
    use crate::config::setting::header;
    use crate::config::{FILE_NAME, Overrides, parse};
    use std::collections::BTreeSet;

    /// The problems of a file that has what every file needs, and these lines in the section of `path`.
    fn problems(path: &str, lines: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("order.wasm"), "").unwrap();
        for name in ["token", "shop.creds", "nats-token", "shop.nk", "nats-password", "ca.pem"] {
            std::fs::write(directory.path().join(name), "0123456789abcdef").unwrap();
        }
        // What belongs to one kind of log.
        let is_of_nats = ["log.url", "log.login", "log.ca_file", "log.replicas"].iter().any(|of| path.starts_with(of));
        let lines = match is_of_nats && !lines.contains("kind =") {
            true => format!("kind = \"nats\"\n{lines}"),
            false => lines.to_owned(),
        };
        let needed: String = [("module", "\"order.wasm\""), ("subscribe", "[\"events.*\"]")]
            .iter()
            .filter(|(name, _)| !lines.contains(&format!("{name} =")))
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        let text = match header(path) {
            None => lines,
            Some(header @ "[handlers.order]") => format!("{header}\n{needed}{lines}\n"),
            Some(header) => format!("{header}\n{lines}\n"),
        };
        let variable = |_: &str| Some("value".to_owned());
        match parse(&text, &directory.path().join(FILE_NAME), &Overrides::default(), &variable) {
            Ok(_) => String::new(),
            Err(problems) => problems.to_string(),
        }
    }

    #[test]
    fn every_example_is_taken_and_shows_its_setting() {
        for setting in declared::all() {
            let Described { name, example, .. } = setting.describe();
            let header = header(setting.path()).map(|header| format!("{header}\n"));
            let lines = header.and_then(|header| example.strip_prefix(&header)).unwrap_or(&example);
            assert_eq!(problems(setting.path(), lines), "", "{name}: {lines}");
            let shown = lines.contains(&format!("{} =", last(setting.path()))) || lines.contains("[handlers.order]");
            let is_section = ["log", "host", "http"].contains(&name.as_str());
            assert!(shown || is_section, "{name} is not in its example {lines}");
        }
    }

    #[test]
    fn every_setting_that_is_declared_is_read() {
        for setting in declared::all().filter(|setting| setting.path().contains('.')) {
            // A value of no kind that any setting takes, so whoever reads it complains, and not that it is unknown.
            let (path, name) = (setting.path(), last(setting.path()));
            let tables: Vec<&str> = path.split('.').skip(if path.starts_with("handlers") { 2 } else { 1 }).collect();
            let tables: Vec<&str> = tables.iter().map(|table| if *table == "*" { "any" } else { table }).collect();
            let shown = problems(path, &format!("{} = 1979-05-27", tables.join(".")));
            assert!(shown.contains("error: ") && !shown.contains("unknown setting"), "{path} is not read:\n{shown}");
            assert!(shown.contains(name), "{path} is read as something else:\n{shown}");
        }
    }

    #[test]
    fn defaults_are_what_an_empty_section_gets() {
        // A default that is written as a value must be taken as one, and change nothing.
        for setting in all() {
            let path = setting.name.replace("NAME", "*");
            let tables: Vec<&str> = path.split('.').skip(if path.starts_with("handlers") { 2 } else { 1 }).collect();
            let is_value = setting.default.starts_with('"') && !setting.default.contains(", ")
                || setting.default.starts_with(|c: char| c.is_ascii_digit());
            if !is_value || tables.is_empty() {
                continue;
            }
            // Numbers of a breaker belong to one kind of trip.
            let trip = if ["percent", "samples", "window"].contains(&last_of(&tables)) && tables[0] == "breaker" {
                "breaker.trip = \"rate\"\n"
            } else {
                ""
            };
            let written = format!("{trip}{} = {}", tables.join("."), setting.default);
            assert_eq!(problems(&path, &written), "", "{written}");
        }
    }

    fn last_of<'t>(tables: &[&'t str]) -> &'t str {
        tables.last().copied().unwrap_or_default()
    }

    #[test]
    fn paths_are_unique_and_under_a_declared_table() {
        let paths: Vec<&str> = declared::all().map(Declared::path).collect();
        let unique: BTreeSet<&str> = paths.iter().copied().collect();
        assert_eq!(unique.len(), paths.len());
        for path in paths.iter().filter_map(|path| path.rsplit_once('.')).map(|(parent, _)| parent) {
            assert!(path.ends_with('*') || unique.contains(path), "{path} is not declared");
        }
    }

    #[test]
    fn settings_are_found_by_the_names_that_people_type() {
        let names = |typed: &str| find(typed).unwrap().into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names("timeout"), ["handlers.NAME.timeout"]);
        assert_eq!(names("limit.rate"), ["handlers.NAME.limit.rate"]);
        assert_eq!(names("handlers.order.limit.rate"), ["handlers.NAME.limit.rate"]);
        assert_eq!(names("[http]"), ["http", "http.listen", "http.token_file"]);
        assert_eq!(names("max").len(), 5);
        assert_eq!(names("breaker").len(), 8);
        assert_eq!(find("timeuot"), Err(Some("timeout".into())));
        assert_eq!(find("xyzzy"), Err(None));
    }

    #[test]
    fn a_section_cannot_be_asked_for_what_is_declared_elsewhere() {
        let asked =
            std::panic::catch_unwind(|| Section::new("x", "http", None).item(&declared::host::LOG_PATH).is_some());
        assert_eq!(asked.is_err(), cfg!(debug_assertions));
    }
}

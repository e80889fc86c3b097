//! A handler's `config`: what its guest reads through `wasi:config`. None of it is ever shown.

use super::declared::handler::{CONFIG, CONFIG_ENV, CONFIG_FILE};
use super::findings::Findings;
use super::item::Item;
use super::secret::{SECRET_BYTES_MAX, Secret, from_file};
use super::section::Section;
use super::setting::Kind as _;
use super::values;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Most values of one handler.
const VALUES_MAX: usize = 256;
const EXPECTED: &str = "a text, a number, a boolean, { env = \"NAME\" } or { file = \"path\" }";

/// How the process looks up its environment; handed in so that tests need not change it.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Keeps the lines of a handler's `config` out of every excerpt. Called before anything else is reported.
pub(super) fn conceal(findings: &mut Findings<'_>, handler: &DeTable<'_>) {
    let Some(config) = handler.get("config") else { return };
    findings.conceal(config.span());
    // In dotted form the lines of the values lie outside the table's span.
    for (name, value) in config.get_ref().as_table().into_iter().flatten() {
        findings.conceal(name.span().start..value.span().end);
    }
}

/// Reads `config`: names and values, in the order of their names.
pub(super) fn read(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    directory: &Path,
    environment: Environment<'_>,
) -> Option<Vec<(String, Secret)>> {
    let DeValue::Table(table) = item.value.get_ref() else {
        values::wrong(findings, item, &CONFIG.kind.expected());
        return None;
    };
    if table.len() > VALUES_MAX {
        let message = format!("{} has {} values, at most {VALUES_MAX} are allowed", item.name, table.len());
        findings
            .error(item.span(), message)
            .expected(CONFIG.kind.expected())
            .hint("put them into one file and read it with { file = \"path\" }");
        return None;
    }
    let mut secrets = vec![];
    for (name, value) in table {
        let name = name.get_ref().to_string();
        let item = Item { name: format!("`{name}` in `config`"), path: CONFIG.path, value };
        secrets.extend(value_of(findings, &item, directory, environment).map(|secret| (name, Secret::new(secret))));
    }
    Some(secrets)
}

fn value_of(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    directory: &Path,
    environment: Environment<'_>,
) -> Option<String> {
    let value = match item.value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Table(table) => {
            let mut source = Section::new(&item.name, "handlers.*.config.*", Some(table));
            let variable = source.item(&CONFIG_ENV);
            let file = source.item(&CONFIG_FILE);
            source.finish(findings, &[]);
            match (variable, file) {
                (Some(variable), None) => from_variable(findings, &variable, environment)?,
                (None, Some(file)) => from_file(findings, &file, directory, &CONFIG_FILE.kind.expected())?,
                _ => {
                    findings
                        .error(item.span(), format!("{} needs either `env` or `file`", item.name))
                        .expected(EXPECTED)
                        .hint("name the one place that the value comes from");
                    return None;
                }
            }
        }
        DeValue::Datetime(_) | DeValue::Array(_) => {
            values::wrong(findings, item, EXPECTED);
            findings.last_hint("write it as a text");
            return None;
        }
    };
    if value.len() as u64 > SECRET_BYTES_MAX {
        let message = format!("{} has {} bytes, at most {SECRET_BYTES_MAX} are allowed", item.name, value.len());
        findings.error(item.span(), message).expected(EXPECTED).hint("put data into messages or state instead");
        return None;
    }
    Some(value)
}

fn from_variable(findings: &mut Findings<'_>, item: &Item<'_>, environment: Environment<'_>) -> Option<String> {
    let name = values::text(findings, item, &CONFIG_ENV.kind.expected())?;
    // An empty or odd name would make the look-up itself fail.
    let value = if name.is_empty() || name.contains(['=', '\0']) { None } else { environment(name) };
    if value.is_none() {
        let message = format!("the environment variable `{name}` is not set");
        findings
            .error(item.span(), message)
            .expected("a variable of the host's environment that holds UTF-8")
            .hint("set it before the start, or use { file = \"path\" }");
    }
    value
}

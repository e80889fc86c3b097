//! A setting as it stands in the file, before anyone read its value.

use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// A setting as typed: its name, for messages, and its value.
#[derive(Clone)]
pub(super) struct Item<'t> {
    pub(super) name: String,
    /// Where it is declared.
    pub(super) path: &'static str,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

impl Item<'_> {
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Where to read more, for a value about which there is nothing better to say.
    pub(super) fn more(&self) -> String {
        let names: Vec<&str> = self.path.split('.').filter(|name| !matches!(*name, "*" | "handlers")).collect();
        let name = if names.is_empty() { self.path.to_owned() } else { names.join(".") };
        format!("`sluicebox settings {name}` describes it")
    }
}

/// What a value is, with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(true) => "true",
        DeValue::Boolean(false) => "false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

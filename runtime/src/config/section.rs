//! One table of the file: hands out its settings by name and reports the names nobody asked for.

use super::findings::Findings;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A setting as typed: its name, for messages, and its value.
#[derive(Clone)]
pub(super) struct Item<'t> {
    pub(super) name: String,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

impl Item<'_> {
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }
}

/// A table of the file, perhaps absent.
pub(super) struct Section<'t> {
    /// As messages call it: `[handlers.order]`.
    title: String,
    table: Option<&'t DeTable<'t>>,
    /// What was asked for: the settings that exist.
    known: Vec<&'static str>,
}

/// A setting that a later version will have, and what to do until then.
pub(super) type Later = (&'static str, &'static str);

impl<'t> Section<'t> {
    /// The title of the whole file.
    pub(super) const ROOT: &'static str = "the file";

    pub(super) fn new(title: impl Into<String>, table: Option<&'t DeTable<'t>>) -> Self {
        Self { title: title.into(), table, known: vec![] }
    }

    /// The setting of this name, if it is there.
    pub(super) fn item(&mut self, name: &'static str) -> Option<Item<'t>> {
        self.known.push(name);
        let value = self.table?.get(name)?;
        Some(Item { name: format!("`{name}`"), value })
    }

    /// Reads the setting of this name. `None`: absent, or wrong and reported.
    pub(super) fn read<T>(
        &mut self,
        findings: &mut Findings<'_>,
        name: &'static str,
        read: impl FnOnce(&mut Findings<'_>, &Item<'t>) -> Option<T>,
    ) -> Option<T> {
        let item = self.item(name)?;
        read(findings, &item)
    }

    /// The table of this name; an absent section when it is absent, or wrong and reported.
    pub(super) fn section(&mut self, findings: &mut Findings<'_>, name: &'static str) -> Section<'t> {
        let (title, expected) = match self.title.as_str() {
            Self::ROOT => (format!("[{name}]"), format!("a section, [{name}]")),
            _ => (format!("`{name}`"), format!("a table, {name} = {{ … }}")),
        };
        let table = self.item(name).and_then(|item| match item.value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                findings.error(item.span(), format!("{} is {}", item.name, kind(other))).expected(expected);
                None
            }
        });
        Section::new(title, table)
    }

    /// Reports what was not asked for.
    pub(super) fn finish(self, findings: &mut Findings<'_>, later: &[Later]) {
        for name in self.table.into_iter().flat_map(|table| table.keys()) {
            let text = name.get_ref().as_ref();
            if self.known.contains(&text) {
                continue;
            }
            if let Some((name_later, hint)) = later.iter().find(|(later, _)| *later == text) {
                findings
                    .error(name.span(), format!("`{name_later}` in {} is not supported by this version", self.title))
                    .hint(*hint);
                continue;
            }
            let problem = findings.error(name.span(), format!("unknown setting `{text}` in {}", self.title));
            // The value may be a secret under a mistyped name.
            problem.cut_excerpt();
            problem.expected(format!("one of {}", self.known.join(", ")));
            if let Some(near) = nearest(text, &self.known) {
                problem.hint(format!("did you mean `{near}`?"));
            }
        }
    }
}

/// The known name that `text` was probably meant to be.
pub(super) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    let text = text.to_ascii_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&text, name);
    let near = known.iter().copied().min_by_key(|name| distance(name))?;
    let tolerated = (near.len() / 3).max(1);
    let begins =
        || known.iter().copied().find(|name| text.len() >= 3 && (name.starts_with(&text) || text.starts_with(name)));
    if distance(near) <= tolerated { Some(near) } else { begins() }
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

//! One table of the file: hands out its settings by name and reports the names nobody asked for.

use super::declared;
use super::findings::Findings;
use super::item::{Item, kind};
use super::kinds::Table;
use super::nearest::nearest;
use super::setting::{self, Declared, Is, Kind as _, Parse, Setting};
use toml::de::{DeTable, DeValue};

/// A table of the file, perhaps absent.
pub(super) struct Section<'t> {
    /// As messages call it: `[handlers.order]`.
    title: String,
    /// The path of the settings in it, as they are declared.
    path: &'static str,
    table: Option<&'t DeTable<'t>>,
    /// What was asked for: the settings that exist.
    known: Vec<&'static str>,
}

/// A setting that a later version will have, and what to do until then.
pub(super) type Later = (&'static str, &'static str);

impl<'t> Section<'t> {
    /// The whole file.
    pub(super) fn root(table: &'t DeTable<'t>) -> Self {
        Self::new("the file", "", Some(table))
    }

    /// The table under `path`, called `title`.
    pub(super) fn new(title: impl Into<String>, path: &'static str, table: Option<&'t DeTable<'t>>) -> Self {
        Self { title: title.into(), path, table, known: vec![] }
    }

    /// The table that a setting turned out to be.
    pub(super) fn of<K, D>(setting: &'static Setting<K, D>, table: &'t DeTable<'t>) -> Self {
        Self::new(format!("`{}`", setting.name()), setting.path, Some(table))
    }

    /// The setting, if it is there.
    pub(super) fn item<K, D>(&mut self, setting: &'static Setting<K, D>) -> Option<Item<'t>> {
        let name = setting.name();
        debug_assert_eq!(parent(setting.path), self.path, "`{name}` is read where it is not declared");
        self.known.push(name);
        let value = self.table?.get(name)?;
        Some(Item { name: format!("`{name}`"), path: setting.path, value })
    }

    /// Reads a setting that takes more than its value. `None`: absent, or wrong and reported.
    pub(super) fn read<K, D, T>(
        &mut self,
        findings: &mut Findings<'_>,
        setting: &'static Setting<K, D>,
        read: impl FnOnce(&mut Findings<'_>, &Item<'t>) -> Option<T>,
    ) -> Option<T> {
        let item = self.item(setting)?;
        read(findings, &item)
    }

    /// Reads a setting. `None`: absent, or wrong and reported.
    pub(super) fn given<K: Parse, D>(
        &mut self,
        findings: &mut Findings<'_>,
        setting: &'static Setting<K, D>,
    ) -> Option<K::Value> {
        self.read(findings, setting, |findings, item| setting.kind.parse(findings, item))
    }

    /// Reads a setting; its default when it is absent, or wrong and reported.
    pub(super) fn value<K: Parse>(
        &mut self,
        findings: &mut Findings<'_>,
        setting: &'static Setting<K, Is<K::Value>>,
    ) -> K::Value
    where
        K::Value: Copy,
    {
        self.given(findings, setting).unwrap_or(setting.default.0)
    }

    /// The table of this setting; an absent section when it is absent, or wrong and reported.
    pub(super) fn section<D>(
        &mut self,
        findings: &mut Findings<'_>,
        setting: &'static Setting<Table, D>,
    ) -> Section<'t> {
        let name = setting.name();
        let title = if self.path.is_empty() { format!("[{name}]") } else { format!("`{name}`") };
        let table = self.item(setting).and_then(|item| match item.value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let problem = findings.error(item.span(), format!("{} is {}", item.name, kind(other)));
                problem.expected(setting.kind.expected()).hint(item.more());
                None
            }
        });
        Section::new(title, setting.path, table)
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
                    .expected(format!("one of {}", self.known.join(", ")))
                    .hint(*hint);
                continue;
            }
            let problem = findings.error(name.span(), format!("unknown setting `{text}` in {}", self.title));
            // The value may be a secret under a mistyped name.
            problem.cut_excerpt();
            problem.expected(format!("one of {}", self.known.join(", ")));
            if let Some(hint) = elsewhere(text) {
                problem.hint(hint);
            } else if let Some(near) = nearest(text, &self.known) {
                problem.hint(format!("did you mean `{near}`?"));
            } else {
                problem.hint("`sluicebox settings` lists all settings");
            }
        }
    }
}

/// Where a setting belongs that was written in the wrong section; `None`: there is none of this name, or several.
fn elsewhere(name: &str) -> Option<String> {
    let mut paths = declared::all().map(Declared::path).filter(|path| setting::last(path) == name);
    let (path, None) = (paths.next()?, paths.next()) else { return None };
    let parent = parent(path);
    let table = setting::last(parent);
    let section = setting::header(path).map(|header| header.replace("order", "NAME"));
    Some(match section.filter(|_| !parent.is_empty()) {
        None => format!("`{name}` belongs at the top of the file"),
        // A table in a handler's section, unless it is the section itself.
        Some(section) if parent.contains('.') && table != "*" => {
            format!("`{name}` belongs into `{table}` under {section}")
        }
        Some(section) => format!("`{name}` belongs under {section}"),
    })
}

/// The path of the table that a setting is in.
fn parent(path: &'static str) -> &'static str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

//! What a declaration of a setting is: its place, what may stand there, its default, what it does, and an example.
//!
//! A setting is declared once, in [`super::declared`]. The parser takes bounds and defaults from the declaration and can
//! ask for nothing that is not declared, and the reference is written from the same declarations: they cannot differ.

use super::findings::Findings;
use super::item::Item;
use serde::Serialize;

/// One declared setting. `K` is what may stand there, `D` what holds when nothing does.
pub(super) struct Setting<K, D> {
    /// Names from the root of the file, joined by dots; `*` is a name that the user chooses.
    pub(super) path: &'static str,
    pub(super) kind: K,
    pub(super) default: D,
    /// What it does, in sentences.
    pub(super) effect: &'static str,
    /// Lines of the section that it belongs to, as they would be written.
    pub(super) example: &'static str,
    pub(super) above: Option<Above>,
}

impl<K, D> Setting<K, D> {
    /// The name in its table.
    pub(super) fn name(&self) -> &'static str {
        last(self.path)
    }
}

/// The last name of a path.
pub(super) fn last(path: &'static str) -> &'static str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Declares settings and lists them, so that none can be declared and left out of the reference.
macro_rules! settings {
    ($($name:ident: $kind:ty, $default:ty = $setting:expr;)+) => {
        $(pub(in crate::config) static $name: $crate::config::setting::Setting<$kind, $default> = $setting;)+
        pub(super) static ALL: &[&(dyn $crate::config::setting::Declared + Sync)] = &[$(&$name),+];
    };
}
pub(super) use settings;

/// What wins over the file.
#[derive(Clone, Copy)]
pub(super) struct Above {
    pub(super) flag: &'static str,
    pub(super) variable: &'static str,
}

impl Above {
    /// Where a value came from, for messages.
    pub(super) fn origin(self) -> String {
        format!("{} or {}", self.flag, self.variable)
    }
}

/// What may stand there.
pub(super) trait Kind {
    type Value;
    /// For messages and the reference.
    fn expected(&self) -> String;
    /// A value as it would be written in the file.
    fn show(&self, value: &Self::Value) -> String;
}

/// A kind that needs nothing but the value to be read.
pub(super) trait Parse: Kind {
    /// `None`: it is wrong, and reported.
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Self::Value>;
}

/// A default that is a value.
pub(super) struct Is<V>(pub(super) V);

/// A default that is no value of its own kind: what holds then.
pub(super) struct Means(pub(super) &'static str);

/// No default: it must be there.
pub(super) struct Required;

/// What holds when nothing stands there.
pub(super) trait Default<K> {
    fn show(&self, kind: &K) -> String;

    fn is_required(&self) -> bool {
        false
    }
}

impl<K: Kind> Default<K> for Is<K::Value> {
    fn show(&self, kind: &K) -> String {
        kind.show(&self.0)
    }
}

impl<K> Default<K> for Means {
    fn show(&self, _: &K) -> String {
        self.0.into()
    }
}

impl<K> Default<K> for Required {
    fn show(&self, _: &K) -> String {
        "none: it must be there".into()
    }

    fn is_required(&self) -> bool {
        true
    }
}

/// A setting as the reference shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Described {
    /// From the root of the file; `NAME` is one that the user chooses.
    pub name: String,
    /// What may stand there, with unit and bounds.
    pub values: String,
    pub default: String,
    pub required: bool,
    pub effect: &'static str,
    pub example: String,
    pub flag: Option<&'static str>,
    pub variable: Option<&'static str>,
}

/// A declaration whatever its types.
pub(super) trait Declared: Sync {
    fn path(&self) -> &'static str;
    fn describe(&self) -> Described;
}

impl<K, D> Declared for Setting<K, D>
where
    K: Kind + Sync,
    D: Default<K> + Sync,
{
    fn path(&self) -> &'static str {
        self.path
    }

    fn describe(&self) -> Described {
        Described {
            name: self.path.replace('*', "NAME"),
            values: self.kind.expected(),
            default: self.default.show(&self.kind),
            required: self.default.is_required(),
            effect: self.effect,
            example: match header(self.path) {
                Some(header) => format!("{header}\n{}", self.example),
                None => self.example.into(),
            },
            flag: self.above.map(|above| above.flag),
            variable: self.above.map(|above| above.variable),
        }
    }
}

/// The heading of the section that a setting is written under, or that it is.
pub(super) fn header(path: &str) -> Option<&'static str> {
    match path.split_once('.').map_or(path, |(section, _)| section) {
        "log" => Some("[log]"),
        "host" => Some("[host]"),
        "http" => Some("[http]"),
        "handlers" if path != "handlers" => Some("[handlers.order]"),
        _ => None,
    }
}

//! Two waits of which one bounds the other: `retry` has them, and `breaker`.

use super::findings::Findings;
use super::kinds::Span;
use super::section::Section;
use super::setting::{Means, Parse as _, Setting};
use super::units::show_duration;
use std::time::Duration;

/// What they are called.
pub(super) struct Longest {
    pub(super) table: &'static str,
    pub(super) first: &'static str,
    pub(super) last: &'static str,
}

impl Longest {
    /// Reads the longest wait, which may not be shorter than the first.
    pub(super) fn read(
        &self,
        findings: &mut Findings<'_>,
        section: &mut Section<'_>,
        setting: &'static Setting<Span, Means>,
        first: Duration,
        default: Duration,
    ) -> Duration {
        let item = section.item(setting);
        let typed = item.as_ref().and_then(|item| setting.kind.parse(findings, item));
        if let Some(item) = item.filter(|_| typed.is_some_and(|longest| longest < first)) {
            let Self { table, first: name_first, last } = self;
            findings
                .error(item.span(), format!("the longest wait of `{table}` is shorter than the first"))
                .expected(format!("at least \"{}\"", show_duration(first)))
                .hint(format!("raise `{last}`, or lower `{name_first}`"));
        }
        // A larger first wait alone moves the default along.
        typed.unwrap_or(default.max(first))
    }
}

//! Where a handler begins that the log does not know yet.

use crate::clock::Timestamp;
use crate::config::findings::Findings;
use crate::config::item::Item;
use crate::config::setting::{Kind, Parse};
use crate::config::settings::Start;
use crate::config::values;
use toml::de::DeValue;

/// `latest`, `earliest` or a time.
pub(in crate::config) struct Beginning;

impl Kind for Beginning {
    type Value = Start;

    fn expected(&self) -> String {
        "\"latest\", \"earliest\" or a time such as \"2026-01-31T08:00:00Z\"".into()
    }

    fn show(&self, start: &Start) -> String {
        match start {
            Start::Latest => "\"latest\"".into(),
            Start::Earliest => "\"earliest\"".into(),
            Start::At(time) => format!("\"{time}\""),
        }
    }
}

impl Parse for Beginning {
    fn parse(&self, findings: &mut Findings<'_>, item: &Item<'_>) -> Option<Start> {
        let typed = match item.value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            _ => {
                values::wrong(findings, item, &self.expected());
                return None;
            }
        };
        match typed.as_str() {
            "latest" => Some(Start::Latest),
            "earliest" => Some(Start::Earliest),
            _ => {
                let time = typed.parse::<jiff::Timestamp>().ok();
                let ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
                if ms.is_none() {
                    findings
                        .error(item.span(), format!("`start` cannot be `{typed}`"))
                        .expected(self.expected())
                        .hint("a time is RFC 3339 with its zone: add `Z` for UTC");
                }
                ms.map(|ms| Start::At(Timestamp(ms)))
            }
        }
    }
}

//! Where a handler's key and id come from: `"/user"`, `"header:Name"`, `"topic:2"`.

use super::findings::Findings;
use super::item::Item;
use super::values::{self, PatternAt};
use crate::routing::{Field, IdFrom, KeyFrom};
use crate::topic::TOKENS_MAX;
use toml::de::DeValue;

const EXPECTED_FIELD: &str = "a JSON pointer such as \"/user\", \"header:Name\" or \"topic:2\"";
/// Each costs a look into every message.
const FIELDS_MAX: usize = 16;

/// Reads `key`.
pub(super) fn key(findings: &mut Findings<'_>, item: &Item<'_>, subscribe: &[PatternAt]) -> Option<KeyFrom> {
    match item.value.get_ref() {
        DeValue::Boolean(false) => Some(KeyFrom::None),
        DeValue::String(text) if text == "*" => Some(KeyFrom::All),
        DeValue::String(_) | DeValue::Array(_) => fields(findings, item, subscribe).map(KeyFrom::Fields),
        _ => {
            values::wrong(findings, item, &format!("{EXPECTED_FIELD}, a list of these, \"*\" or false"));
            None
        }
    }
}

/// Reads `id`.
pub(super) fn id(findings: &mut Findings<'_>, item: &Item<'_>, subscribe: &[PatternAt]) -> Option<IdFrom> {
    match item.value.get_ref() {
        DeValue::String(_) | DeValue::Array(_) => fields(findings, item, subscribe).map(IdFrom::Fields),
        other => {
            let is_false = matches!(other, DeValue::Boolean(false));
            values::wrong(findings, item, &format!("{EXPECTED_FIELD}, or a list of these"));
            if is_false {
                findings.last_hint("to run every message whatever its id, write `dedup = false`");
            }
            None
        }
    }
}

fn fields(findings: &mut Findings<'_>, item: &Item<'_>, subscribe: &[PatternAt]) -> Option<Vec<Field>> {
    let entries = match item.value.get_ref() {
        DeValue::Array(_) => values::list(findings, item, EXPECTED_FIELD)?,
        _ => vec![item.clone()],
    };
    if entries.is_empty() || entries.len() > FIELDS_MAX {
        let message = format!("{} has {} entries", item.name, entries.len());
        findings
            .error(item.span(), message)
            .expected(format!("1 to {FIELDS_MAX} of: {EXPECTED_FIELD}"))
            .hint(item.more());
        return None;
    }
    let count = entries.len();
    let fields: Vec<Field> = entries.iter().filter_map(|entry| field(findings, entry, subscribe)).collect();
    (fields.len() == count).then_some(fields)
}

fn field(findings: &mut Findings<'_>, item: &Item<'_>, subscribe: &[PatternAt]) -> Option<Field> {
    let text = values::text(findings, item, EXPECTED_FIELD)?;
    let refuse = |findings: &mut Findings<'_>, reason: &str, hint: String| {
        values::refused(findings, item, &reason).expected(EXPECTED_FIELD).hint(hint);
        None
    };
    if text.starts_with('/') {
        return match bad_escape(text) {
            false => Some(Field::Pointer(text.into())),
            true => refuse(
                findings,
                &format!("`{text}` is not a JSON pointer"),
                "in a pointer `~` is written `~0` and `/` inside a name `~1`".into(),
            ),
        };
    }
    if let Some(name) = text.strip_prefix("header:") {
        return match !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
            true => Some(Field::Header(name.into())),
            false => refuse(findings, &format!("`{name}` is not the name of a header"), "write `header:Name`".into()),
        };
    }
    if let Some(number) = text.strip_prefix("topic:") {
        return match number.parse::<usize>().ok().filter(|number| (1..=TOKENS_MAX).contains(number)) {
            None => {
                let reason = format!("`{number}` is not the number of a token");
                refuse(findings, &reason, format!("tokens of a topic count from 1 to {TOKENS_MAX}"))
            }
            Some(number) if !subscribe.is_empty() && !subscribe.iter().any(|at| may_have_tokens(at, number)) => {
                let reason = format!("no subscribed topic has {number} tokens, so `{text}` never yields");
                refuse(findings, &reason, "count the tokens of `subscribe` from 1".into())
            }
            Some(number) => Some(Field::TopicToken(number)),
        };
    }
    let hint = match text {
        "*" => "`*` stands alone: write `key = \"*\"`".into(),
        _ => format!("write `/{}` for a field of a JSON body", text.trim_start_matches(['$', '.'])),
    };
    refuse(findings, &format!("`{text}` names no field"), hint)
}

fn bad_escape(pointer: &str) -> bool {
    pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']))
}

fn may_have_tokens(at: &PatternAt, number: usize) -> bool {
    let pattern = at.pattern.as_str();
    pattern.ends_with('>') || pattern.split('.').count() >= number
}

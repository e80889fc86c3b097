//! What comes in, read field by field: a refusal names the field and says what it should be.
//!
//! Names are looked up as the handler's `key` setting does: the first of `UserID` and `UserId` that is there and not
//! empty, so that the user of the event is the user of the state.

use crate::instant::Instant;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sluicebox_sdk::Failure;

/// Most bytes of an `AlarmID` as JSON text: with the number of alarms it bounds what a user's state and digest can be.
pub const ALARM_ID_BYTES_MAX: usize = 256;
/// Characters of a bad value that a refusal repeats.
const SHOWN_CHARS_MAX: usize = 40;

const USER: [&str; 2] = ["UserID", "UserId"];
const ALARM: [&str; 2] = ["AlarmID", "AlarmId"];

/// A JSON object. The last of equal names counts, as it does for the key.
pub type Object = Map<String, Value>;

/// The status of an alarm, written as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Cleared,
    Warning,
    Critical,
}

impl Status {
    pub fn is_active(self) -> bool {
        self != Self::Cleared
    }
}

/// An `AlarmStatusChanged`.
#[derive(Debug)]
pub struct Change<'e> {
    pub user: &'e str,
    pub alarm: &'e str,
    pub status: Status,
    pub changed_at: Instant,
}

/// Reads an `AlarmStatusChanged`.
pub fn change(event: &Object) -> Result<Change<'_>, Failure> {
    let alarm = text(event, &ALARM)?;
    let alarm_bytes = Value::from(alarm).to_string().len() - 2;
    if alarm_bytes > ALARM_ID_BYTES_MAX {
        let reason =
            format!("`AlarmID` has {alarm_bytes} bytes as JSON text, at most {ALARM_ID_BYTES_MAX} are allowed");
        return Err(Failure::reject(reason));
    }
    let status = match text(event, &["Status"])? {
        "CLEARED" => Status::Cleared,
        "WARNING" => Status::Warning,
        "CRITICAL" => Status::Critical,
        other => {
            let reason = format!("`Status` is `{}`, expected CLEARED, WARNING or CRITICAL", shown(other));
            return Err(Failure::reject(reason));
        }
    };
    let time = text(event, &["ChangedAt"])?;
    let changed_at =
        Instant::parse(time).map_err(|error| Failure::reject(format_args!("`ChangedAt` `{}` {error}", shown(time))))?;
    Ok(Change { user: user(event)?, alarm, status, changed_at })
}

/// The user of any event; all there is to a `SendAlarmDigest`.
pub fn user(event: &Object) -> Result<&str, Failure> {
    text(event, &USER)
}

/// The text under the first of these names that has one.
fn text<'e>(event: &'e Object, names: &[&str]) -> Result<&'e str, Failure> {
    let mut reason = format!("`{}` is missing", names[0]);
    for name in names {
        match event.get(*name) {
            None => {}
            Some(Value::String(text)) if text.is_empty() => reason = format!("`{name}` is empty"),
            Some(Value::String(text)) => return Ok(text),
            Some(Value::Null) => reason = format!("`{name}` is null"),
            // Not passed over: the key setting takes a number or a boolean for the key.
            Some(other) => return Err(Failure::reject(format_args!("`{name}` is {}, expected a text", kind(other)))),
        }
    }
    Err(Failure::reject(reason))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Object {
        let event = json!({"AlarmID": "a", "UserID": "ada", "Status": "CRITICAL", "ChangedAt": "2026-01-02T03:04:05Z"});
        event.as_object().unwrap().clone()
    }

    /// The refusal of a good change with one field replaced; `None` takes it away.
    #[track_caller]
    fn refused(name: &str, value: Option<Value>, expected: &str) {
        let mut event = good();
        event.remove(name);
        event.extend(value.map(|value| (name.to_owned(), value)));
        let failure = change(&event).unwrap_err();
        assert!(matches!(failure, Failure::Reject { .. }), "{failure:?}");
        assert!(failure.reason().contains(expected), "{failure}");
    }

    #[test]
    fn a_bad_field_is_refused_by_its_name() {
        for name in ["UserID", "AlarmID", "Status", "ChangedAt"] {
            refused(name, None, &format!("`{name}` is missing"));
            refused(name, Some(json!("")), &format!("`{name}` is empty"));
            refused(name, Some(json!(null)), &format!("`{name}` is null"));
            refused(name, Some(json!(7)), &format!("`{name}` is a number, expected a text"));
            refused(name, Some(json!(["x"])), &format!("`{name}` is a list, expected a text"));
        }
        refused("Status", Some(json!("warning")), "`Status` is `warning`, expected CLEARED, WARNING or CRITICAL");
        refused("ChangedAt", Some(json!("yesterday")), "`ChangedAt` `yesterday` is not a time in RFC 3339");
        refused("ChangedAt", Some(json!("0001-01-01T00:00:00Z")), "is the zero time");
        refused("AlarmID", Some(json!("x".repeat(257))), "`AlarmID` has 257 bytes as JSON text, at most 256");
        refused("AlarmID", Some(json!("\"".repeat(129))), "`AlarmID` has 258 bytes as JSON text, at most 256");
    }

    #[test]
    fn a_refusal_repeats_no_more_than_the_beginning_of_a_value() {
        refused("Status", Some(json!("é".repeat(100_000))), &format!("`Status` is `{}…`", "é".repeat(40)));
    }

    #[test]
    fn both_spellings_of_the_ids_are_accepted() {
        let mut event = good();
        event.remove("UserID");
        event.remove("AlarmID");
        event.insert("UserId".into(), json!("bob"));
        event.insert("AlarmId".into(), json!("b"));
        let read = change(&event).unwrap();
        assert_eq!((read.user, read.alarm), ("bob", "b"));
        assert_eq!(user(&event), Ok("bob"));
    }

    #[test]
    fn the_user_is_the_one_the_key_setting_takes() {
        let user_of = |event: Value| user(event.as_object().unwrap()).map(str::to_owned);
        assert_eq!(user_of(json!({"UserID": "", "UserId": "bob"})), Ok("bob".into()));
        assert_eq!(user_of(json!({"UserID": "ada", "UserId": "bob"})), Ok("ada".into()));
        assert!(user_of(json!({"UserID": 7, "UserId": "bob"})).is_err());
    }
}

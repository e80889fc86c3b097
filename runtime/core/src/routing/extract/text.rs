//! Texts out of a JSON body, borrowed from it where that is possible.

use serde::Deserialize as _;
use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The next value as the text of a key or id: strings as they are, numbers and booleans as JSON text, anything else is
/// nothing.
pub(super) fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    // The text as it stands: a parsed number has 64 bits, and two ids that differ beyond them would be taken for one.
    of_raw(<&RawValue>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// [`scalar`] of a value that was read as it stands.
pub(super) fn of_raw(raw: &RawValue) -> Result<Option<Cow<'_, str>>, serde_json::Error> {
    let raw = raw.get();
    match raw.as_bytes().first() {
        Some(b'"') => Ok(Some(serde_json::from_str::<Text<'_>>(raw)?.0)),
        Some(b'{' | b'[' | b'n') | None => Ok(None),
        Some(b't' | b'f') => Ok(Some(Cow::Borrowed(raw))),
        Some(_) if raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => Ok(Some(Cow::Borrowed(raw))),
        // One text for each value, however it was written.
        Some(_) => match raw.parse::<f64>().ok().filter(|value| value.is_finite()) {
            Some(value) => Ok(Some(Cow::Owned(serde_json::json!(value).to_string()))),
            None => Ok(Some(Cow::Borrowed(raw))),
        },
    }
}

/// A JSON string, borrowed where it has no escapes.
pub(super) struct Text<'de>(pub(super) Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;
        impl<'de> Visitor<'de> for AsText {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AsText)
    }
}

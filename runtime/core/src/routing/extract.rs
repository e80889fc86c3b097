//! Takes a key or an id out of a message without building a JSON tree.

use super::Field;
use crate::message::Message;
use serde::Deserialize as _;
use serde::de::{DeserializeSeed as _, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The body is needed and is not JSON. Holds the parser's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not JSON: {0}")]
pub(super) struct NotJson(String);

/// The first field that yields a non-empty text: strings as they are, numbers and booleans as JSON text.
pub(super) fn first<'m>(fields: &[Field], message: &'m Message) -> Result<Option<Cow<'m, str>>, NotJson> {
    let mut broken = None;
    for field in fields {
        let found = match field {
            Field::Header(name) => message.headers.get(name).map(Cow::Borrowed),
            Field::TopicToken(number) => message.topic.tokens().nth(number.wrapping_sub(1)).map(Cow::Borrowed),
            // A later field may still yield.
            Field::Pointer(pointer) => at_pointer(&message.body, pointer).unwrap_or_else(|error| {
                broken = Some(error);
                None
            }),
        };
        if let Some(text) = found.filter(|text| !text.is_empty()) {
            return Ok(Some(text));
        }
    }
    broken.map_or(Ok(None), Err)
}

fn at_pointer<'b>(body: &'b [u8], pointer: &str) -> Result<Option<Cow<'b, str>>, NotJson> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let found = At(pointer).deserialize(&mut parser).map_err(|error| NotJson(error.to_string()))?;
    // The rest is read too: whether a message is valid must not depend on where its key stands.
    parser.end().map_err(|error| NotJson(error.to_string()))?;
    Ok(found)
}

/// Visits the value at what is left of the pointer.
#[derive(Clone, Copy)]
struct At<'p>(&'p str);

impl<'p> At<'p> {
    /// The first token of the pointer and the rest; `None` at its end.
    fn step(self) -> Option<(Cow<'p, str>, At<'p>)> {
        let rest = self.0.strip_prefix('/')?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (token, rest) = rest.split_at(end);
        let token =
            if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { Cow::Borrowed(token) };
        Some((token, At(rest)))
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for At<'_> {
    type Value = Option<Cow<'de, str>>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if !self.0.is_empty() {
            return deserializer.deserialize_any(self);
        }
        // The text as it stands: a parsed number has 64 bits, and two ids that differ beyond them would be taken for one.
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        match raw.as_bytes().first() {
            Some(b'"') => Ok(Some(serde_json::from_str::<Text<'de>>(raw).map_err(serde::de::Error::custom)?.0)),
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
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let step = self.step();
        let mut found = None;
        while let Some(name) = map.next_key::<Text<'de>>()? {
            match &step {
                // As in serde_json's tree, the last of several equal names wins.
                Some((token, rest)) if *token == name.0 => found = map.next_value_seed(*rest)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        // RFC 6901: an index is digits without leading zeros; anything else names no element.
        let is_index =
            |token: &str| token == "0" || (!token.starts_with('0') && token.bytes().all(|b| b.is_ascii_digit()));
        let step = self.step().filter(|(token, _)| is_index(token));
        let step = step.and_then(|(token, rest)| Some((token.parse::<usize>().ok()?, rest)));
        let mut found = None;
        if let Some((wanted, rest)) = step {
            for _ in 0..wanted {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(None);
                }
            }
            found = seq.next_element_seed(rest)?.flatten();
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }

    // The pointer goes on and the value has no parts.
    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A JSON string, borrowed where it has no escapes.
struct Text<'de>(Cow<'de, str>);

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(body: &str, pointer: &str, expected: Option<&str>) {
        assert_eq!(at_pointer(body.as_bytes(), pointer).unwrap().as_deref(), expected, "{pointer} in {body}");
    }

    #[test]
    fn pointers_yield_strings_numbers_and_booleans() {
        check(r#"{"user":"ada"}"#, "/user", Some("ada"));
        check(r#"{"user":"a\u0064a"}"#, "/user", Some("ada"));
        check(r#"{"a":{"b":[1,{"c":true}]}}"#, "/a/b/1/c", Some("true"));
        check(r#"{"n":-12}"#, "/n", Some("-12"));
        check(r#"{"n":1.5}"#, "/n", Some("1.5"));
        check(r#"{"n":15e-1}"#, "/n", Some("1.5"));
        check(r#"{"n": 184467440737095516170001 }"#, "/n", Some("184467440737095516170001"));
        check(r#"{"a/b":"x","m~n":"y"}"#, "/a~1b", Some("x"));
        check(r#"{"a/b":"x","m~n":"y"}"#, "/m~0n", Some("y"));
        check(r#""whole""#, "", Some("whole"));
    }

    #[test]
    fn what_is_not_a_scalar_is_absent() {
        check(r#"{"user":null}"#, "/user", None);
        check(r#"{"user":{}}"#, "/user", None);
        check(r#"{"user":[]}"#, "/user", None);
        check(r#"{}"#, "/user", None);
        check(r#"[1]"#, "/5", None);
        check(r#"[1]"#, "/x", None);
        check(r#"[1,2]"#, "/01", None);
        check(r#"[1,2]"#, "/+1", None);
    }

    #[test]
    fn a_broken_body_is_an_error_even_after_the_field() {
        let error = at_pointer(br#"{"user":"ada""#, "/user").unwrap_err().to_string();
        assert!(error.contains("the body is not JSON: EOF"), "{error}");
        assert!(at_pointer(br#"{"user":"ada"} x"#, "/user").is_err());
        assert!(at_pointer(b"\xff", "/user").is_err());
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[a-c\"\\\\é]{0,4}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map("[ab~/]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn extraction_agrees_with_the_json_tree(value in json(), pointer in "(/[ab012]{0,2}){0,4}") {
            let body = value.to_string();
            let expected = value.pointer(&pointer).and_then(|found| match found {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Some(found.to_string()),
                _ => None,
            });
            prop_assert_eq!(at_pointer(body.as_bytes(), &pointer).unwrap().map(Cow::into_owned), expected);
        }

        #[test]
        fn any_bytes_yield_or_fail_without_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = at_pointer(&body, "/a/0");
        }
    }
}

//! The message a handler gets, and the forms its first argument may take.

use crate::Failure;
use serde::de::DeserializeOwned;
use std::ops::Deref;

/// A message as the log holds it, and which try this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The publisher's identity of the message, if it gave one.
    pub id: Option<String>,
    /// The concrete topic.
    pub topic: String,
    /// The key it is handled under; state belongs to it.
    pub key: Option<String>,
    /// In the publisher's order.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub body: Vec<u8>,
    /// When the log took it, in milliseconds since 1970-01-01T00:00:00Z.
    pub time_ms: u64,
    /// 1 for the first try.
    pub attempt: u32,
    /// Its place in the log, the same at every try.
    pub offset: Option<u64>,
}

impl Message {
    /// The first value of a header; names compare without regard to ASCII case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What a handler's first argument can be made of.
pub trait FromMessage: Sized {
    /// Reads the argument from the message. A [`Failure::Reject`] for a payload that can never be read.
    fn from_message(message: &Message) -> Result<Self, Failure>;
}

impl FromMessage for Message {
    fn from_message(message: &Message) -> Result<Self, Failure> {
        Ok(message.clone())
    }
}

/// The payload as JSON. What is not JSON of type `T` is rejected with the parser's words and the place of the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned> FromMessage for Json<T> {
    fn from_message(message: &Message) -> Result<Self, Failure> {
        serde_json::from_slice(&message.body)
            .map(Self)
            .map_err(|error| Failure::reject(format_args!("bad JSON payload: {error}")))
    }
}

/// The payload as UTF-8 text; anything else is rejected with the place of the fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl FromMessage for Text {
    fn from_message(message: &Message) -> Result<Self, Failure> {
        std::str::from_utf8(&message.body)
            .map(|text| Self(text.to_owned()))
            .map_err(|error| Failure::reject(format_args!("the payload is not text: {error}")))
    }
}

/// The payload as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl FromMessage for Bytes {
    fn from_message(message: &Message) -> Result<Self, Failure> {
        Ok(Self(message.body.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_payload_is_rejected_with_what_and_where() {
        let message = Message { body: b"{\"n\":\n \"x\"}".to_vec(), ..Message::default() };
        #[derive(serde::Deserialize, Debug)]
        struct Event {
            #[expect(dead_code, reason = "only its type matters")]
            n: u32,
        }
        let failure = Json::<Event>::from_message(&message).unwrap_err();
        assert!(matches!(failure, Failure::Reject { .. }));
        assert!(failure.reason().contains("expected u32 at line 2 column 4"), "{failure}");

        let message = Message { body: b"ab\xff".to_vec(), ..Message::default() };
        assert!(Text::from_message(&message).unwrap_err().reason().contains("from index 2"));
    }

    #[test]
    fn header_names_ignore_case() {
        let message = Message { headers: vec![("Trace".into(), "1".into())], ..Message::default() };
        assert_eq!(message.header("trace"), Some("1"));
    }
}

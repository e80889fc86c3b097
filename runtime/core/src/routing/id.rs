//! The dedup identity of a routed message: where its text is, until someone needs its hash.

use crate::message::{IdHash, Message};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// An id that was found in a message, or its hash.
#[derive(Clone, Debug)]
pub struct Id(Form);

#[derive(Clone, Debug)]
enum Form {
    Hashed(IdHash),
    /// The publisher's.
    OfMessage,
    /// Bytes of the body. Most ids are: what they cost the one who routes is nothing.
    InBody(Range<u32>),
    Text(Arc<str>),
}

impl From<IdHash> for Id {
    fn from(hash: IdHash) -> Self {
        Self(Form::Hashed(hash))
    }
}

impl Id {
    /// The id that the publisher gave; an empty one is none.
    pub(super) fn of_message(message: &Message) -> Option<Self> {
        message.id.is_some().then_some(Self(Form::OfMessage))
    }

    /// An id that was found in a message with this body.
    pub(super) fn found(text: Cow<'_, str>, body: &[u8]) -> Self {
        let in_body = match &text {
            Cow::Borrowed(text) => range_in(text, body),
            Cow::Owned(_) => None,
        };
        Self(in_body.map_or_else(|| Form::Text(text.into()), Form::InBody))
    }

    /// Of the message that it was found in.
    pub(super) fn hash(&self, message: &Message) -> IdHash {
        match &self.0 {
            Form::Hashed(hash) => *hash,
            Form::OfMessage => IdHash::of(message.id.as_deref().unwrap_or_default()),
            Form::InBody(Range { start, end }) => IdHash::of_bytes(&message.body[*start as usize..*end as usize]),
            Form::Text(text) => IdHash::of(text),
        }
    }
}

/// Where in the body a text lies; `None`: elsewhere.
fn range_in(text: &str, body: &[u8]) -> Option<Range<u32>> {
    let start = (text.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let end = start.checked_add(text.len()).filter(|end| *end <= body.len())?;
    Some(u32::try_from(start).ok()?..u32::try_from(end).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::{NewMessage, Offset};
    use crate::topic::Topic;

    #[test]
    fn an_id_has_the_hash_of_its_text_wherever_the_text_is() {
        let new = NewMessage { id: Some("b".into()), ..NewMessage::new(Topic::parse("t").unwrap(), r#"{"id":"a"}"#) };
        let message = Message::from_new(new, Offset(1), Timestamp(0));
        let body = std::str::from_utf8(&message.body).unwrap();
        let check = |id: Id, text: &str| {
            assert_eq!(id.hash(&message), IdHash::of(text), "{id:?}");
            assert_eq!(Id::from(id.hash(&message)).hash(&message), IdHash::of(text));
        };
        let inside = Id::found(Cow::Borrowed(&body[7..8]), &message.body);
        assert!(matches!(inside.0, Form::InBody(Range { start: 7, end: 8 })));
        check(inside, "a");
        check(Id::found(Cow::Borrowed("elsewhere"), &message.body), "elsewhere");
        check(Id::found(Cow::Owned("a".into()), &message.body), "a");
        check(Id::of_message(&message).unwrap(), "b");
    }
}

//! The dedup identity of a routed message: where its text is, until someone needs its hash.

use crate::message::{IdHash, Key, Message};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// An id that was found in a message, and its hash once someone needed it.
#[derive(Clone, Debug)]
pub struct Id {
    text: Text,
    /// Two words of 64 bits: one of 128 would make every routed message larger by its alignment.
    hash: Option<[u64; 2]>,
}

#[derive(Clone, Debug)]
enum Text {
    /// The publisher's.
    OfMessage,
    /// Bytes of the body. Most ids are: what they cost the one who routes is nothing.
    InBody(Range<u32>),
    Elsewhere(Arc<str>),
}

impl Id {
    /// The id that the publisher gave; an empty one is none.
    pub(super) fn of_message(message: &Message) -> Option<Self> {
        message.id.is_some().then_some(Self { text: Text::OfMessage, hash: None })
    }

    /// An id that was found in a message with this body.
    pub(super) fn found(text: Cow<'_, str>, body: &[u8]) -> Self {
        let in_body = match &text {
            Cow::Borrowed(text) => range_in(text, body),
            Cow::Owned(_) => None,
        };
        Self { text: in_body.map_or_else(|| Text::Elsewhere(text.into()), Text::InBody), hash: None }
    }

    /// With the key of the message that it was found in.
    pub(super) fn hash(&self, message: &Message, key: Option<&Key>) -> IdHash {
        match self.hash {
            Some([low, high]) => IdHash(u128::from(high) << 64 | u128::from(low)),
            None => IdHash::of_bytes(key, self.bytes(message)),
        }
    }

    /// Hashes it once for all who ask later.
    pub(super) fn remember_hash(&mut self, message: &Message, key: Option<&Key>) {
        let IdHash(hash) = self.hash(message, key);
        self.hash = Some([hash as u64, (hash >> 64) as u64]);
    }

    /// Without the key.
    pub(super) fn hash_alone(&self, message: &Message) -> IdHash {
        IdHash::of_id_alone(self.bytes(message))
    }

    /// Spreads messages without a key over shards and lanes: cheap, and the same for ever.
    pub(super) fn lane_hash(&self, message: &Message) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.bytes(message))
    }

    /// For people. Every id was text when it was found.
    pub(super) fn text<'t>(&'t self, message: &'t Message) -> Cow<'t, str> {
        String::from_utf8_lossy(self.bytes(message))
    }

    fn bytes<'t>(&'t self, message: &'t Message) -> &'t [u8] {
        match &self.text {
            Text::OfMessage => message.id.as_deref().unwrap_or_default().as_bytes(),
            Text::InBody(Range { start, end }) => &message.body[*start as usize..*end as usize],
            Text::Elsewhere(text) => text.as_bytes(),
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
        let key = Key::parse("k").unwrap();
        let check = |mut id: Id, text: &str| {
            for key in [None, key.as_ref()] {
                assert_eq!(id.hash(&message, key), IdHash::of(key, text), "{id:?}");
            }
            id.remember_hash(&message, key.as_ref());
            assert_eq!(id.hash(&message, key.as_ref()), IdHash::of(key.as_ref(), text));
            assert_eq!(id.hash_alone(&message), IdHash::of_id_alone(text.as_bytes()));
        };
        let inside = Id::found(Cow::Borrowed(&body[7..8]), &message.body);
        assert!(matches!(inside.text, Text::InBody(Range { start: 7, end: 8 })));
        check(inside, "a");
        check(Id::found(Cow::Borrowed("elsewhere"), &message.body), "elsewhere");
        check(Id::found(Cow::Owned("a".into()), &message.body), "a");
        check(Id::of_message(&message).unwrap(), "b");
    }
}

//! What travels through the log, and the limits that hold on every kind of log.

use crate::clock::Timestamp;
use crate::topic::Topic;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Most bytes in a body (512 KiB).
pub const BODY_BYTES_MAX: usize = 512 * 1024;
/// Most bytes in the names and values of all headers together (16 KiB).
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Most headers: the limit on their bytes does not bound empty ones.
pub const HEADERS_MAX: usize = 256;
/// Room for the headers that the host adds to a message on its own topics: so many, and bytes of them. A delayed message
/// has two, and three more when it returns as a dead letter.
const OWN_HEADERS_MAX: usize = 5;
const OWN_HEADERS_BYTES_MAX: usize = 2 * 1024;
/// Most bytes of one message in memory, as [`Message::bytes`] counts them.
pub const MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES + BODY_BYTES_MAX + HEADERS_BYTES_MAX + OWN_HEADERS_BYTES_MAX;
/// What a message that is not in the log takes beside its body, headers and topic, roughly.
pub(crate) const NEW_MESSAGE_BYTES: usize = 64;
/// What a message takes beside its body and headers, roughly.
const MESSAGE_BYTES: usize = 128;
/// Most bytes in a key.
pub const KEY_BYTES_MAX: usize = 256;
/// Most bytes in an id.
pub const ID_BYTES_MAX: usize = 256;
/// A message that went through more handlers than this is a dead letter `loop`.
pub const HOPS_MAX: u8 = 32;

/// A place in the log. It only compares: sequences have gaps, so nobody adds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// Before every message.
    pub const START: Offset = Offset(0);
    /// After every message.
    pub const END: Offset = Offset(u64::MAX);
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a piece of work inside a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkId {
    /// A message of the log.
    Offset(Offset),
    /// A request: it is not in the log, and its ticket names it as long as the shard's term lasts.
    Ticket(u64),
}

impl WorkId {
    /// The place in the log, if the work is there and could be read again.
    pub fn offset(self) -> Option<Offset> {
        match self {
            WorkId::Offset(offset) => Some(offset),
            WorkId::Ticket(_) => None,
        }
    }

    /// Tells it apart from other work of its kind.
    pub fn number(self) -> u64 {
        match self {
            WorkId::Offset(Offset(number)) | WorkId::Ticket(number) => number,
        }
    }
}

impl From<Offset> for WorkId {
    fn from(offset: Offset) -> Self {
        Self::Offset(offset)
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkId::Offset(offset) => write!(f, "offset {offset}"),
            WorkId::Ticket(ticket) => write!(f, "ticket {ticket}"),
        }
    }
}

/// A key: UTF-8, 1 to [`KEY_BYTES_MAX`] bytes. Messages of one key are handled in order; state belongs to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// A key from text; empty text is no key (`None`), too long text an error.
    pub fn parse(text: &str) -> Result<Option<Self>, MessageError> {
        match text.len() {
            0 => Ok(None),
            bytes if bytes > KEY_BYTES_MAX => Err(MessageError::KeyTooLong { bytes }),
            _ => Ok(Some(Self(text.into()))),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| error.to_string())?.ok_or_else(|| "a key is not empty".to_owned())
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().to_owned()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 bits of a sha-256 over a key and an id: what is remembered of them, since an id under another key is another
/// message. Not invertible, and collisions cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdHash(pub u128);

impl IdHash {
    pub fn of(key: Option<&Key>, id: &str) -> Self {
        Self::of_bytes(key, id.as_bytes())
    }

    /// Of an id's UTF-8.
    pub fn of_bytes(key: Option<&Key>, id: &[u8]) -> Self {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        if let Some(key) = key {
            hash.update(key.as_str());
        }
        // Not in UTF-8: it parts key and id, and tells the hash from one of an id alone.
        hash.update([0xff]);
        hash.update(id);
        Self::half_of(hash)
    }

    /// Of an id's UTF-8 without its key, as marks of earlier versions have it.
    pub fn of_id_alone(id: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::half_of(sha2::Sha256::new_with_prefix(id))
    }

    fn half_of(hash: sha2::Sha256) -> Self {
        use sha2::Digest as _;
        let hash = hash.finalize();
        let mut half = [0u8; 16];
        half.copy_from_slice(&hash[..16]);
        Self(u128::from_le_bytes(half))
    }
}

/// Header names and values in order; most messages have none, so the empty list costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Option<Arc<[(String, String)]>>);

impl Headers {
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self((!pairs.is_empty()).then(|| pairs.into()))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The first value of a header; names compare without regard to ASCII case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// A message as it is appended: the log adds offset and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    pub topic: Topic,
    pub key: Option<Key>,
    /// Dedup identity; an empty id is no id, so it is never `Some("")`.
    pub id: Option<Arc<str>>,
    pub headers: Headers,
    pub body: Bytes,
    /// How many handlers it went through: 0 from outside, input's + 1 for an output.
    pub hops: u8,
}

impl NewMessage {
    /// A message from outside with a topic and a body only.
    pub fn new(topic: Topic, body: impl Into<Bytes>) -> Self {
        Self { topic, key: None, id: None, headers: Headers::default(), body: body.into(), hops: 0 }
    }

    /// Checks the limits that hold on every kind of log.
    pub fn check(&self) -> Result<(), MessageError> {
        if self.body.len() > BODY_BYTES_MAX {
            return Err(MessageError::BodyTooLarge { bytes: self.body.len() });
        }
        let (headers, headers_bytes) = (self.headers.iter().count(), self.headers.bytes());
        let own = if self.topic.is_reserved() { (OWN_HEADERS_MAX, OWN_HEADERS_BYTES_MAX) } else { (0, 0) };
        if headers > HEADERS_MAX + own.0 {
            return Err(MessageError::TooManyHeaders { headers });
        }
        if headers_bytes > HEADERS_BYTES_MAX + own.1 {
            return Err(MessageError::HeadersTooLarge { bytes: headers_bytes });
        }
        match self.id.as_deref() {
            // All messages with it would be the same one.
            Some("") => Err(MessageError::EmptyId),
            Some(id) if id.len() > ID_BYTES_MAX => Err(MessageError::IdTooLong { bytes: id.len() }),
            _ => Ok(()),
        }
    }

    /// Bytes it takes in the log, roughly: for bounds on memory and batches.
    pub fn bytes(&self) -> usize {
        NEW_MESSAGE_BYTES + self.body.len() + self.headers.bytes() + self.topic.as_str().len()
    }
}

/// A message in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub offset: Offset,
    pub topic: Topic,
    pub key: Option<Key>,
    pub id: Option<Arc<str>>,
    pub headers: Headers,
    pub body: Bytes,
    /// When the log took it; never falls from one offset to the next on the embedded log.
    pub time: Timestamp,
    pub hops: u8,
}

impl Message {
    /// The message as the log stores it.
    pub fn from_new(new: NewMessage, offset: Offset, time: Timestamp) -> Self {
        let NewMessage { topic, key, id, headers, body, hops } = new;
        Self { offset, topic, key, id, headers, body, time, hops }
    }

    /// Bytes it takes in memory, roughly: for bounds on queues.
    pub fn bytes(&self) -> usize {
        MESSAGE_BYTES + self.body.len() + self.headers.bytes()
    }
}

/// Why a message cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("the body has {bytes} bytes, at most {BODY_BYTES_MAX} are allowed")]
    BodyTooLarge { bytes: usize },
    #[error("the headers have {bytes} bytes, at most {HEADERS_BYTES_MAX} are allowed")]
    HeadersTooLarge { bytes: usize },
    #[error("the message has {headers} headers, at most {HEADERS_MAX} are allowed")]
    TooManyHeaders { headers: usize },
    #[error("the key has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")]
    KeyTooLong { bytes: usize },
    #[error("the id is empty: leave it out, a message without one is never taken for another's twin")]
    EmptyId,
    #[error("the id has {bytes} bytes, at most {ID_BYTES_MAX} are allowed")]
    IdTooLong { bytes: usize },
}
